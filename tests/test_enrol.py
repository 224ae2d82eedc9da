"""From planned jobs to the ledger: staged, compared, enrolled at once, or not at all."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from batchgen.errors import ManifestError
from batchgen.job import JobId, PlannedJob
from batchgen.ledger.database import open_for_writing
from batchgen.ledger.enrol import BatchIdentity, Group, GroupSum, Staging
from batchgen.ledger.ledger import Ledger
from batchgen.money import ZERO, Micros
from batchgen.naming import collision_key

PRICE = Micros(37_700)
NOW = datetime(2026, 11, 22, tzinfo=UTC)
IDENTITY = BatchIdentity(
    name="b",
    provider="local",
    price_source="test",
    manifest_path="b.yaml",
    manifest_sha256="",
    manifest="",
)


def planned(key: str, *, prompt: str = "p", path: str | None = None) -> PlannedJob:
    return PlannedJob(
        key=key,
        fingerprint=prompt,
        provider="local",
        model="gpt-image-2",
        prompt=prompt,
        options={},
        root="out",
        path=path or f"{key}.{{ext}}",
        source=f"b.csv:{ord(key[0])}",
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(open_for_writing(tmp_path / "batchgen.db")) as conn:
        yield Ledger(conn, lambda: NOW)


def stage(ledger: Ledger, *jobs: PlannedJob, now: datetime = NOW) -> Staging:
    if any(row["name"] == "staging" for row in ledger.conn.execute("PRAGMA database_list")):
        ledger.conn.execute("DETACH DATABASE staging")
    staging = Staging(ledger.conn, lambda: now)
    staging.fill(jobs, price=lambda *_: PRICE, collision_key=collision_key)
    return staging


def finish(ledger: Ledger, key: str) -> None:
    ledger.conn.execute(
        "UPDATE jobs SET state = 'done', done_at = '2026-11-22T00:00:00.000Z' WHERE key = ?",
        (key,),
    )


def states(ledger: Ledger) -> dict[str, tuple[str, int]]:
    rows = ledger.conn.execute("SELECT key, state, retired FROM jobs")
    return {row["key"]: (row["state"], row["retired"]) for row in rows}


def test_new_changed_unchanged_and_retired_jobs_are_told_apart(ledger: Ledger) -> None:
    batch = stage(ledger, *map(planned, "abc")).enrol(IDENTITY)
    for key in "abc":
        finish(ledger, key)
    staging = stage(ledger, planned("a"), planned("b", prompt="other"), planned("d"))

    assert staging.compare(batch) == {
        Group.UNCHANGED: GroupSum(1, PRICE),
        Group.CHANGED: GroupSum(1, PRICE),
        Group.NEW: GroupSum(1, PRICE),
        Group.RETIRED: GroupSum(1, ZERO),
    }
    staging.enrol(IDENTITY)
    assert states(ledger) == {
        "a": ("done", 0),
        "b": ("pending", 0),
        "c": ("done", 1),
        "d": ("pending", 0),
    }


def test_a_key_that_comes_back_keeps_its_picture(ledger: Ledger) -> None:
    stage(ledger, planned("a"), planned("b")).enrol(IDENTITY)
    finish(ledger, "b")
    stage(ledger, planned("a")).enrol(IDENTITY)
    stage(ledger, planned("a"), planned("b")).enrol(IDENTITY)
    assert states(ledger)["b"] == ("done", 0)


def test_the_order_of_jobs_is_the_manifest_s_and_moving_one_changes_nothing(
    ledger: Ledger,
) -> None:
    batch = stage(ledger, *map(planned, "cab")).enrol(IDENTITY)
    assert [job.key for job in ledger.pending(batch, after=JobId(0), limit=9)] == list("cab")
    staging = stage(ledger, *map(planned, "abc"))
    assert staging.compare(batch) == {Group.PENDING: GroupSum(3, Micros(3 * PRICE))}


@pytest.mark.parametrize(
    ("refresh", "age_days", "group"),
    [
        ("changed", 400, Group.UNCHANGED),
        ("always", 1, Group.STALE),
        ("30d", 29, Group.UNCHANGED),
        ("30d", 31, Group.STALE),
    ],
)
def test_an_old_picture_is_stale_as_the_manifest_says(
    refresh: str, age_days: int, group: Group, ledger: Ledger
) -> None:
    job = replace(planned("a"), refresh=refresh)
    batch = stage(ledger, job).enrol(IDENTITY)
    finish(ledger, "a")
    staging = stage(ledger, job, now=NOW + timedelta(days=age_days))
    assert list(staging.compare(batch)) == [group]
    staging.enrol(IDENTITY)
    assert states(ledger)["a"][0] == ("pending" if group is Group.STALE else "done")


def test_jobs_with_one_key_are_all_named_and_nothing_is_enrolled(ledger: Ledger) -> None:
    twice = [planned("a"), planned("b"), replace(planned("a"), path="x.{ext}", source="b.csv:9")]
    with pytest.raises(ManifestError) as caught:
        stage(ledger, *twice)
    (fault,) = caught.value.faults
    assert str(fault) == (
        "b.csv:9: key: the key 'a' is taken already by b.csv:97 (a); each job needs its own"
    )
    assert states(ledger) == {}


@pytest.mark.parametrize(
    ("one", "other"),
    [("Mug.{ext}", "mug.{ext}"), ("caf\u00e9.{ext}", "cafe\u0301.{ext}"), ("a.{ext}", "a.{ext}")],
)
def test_paths_that_some_disk_takes_for_one_are_a_collision(
    one: str, other: str, ledger: Ledger
) -> None:
    with pytest.raises(ManifestError, match="output path") as caught:
        stage(ledger, planned("a", path=one), planned("b", path=other))
    assert "b.csv:97 (a)" in str(caught.value)


def test_a_collision_is_found_across_pages(ledger: Ledger) -> None:
    jobs = [replace(planned("a"), key=f"k{n}", path=f"{n}.{{ext}}") for n in range(4500)]
    jobs.append(replace(planned("z"), key="k7", path="z.{ext}"))
    with pytest.raises(ManifestError, match="key 'k7' is taken already"):
        stage(ledger, *jobs)


def test_the_price_that_was_used_is_kept(ledger: Ledger) -> None:
    stage(ledger, planned("a")).enrol(IDENTITY)
    stage(ledger, planned("a"), planned("b")).enrol(IDENTITY)
    (row,) = ledger.conn.execute("SELECT provider, model, price, source FROM prices").fetchall()
    assert tuple(row) == ("local", "gpt-image-2", PRICE, "test")


_MANY = """
import resource, sys
from contextlib import closing
from pathlib import Path
from batchgen.ledger.database import open_for_writing
from batchgen.ledger.enrol import Staging
from batchgen.naming import collision_key
from tests.test_enrol import IDENTITY, planned
from dataclasses import replace
base = planned("a")
count = int(sys.argv[2])
jobs = (replace(base, key=f"k{n}", path=f"{n}.{{ext}}") for n in range(count))
with closing(open_for_writing(Path(sys.argv[1]))) as conn:
    staging = Staging(conn)
    staging.fill(jobs, price=lambda *_: 1, collision_key=collision_key)
    staging.enrol(IDENTITY)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def _peak_kb(db: Path, jobs: int) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _MANY, str(db), str(jobs)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent,
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere")
def test_memory_does_not_grow_with_the_number_of_jobs(tmp_path: Path) -> None:
    small = _peak_kb(tmp_path / "small.db", 10_000)
    large = _peak_kb(tmp_path / "large.db", 150_000)
    assert large - small < 15_000
