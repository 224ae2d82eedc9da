"""What befalls the ledger of whole runs: a lock, a lost journal, a clock set back, damage."""

from __future__ import annotations

import ast
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import batchgen
from batchgen.errors import LedgerError
from batchgen.ledger.database import open_for_reading, open_for_writing
from tests.support import rig

LIMITS = '{concurrency: 4, max_waste: "0"}'


@pytest.mark.fault("Q01")
def test_a_run_waits_while_another_program_holds_the_ledger(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "state", "--fast-images", "--latency", "0.3") as slow:
        path = rig.manifest(tmp_path, slow.base_url, ["p"] * 8, limits=LIMITS)
        with rig.start("run", path, "--json", cwd=tmp_path) as process:
            next(rig.events(process))
            other = sqlite3.connect(
                tmp_path / "batchgen.db", isolation_level=None, timeout=rig.TIMEOUT_S
            )
            with closing(other):
                other.execute("BEGIN IMMEDIATE")
                slow.wait_until_idle()
                assert process.poll() is None
                other.execute("ROLLBACK")
            _, errors = process.communicate(timeout=rig.TIMEOUT_S)
        assert process.returncode == 0, errors
        rig.judge(tmp_path, slow.bill(), finished=True)


_KILLED_IN_A_TRANSACTION = """
import os, sqlite3, sys
conn = sqlite3.connect(sys.argv[1], isolation_level=None)
conn.execute("PRAGMA cache_size = 1")
conn.execute("BEGIN IMMEDIATE")
conn.execute("UPDATE jobs SET reason = hex(randomblob(4000))")
conn.execute("UPDATE attempts SET message = hex(randomblob(4000))")
os.kill(os.getpid(), 9)
"""


@pytest.mark.fault("Q12")
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is of POSIX")
def test_a_journal_deleted_after_a_kill_is_detected(served: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, served.base_url, [f"p{n}" for n in range(40)], limits=LIMITS)
    rig.batchgen("run", path, "--limit", "20", cwd=tmp_path)
    db = tmp_path / "batchgen.db"
    killed = subprocess.run([sys.executable, "-c", _KILLED_IN_A_TRANSACTION, str(db)], check=False)
    assert killed.returncode == -9
    (tmp_path / "batchgen.db-journal").unlink()
    posts = served.judge("stats")["posts"]
    damaged = db.read_bytes()

    refused = rig.batchgen("run", path, cwd=tmp_path, code=None)

    assert refused.returncode == LedgerError("").exit_code
    assert "damaged" in refused.stderr
    assert ".recover" in refused.stderr
    assert served.judge("stats")["posts"] == posts
    assert db.read_bytes() == damaged


@pytest.mark.fault("Q17")
def test_a_clock_that_was_set_back_changes_no_order(served: rig.Endpoint, tmp_path: Path) -> None:
    before = len(served.bill())
    path = rig.manifest(tmp_path, served.base_url, ["one", "two", "forbidden-word"])
    rig.run_changed(rig.set_clock(1), path, code=1)
    rig.manifest(tmp_path, served.base_url, ["one", "two, changed", "three"])
    rig.batchgen("run", path, cwd=tmp_path)

    runs = rig.query(tmp_path / "batchgen.db", "SELECT started_at FROM runs ORDER BY id")
    assert runs[0]["started_at"] > runs[1]["started_at"], "the clock was not set back"
    rig.judge(tmp_path, served.bill()[before:], finished=True)
    found = rig.status(tmp_path)
    assert (found["jobs"]["done"], found["stopped"]) == (3, None)
    report = json.loads(rig.batchgen("report", "batch", "--format", "json", cwd=tmp_path).stdout)
    assert (report["run"]["id"], report["before"]["id"]) == (2, 1)
    exported = rig.batchgen("export", "batch", "--what", "attempts", cwd=tmp_path).stdout
    order = [line.partition('"run": ')[2][:1] for line in exported.splitlines()]
    assert order == sorted(order)
    assert "nothing sent" in rig.batchgen("run", path, cwd=tmp_path).stdout


@pytest.mark.fault("Q19")
def test_nothing_forks_while_the_ledger_is_open() -> None:
    """A connection of SQLite must not be carried into a child."""
    forking = {"fork", "forkpty", "preexec_fn", "multiprocessing", "ProcessPoolExecutor"}
    for path in Path(batchgen.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = {
                getattr(node, "attr", None),
                getattr(node, "id", None),
                getattr(node, "arg", None),
                *(
                    alias.name.partition(".")[0]
                    for alias in getattr(node, "names", ())
                    if isinstance(alias, ast.alias)
                ),
            }
            assert not names & forking, f"{path.name}:{getattr(node, 'lineno', 0)}"


@pytest.mark.fault("Q06")
@pytest.mark.skipif(sys.platform == "win32", reason="mounts of POSIX")
def test_a_ledger_on_a_read_only_disk_can_be_read(served: rig.Endpoint, tmp_path: Path) -> None:
    with rig.small_disk(tmp_path / "disk", "size=128m") as disk:
        path = rig.manifest(disk, served.base_url, ["one", "two"])
        rig.batchgen("run", path, "--limit", "1", cwd=disk)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        posts = served.judge("stats")["posts"]
        refused = rig.batchgen("run", path, cwd=disk, code=None)
        assert refused.returncode in (2, 3)
        assert "Read-only file system" in refused.stderr
        assert "Traceback" not in refused.stderr
        assert served.judge("stats")["posts"] == posts
        assert rig.status(disk)["jobs"]["done"] == 1


@pytest.mark.fault("D21")
def test_a_directory_that_knows_no_hard_links_holds_a_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAT and some network shares have none; no write-ahead log exists next to a ledger."""

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "batchgen.db"
    for _ in range(2):
        with closing(open_for_writing(path)) as conn:
            assert conn.execute("PRAGMA journal_mode").fetchone()[0] == "truncate"
    open_for_reading(path).close()
    assert {file.name.removesuffix("-journal") for file in tmp_path.iterdir()} == {path.name}
