"""``--only``: several keys and patterns, from files and stdin, and what matches no job."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.api import Batch
from batchgen.errors import SettingsError
from batchgen.job import BatchId
from batchgen.ledger.database import in_memory
from batchgen.ledger.key_patterns import IS_MEANT, Only, only_values, resolve_jobs
from tests.support import rig

SWITCHES = ()


@pytest.fixture
def batch_conn() -> Iterator[sqlite3.Connection]:
    """A ledger of one batch with a job for each key that `add` is given."""
    with closing(in_memory()) as opened:
        opened.execute(
            "INSERT INTO batches (id, name, provider, manifest_path, manifest_sha256, manifest,"
            " plan, created_at, planned_at) VALUES (1, 'b', 'local', 'b.yaml', '', '', 1, '', '')"
        )
        yield opened


def add(conn: sqlite3.Connection, *keys: str) -> None:
    names = (
        "batch_id, key, state, fingerprint, prompt, images, path, source, model, options, root,"
        " verify, keep_previous, keep_partials, sidecar, metadata, tags, estimated, plan,"
        " changed_at"
    )
    conn.executemany(
        f"INSERT INTO jobs ({names}) VALUES (1, ?, 'pending', 'f', 'p', '[]', 'p', 's', 'm',"
        " '{}', 'o', 'structure', 0, 0, 0, 0, '[]', 1, 1, '')",
        [(key,) for key in keys],
    )


def meant(conn: sqlite3.Connection, only: Only | None) -> list[str]:
    rows = conn.execute(f"SELECT key FROM jobs WHERE {IS_MEANT} ORDER BY id", only_values(only))
    return [row["key"] for row in rows]


def resolved(conn: sqlite3.Connection, *patterns: str) -> Only | None:
    return resolve_jobs(conn, Only.of(patterns), BatchId(1), "b")


@pytest.mark.fault("XF3")
def test_only_adds_up_and_reads_files_and_stdin(tmp_path: Path, served: rig.Endpoint) -> None:
    path = rig.manifest(tmp_path, served.base_url, [f"p {number}" for number in range(6)])
    before = len(served.bill())
    rig.batchgen("run", path, "--only", "job-000", "--only", "*-00[12]", cwd=tmp_path)
    assert rig.status(tmp_path)["jobs"]["done"] == 3
    (tmp_path / "keys.txt").write_text("# to do\njob-003\n\n job-004 \n", encoding="utf-8")
    rig.batchgen("resume", "batch", "--only", "@keys.txt", cwd=tmp_path)
    assert rig.status(tmp_path)["jobs"]["done"] == 5
    done = subprocess.run(
        [sys.executable, "-m", "batchgen", "run", str(path), "--only", "-"],
        cwd=tmp_path,
        env=rig.environment(),
        input="job-005\n",
        text=True,
        capture_output=True,
        timeout=rig.TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(served.bill()) - before == 6


@pytest.mark.fault("XF3")
def test_only_without_a_match_changes_nothing(tmp_path: Path, served: rig.Endpoint) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["a", "b"])
    message = "--only 'zob*' matches no job of batch; the nearest is 'job-00"
    for command in ("plan", "run"):
        done = rig.batchgen(
            command, path, "--only", "job-000", "--only", "zob*", cwd=tmp_path, code=2
        )
        assert message in done.stderr
    ledger = tmp_path / "batchgen.db"
    assert not ledger.exists() or rig.query(ledger, "SELECT * FROM jobs") == []
    rig.batchgen("run", path, cwd=tmp_path)
    before = [tuple(row) for row in rig.query(ledger, "SELECT * FROM jobs")]
    for command in ("resume", "retry", "rollback", "acknowledge"):
        done = rig.batchgen(command, "batch", "--only", "job-01", cwd=tmp_path, code=2)
        assert "--only 'job-01' matches no job of batch; the nearest is 'job-00" in done.stderr
    assert [tuple(row) for row in rig.query(ledger, "SELECT * FROM jobs")] == before


@pytest.mark.parametrize(
    ("given", "message"),
    [("@gone.txt", "cannot be read"), ("@empty.txt", "lists no key"), ("-", "lists no key")],
)
def test_only_refuses_lists_without_keys(tmp_path: Path, given: str, message: str) -> None:
    (tmp_path / "empty.txt").write_text("# nothing\n", encoding="utf-8")
    done = rig.batchgen("retry", "batch", "--only", given, cwd=tmp_path, code=2)
    assert message in done.stderr


@pytest.mark.fault("XC11")
def test_exact_key_wins_over_its_reading_as_a_pattern(tmp_path: Path, served: rig.Endpoint) -> None:
    path = rig.manifest(tmp_path, served.base_url, [])
    path.write_text(
        path.read_text(encoding="utf-8") + "  - {key: 'chair[2]', prompt: a}\n"
        "  - {key: chair2, prompt: b}\n",
        encoding="utf-8",
    )
    rig.batchgen("run", path, cwd=tmp_path)
    before = len(served.bill())
    rig.batchgen("run", path, "--refresh", "always", "--only", "chair[2]", cwd=tmp_path)
    rows = rig.query(
        tmp_path / "batchgen.db",
        "SELECT key, count(*) AS n FROM jobs JOIN attempts ON job_id = jobs.id GROUP BY key",
    )
    assert {row["key"]: row["n"] for row in rows} == {"chair[2]": 2, "chair2": 1}
    assert len(served.bill()) - before == 1


@pytest.mark.fault("XF3")
def test_acknowledge_selects_jobs_as_other_commands_do(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "endpoint", "--fast-images", "--bill-drop", "1") as endpoint:
        path = rig.manifest(tmp_path, endpoint.base_url, ["a", "b", "c"], limits='{max_waste: "0"}')
        rig.batchgen("run", path, "--only", "job-00[01]", cwd=tmp_path, code=1)
    refused = rig.batchgen("acknowledge", "batch", "--only", "job-002", cwd=tmp_path, code=2)
    assert "--only: no uncertain job" in refused.stderr
    assert rig.status(tmp_path)["jobs"]["acknowledged"] == 0
    (tmp_path / "keys.txt").write_text("# seen\njob-000\n", encoding="utf-8")
    rig.batchgen("acknowledge", "batch", "--only", "@keys.txt", cwd=tmp_path)
    assert rig.status(tmp_path)["jobs"]["acknowledged"] == 1
    rig.batchgen("acknowledge", "batch", "--only", "*-00[^2]", cwd=tmp_path)
    assert rig.status(tmp_path)["jobs"]["acknowledged"] == 2


def test_patterns_still_match_without_an_exact_key(batch_conn: sqlite3.Connection) -> None:
    add(batch_conn, "chair1", "chair2", "table")
    assert meant(batch_conn, resolved(batch_conn, "chair[2]")) == ["chair2"]
    assert meant(batch_conn, None) == ["chair1", "chair2", "table"]


def test_many_unmatched_keys_are_counted(batch_conn: sqlite3.Connection) -> None:
    add(batch_conn, "a")
    with pytest.raises(SettingsError, match=r"and 90 more\nnothing was changed"):
        resolved(batch_conn, *(f"b{number}" for number in range(100)))


def test_ten_thousand_keys_need_few_steps(batch_conn: sqlite3.Connection) -> None:
    """Each row is looked up in an index of the keys; a scan would take 100,000,000 steps."""
    add(batch_conn, *(f"k{number}" for number in range(20_000)))
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 10_000
        return 0

    only = resolved(batch_conn, *(f"k{number}" for number in range(10_000)))
    batch_conn.set_progress_handler(count, 10_000)
    assert len(meant(batch_conn, only)) == 10_000
    assert steps < 3_000_000


KEYS = st.text(alphabet="ab[]*?2", min_size=1, max_size=4)


@given(keys=st.sets(KEYS, min_size=1, max_size=6), patterns=st.sets(KEYS, min_size=1, max_size=3))
def test_only_means_exact_keys_or_patterns(keys: set[str], patterns: set[str]) -> None:
    with closing(in_memory()) as conn:
        conn.execute(
            "INSERT INTO batches (id, name, provider, manifest_path, manifest_sha256, manifest,"
            " plan, created_at, planned_at) VALUES (1, 'b', 'local', 'b.yaml', '', '', 1, '', '')"
        )
        add(conn, *sorted(keys))
        expected = {key for key in keys if key in patterns}
        for pattern in patterns - keys:
            found = {key for key in keys if glob(conn, key, pattern)}
            if not found:
                with pytest.raises(SettingsError):
                    resolved(conn, *patterns)
                return
            expected |= found
        assert set(meant(conn, resolved(conn, *patterns))) == expected


def glob(conn: sqlite3.Connection, key: str, pattern: str) -> bool:
    return bool(conn.execute("SELECT ? GLOB ? AS found", (key, pattern)).fetchone()["found"])


def test_batch_takes_only_some_jobs(tmp_path: Path, served: rig.Endpoint) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["a", "b", "c"])

    async def run() -> list[str]:
        async with Batch(path, only=["job-000", "*2"]) as batch:
            return sorted([result.key async for result in batch])

    with pytest.MonkeyPatch.context() as patch:
        for name, value in rig.environment().items():
            patch.setenv(name, value)
        assert anyio.run(run) == ["job-000", "job-002"]
