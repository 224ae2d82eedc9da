"""One ledger, one owner: two names, two processes, two hosts, a lost spool. Real processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchgen.errors import BatchLockedError, LedgerError
from batchgen.job import AttemptId, JobState, RunId
from batchgen.ledger.attempts import open_attempts, settle_attempt
from batchgen.ledger.database import open_for_reading, open_for_writing
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.owners import Claim
from batchgen.ledger.runs import RunTakenOver, end_run, record_heartbeat, start_run
from batchgen.money import ZERO
from batchgen.session.batch_lock import owner_of
from batchgen.system.process_owner import Here, Life
from batchgen.system.process_table import this_process
from tests.support import rig
from tests.support.builders import LOST, enroll, first, planned, send
from tests.support.ledger_steps import reserve_attempt

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and links of POSIX")

ONCE = '{concurrency: 2, max_waste: "100%"}'
"""Each uncertain attempt must be held although all of it might be rebought."""


SWITCHES = ("--fast-images", "--response", "b64_json")


def posts(endpoint: rig.Endpoint) -> int:
    return int(endpoint.judge("stats")["posts"])


def killed_run(path: Path, point: str, *options: str) -> None:
    """Run a manifest to a failpoint, where it is killed."""
    env = {"BATCHGEN_FAILPOINT": point}
    done = rig.batchgen("run", path.name, *options, cwd=path.parent, env=env, code=None)
    assert done.returncode == -signal.SIGKILL, done.stderr


# XA5: names and spools


@pytest.mark.fault("XA5")
@pytest.mark.parametrize("point", ["reserved", "spooled", "received"])
@pytest.mark.parametrize("linked", ["file", "directory"])
def test_a_killed_run_continues_by_another_name(
    point: str, linked: str, served: rig.Endpoint, tmp_path: Path
) -> None:
    before = len(served.bill())
    directory = tmp_path / "shop"
    path = rig.manifest(directory, served.base_url, ["one"])
    other = tmp_path / "other"
    if linked == "directory":
        other.symlink_to(directory)
        name = other / "batchgen.db"
    else:
        other.mkdir()
        name = other / "link.db"
        name.symlink_to(directory / "batchgen.db")
    killed_run(path, point, "--db", str(name))
    if linked == "file":
        assert list(other.iterdir()) == [name], "something was made next to the link"

    rig.batchgen("run", path, "--max-waste", "100%", cwd=directory)

    bill = served.bill()[before:]
    assert len(bill) == 1
    rig.judge(directory, bill, finished=True)
    assert rig.status(directory)["jobs"]["done"] == 1


@pytest.mark.fault("XA5")
@pytest.mark.parametrize("point", ["reserved", "spooled"])
@pytest.mark.parametrize("spool", ["not copied", "removed", "emptied by an earlier start"])
def test_a_ledger_without_its_spool_rebuys_nothing(
    point: str, spool: str, served: rig.Endpoint, tmp_path: Path
) -> None:
    path = rig.manifest(tmp_path / "shop", served.base_url, ["one"], limits=ONCE)
    killed_run(path, point)
    directory = path.parent
    if spool == "not copied":
        directory = tmp_path / "restored"
        directory.mkdir()
        for file in path.parent.glob("batch*"):
            if file.is_file() and not file.name.endswith("-journal"):
                shutil.copy(file, directory)
    else:
        shutil.rmtree(directory / "batchgen.db.spool")
    sent = posts(served)
    if spool == "emptied by an earlier start":
        env = {"BATCHGEN_FAILPOINT": "recovering"}
        rig.batchgen("run", path.name, cwd=directory, env=env, code=-signal.SIGKILL)
    rig.batchgen("run", path.name, cwd=directory, code=1)

    assert posts(served) == sent
    (job,) = rig.query(directory / "batchgen.db", "SELECT state, reason FROM jobs")
    assert job["state"] == JobState.UNCERTAIN
    assert job["reason"].startswith("spool_missing: ")
    assert str(directory / "batchgen.db.spool") in job["reason"]
    assert rig.query(directory / "batchgen.db", "SELECT 1 FROM attempts WHERE billed = 'no'") == []


def test_a_response_that_was_copied_back_is_used(served: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["one"], limits=ONCE)
    killed_run(path, "spooled")
    (tmp_path / "batchgen.db.spool-id").unlink()
    sent = posts(served)
    rig.batchgen("run", path, cwd=tmp_path)
    assert posts(served) == sent


def test_links_in_a_circle_are_refused(tmp_path: Path, served: rig.Endpoint) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["one"])
    (tmp_path / "batchgen.db").symlink_to(tmp_path / "batchgen.db")
    refused = rig.batchgen("run", path, cwd=tmp_path, code=2)
    assert "batchgen.db" in refused.stderr
    assert "bug" not in refused.stderr


# XA12: two names of one file


@pytest.mark.fault("XA12")
def test_a_hard_linked_ledger_is_refused(served: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["one"])
    rig.batchgen("run", path, "--limit", "1", cwd=tmp_path)
    db = tmp_path / "batchgen.db"
    second = tmp_path / "second.db"
    second.hardlink_to(db)
    before, sent = db.read_bytes(), posts(served)
    rig.manifest(tmp_path, served.base_url, ["changed"])
    for name in (db, second):
        refused = rig.batchgen("run", path, "--db", name, cwd=tmp_path, code=2)
        assert "2 names (hard links)" in refused.stderr
        assert "second.db" in refused.stderr
        with pytest.raises(LedgerError, match="expected one"):
            open_for_reading(name)
    assert (db.read_bytes(), posts(served)) == (before, sent)
    assert not (tmp_path / "second.db.lock").exists()


def test_a_name_of_a_killed_creation_is_removed(tmp_path: Path) -> None:
    db = tmp_path / "batchgen.db"
    open_for_writing(db).close()
    aside = tmp_path / ".batchgen.db.x7"
    aside.hardlink_to(db)
    open_for_writing(db).close()
    assert not aside.exists()


@pytest.mark.fault("XA12")
def test_a_ledger_that_is_a_mount_of_a_file_is_refused(
    served: rig.Endpoint, tmp_path: Path
) -> None:
    path = rig.manifest(tmp_path / "my shop", served.base_url, ["one"])
    rig.batchgen("run", path, cwd=path.parent)
    name = tmp_path / "my mount" / "batchgen.db"
    name.parent.mkdir()
    name.touch()
    command = ["mount", "--bind", str(path.parent / "batchgen.db"), str(name)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount: {mounted.stderr.strip()}")
    try:
        refused = rig.batchgen("run", path, "--db", name, cwd=tmp_path, code=2)
    finally:
        subprocess.run(["umount", "--lazy", str(name)], check=True)
    assert "mount of a single file; expected a mount of its directory" in refused.stderr
    assert [file.name for file in name.parent.iterdir()] == ["batchgen.db"]


@contextmanager
def running(path: Path) -> Iterator[rig.Started]:
    """A run with a request in flight."""
    with rig.start("run", path.name, "--json", cwd=path.parent, has_command_line=True) as process:
        try:
            for event in rig.events(process):
                if event["event"] == "attempt_started":
                    break
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()


@pytest.mark.fault("XA12")
@pytest.mark.parametrize("stopped", ["run", "endpoint"])
def test_a_run_with_another_lock_file_recovers_nothing(stopped: str, tmp_path: Path) -> None:
    """As over a network share whose locks are local, or after somebody removed the lock."""
    with rig.endpoint(tmp_path / "state", "--fast-images", "--latency", "1") as slow:
        path = rig.manifest(tmp_path / "shop", slow.base_url, ["p"] * 6, limits=ONCE)
        with running(path) as process:
            # Whichever is stopped, the requests stay in flight until it continues.
            held = process if stopped == "run" else slow.process
            held.send_signal(signal.SIGSTOP)
            try:
                (path.parent / "batchgen.db.lock").unlink()
                refused = rig.batchgen("run", path.name, "--take-over", cwd=path.parent, code=75)
                for command in ("resume", "retry", "prune"):
                    other = rig.batchgen(command, "batch", cwd=path.parent, code=75)
                    assert f"pid {process.pid} of" in other.stderr
            finally:
                held.send_signal(signal.SIGCONT)
            _, errors = process.communicate(timeout=rig.TIMEOUT_S)
        assert process.returncode == 0, errors
        assert f"batch is being run by pid {process.pid} of " in refused.stderr
        assert "(batchgen run batch.yaml --json); nothing was changed" in refused.stderr
        rig.judge(path.parent, slow.bill(), finished=True)
        assert len(slow.bill()) == 6


@pytest.mark.fault("XA12", "XD3")
def test_the_owner_of_a_batch_is_found(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "state", "--fast-images", "--latency", "1") as slow:
        path = rig.manifest(tmp_path / "shop", slow.base_url, ["p"] * 2)
        db = path.parent / "batchgen.db"
        assert owner_of(db, "batch") is None
        with running(path) as process:
            found = owner_of(db, "batch")
            assert found is not None
            assert (found.owner.pid, found.life) == (process.pid, Life.ALIVE)
            assert found.heartbeat is not None
            assert owner_of(db, "another") is None
            process.kill()
            process.wait()
            assert owner_of(db, "batch") is None, "a killed run owns nothing"


# XA12: another host


def _move_owner_to_another_host(db: Path) -> None:
    with closing(sqlite3.connect(db)) as conn, conn:
        ((text,),) = conn.execute("SELECT owner FROM runs").fetchall()
        owner = json.loads(text) | {"host": "shop2", "boot": "another", "pid": 12}
        conn.execute("UPDATE runs SET owner = ?", (json.dumps(owner),))


@pytest.mark.fault("XA12")
def test_run_of_another_host_is_taken_over_only_on_request(
    served: rig.Endpoint, tmp_path: Path
) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["one"], limits=ONCE)
    killed_run(path, "spooled")
    _move_owner_to_another_host(tmp_path / "batchgen.db")
    before, sent = (tmp_path / "batchgen.db").read_bytes(), posts(served)
    for command in (("run", path.name), ("resume", "batch"), ("retry", "batch")):
        refused = rig.batchgen(*command, cwd=tmp_path, code=75)
        assert "batch is being run by pid 12 of" in refused.stderr
        assert "on shop2 since" in refused.stderr
        assert "batchgen resume batch --take-over" in refused.stderr
    assert (tmp_path / "batchgen.db").read_bytes() == before
    rig.batchgen("resume", "batch", "--take-over", cwd=tmp_path)
    assert posts(served) == sent, "the whole response was in the spool"
    assert rig.status(tmp_path)["jobs"]["done"] == 1


@pytest.mark.fault("XA12")
def test_a_silent_run_of_another_host_is_dead(served: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["one"], limits=ONCE)
    killed_run(path, "spooled")
    db = tmp_path / "batchgen.db"
    _move_owner_to_another_host(db)
    with closing(sqlite3.connect(db)) as conn, conn:
        conn.execute("UPDATE runs SET heartbeat_at = '2026-01-01T00:00:00.000Z'")
    rig.batchgen("run", path.name, cwd=tmp_path)
    assert rig.status(tmp_path)["jobs"]["done"] == 1


@pytest.fixture
def here() -> Here:
    return this_process("8:1")


def claim(here: Here, *, take_over: bool = False, **other: Any) -> Claim:
    return Claim(here=replace(here, me=replace(here.me, **other)), spool="s", take_over=take_over)


def begin(ledger: Ledger, claimed: Claim) -> RunId:
    """Start a run of the batch that the tests below enroll."""
    batch = ledger.conn.execute("SELECT id FROM batches").fetchone()["id"]
    return start_run(ledger, batch, estimate=ZERO, max_cost=None, max_waste=ZERO, claim=claimed)


@pytest.mark.fault("XA12")
def test_a_run_that_was_taken_over_writes_nothing(tmp_path: Path, here: Here) -> None:
    with (
        closing(open_for_writing(tmp_path / "batchgen.db")) as one,
        closing(open_for_writing(tmp_path / "batchgen.db")) as other,
    ):
        paused, next_one = Ledger(one), Ledger(other)
        batch = enroll(paused, [planned(0), planned(1)])
        run = begin(paused, claim(here, host="shop1", boot="1", lock="1"))
        attempt = send(paused, run, first(paused, batch))
        with pytest.raises(BatchLockedError, match=r"on shop1 since .* --take-over"):
            begin(next_one, claim(here, host="shop2", boot="2", lock="2"))
        assert open_attempts(next_one, batch) == []
        begin(next_one, claim(here, host="shop2", boot="2", lock="2", take_over=True))
        (opened,) = open_attempts(next_one, batch)
        assert (opened.id, opened.spool) == (attempt, "s")
        settle_attempt(next_one, opened.id, LOST, hold=True)

        job = first(paused, batch)
        for step in (
            lambda: record_heartbeat(paused),
            lambda: settle_attempt(paused, attempt, LOST),
            lambda: reserve_attempt(paused, run, job, AttemptId("a2"), provider="local"),
        ):
            one.execute("BEGIN IMMEDIATE")
            with pytest.raises(RunTakenOver, match=r"run 1 was taken over by run 2 .*shop2"):
                step()
            one.execute("ROLLBACK")


def test_a_live_run_keeps_its_open_attempts(tmp_path: Path, here: Here) -> None:
    with closing(open_for_writing(tmp_path / "batchgen.db")) as conn:
        ledger = Ledger(conn)
        batch = enroll(ledger, [planned(0)])
        run = begin(ledger, claim(here))
        send(ledger, run, first(ledger, batch))
        assert open_attempts(ledger, batch) == []
        with pytest.raises(BatchLockedError, match="being run by pid"):
            begin(ledger, claim(here, lock="8:2"))
        # The lock that we hold is the one that it held: it has let go, or has died.
        begin(ledger, claim(here))
        assert len(open_attempts(ledger, batch)) == 1


def test_ended_run_does_not_block_the_next(tmp_path: Path, here: Here) -> None:
    with closing(open_for_writing(tmp_path / "batchgen.db")) as conn:
        ledger = Ledger(conn)
        enroll(ledger, [planned(0)])
        run = begin(ledger, claim(here))
        end_run(ledger, run, stopped=None, exit_code=0)
        record_heartbeat(ledger)
        begin(ledger, claim(here, lock="8:2"))


def test_a_heartbeat_says_when_a_run_was_last_alive(tmp_path: Path, here: Here) -> None:
    with closing(open_for_writing(tmp_path / "batchgen.db")) as conn:
        ledger = Ledger(conn)
        enroll(ledger, [planned(0)])
        begin(ledger, claim(here))
        conn.execute("UPDATE runs SET heartbeat_at = 'long ago'")
        record_heartbeat(ledger)
        (row,) = conn.execute("SELECT heartbeat_at, owner FROM runs").fetchall()
        assert row["heartbeat_at"] > "2020"
        assert json.loads(row["owner"])["pid"] == os.getpid()
