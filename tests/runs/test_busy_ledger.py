"""A ledger that another program holds: waited for, with a line that names who it is."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from batchgen.errors import ExitCode, LedgerBusyError
from batchgen.ledger import busy
from batchgen.ledger.busy import LedgerConnection, Patience, held_by
from batchgen.ledger.database import open_for_reading, open_for_writing
from batchgen.ledger.journal import has_log_fix
from batchgen.ledger.transaction import write_transaction
from batchgen.system.process_table import holders
from tests.support import rig

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

_HOLD = """
import sqlite3, sys
conn = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2].split(";"):
    conn.execute(statement).fetchone()
print("held", flush=True)
sys.stdin.read()
"""
READ, WRITE = "BEGIN;SELECT * FROM sqlite_master", "BEGIN IMMEDIATE"
WAL = "PRAGMA journal_mode = WAL;BEGIN;SELECT * FROM sqlite_master"


@contextmanager
def held_elsewhere(ledger: Path, statements: str) -> Iterator[subprocess.Popen[str]]:
    """Another program that has the ledger open and holds it until the block ends."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(ledger), statements],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


class Clock:
    """A clock that only waiting moves; it can call something once a while has passed."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lines: list[str] = []
        self.after: tuple[float, rig.Started] | None = None

    def sleep(self, seconds: float) -> None:
        self.now += 20 * seconds
        if self.after is not None and self.now >= self.after[0]:
            self.after[1].communicate()
            self.after = None

    def patience(self, wait_s: float) -> Patience:
        return Patience(wait_s, self.lines.append, lambda: self.now, self.sleep)


@pytest.fixture
def fake_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(busy, "SQLITE_TIMEOUT_S", 0.0)
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "batchgen.db"
    open_for_writing(path).close()
    return path


def opened(path: Path, patience: Patience) -> LedgerConnection:
    conn = open_for_writing(path)
    conn.execute("PRAGMA busy_timeout = 0")
    conn.patience = patience
    return conn


@pytest.mark.fault("XC12")
@pytest.mark.parametrize("held", [READ, WRITE], ids=["reader", "writer"])
def test_a_held_ledger_is_waited_for(held: str, path: Path, fake_clock: Clock) -> None:
    with (
        closing(opened(path, fake_clock.patience(300))) as conn,
        held_elsewhere(path, held) as process,
    ):
        fake_clock.after = (150.0, process)
        with write_transaction(conn):
            conn.execute("INSERT INTO prices VALUES (1, 'p', 'm', 1, 's', 't')")
    waits = [
        line for line in fake_clock.lines if line.startswith("waiting for the ledger batchgen.db")
    ]
    assert len(waits) == 3, "one line at once, then one a minute"
    assert "at most 5m 00s" in waits[0]
    assert fake_clock.lines[-1].startswith("the ledger batchgen.db is free after 2m 3")
    if sys.platform == "linux":
        assert f"locked by pid {process.pid} of" in waits[0]
        assert waits[0].count("which is writing") == (held == WRITE)
        assert waits[0].count("which is reading") == (held == READ)


@pytest.mark.fault("XC12")
@on_linux
def test_a_holder_that_stays_is_named_in_the_end(path: Path, fake_clock: Clock) -> None:
    with (
        closing(opened(path, fake_clock.patience(300))) as conn,
        held_elsewhere(path, WRITE) as process,
    ):
        with pytest.raises(sqlite3.OperationalError) as caught, write_transaction(conn):
            pytest.fail("the lock was ignored")
        assert str(caught.value).startswith("database is locked, for 5m")
        assert f"pid {process.pid} of" in str(caught.value)
        assert "(python" in str(caught.value)
        assert "BATCHGEN_LEDGER_WAIT" in str(caught.value)


@pytest.mark.fault("XC12")
@pytest.mark.parametrize(
    "held",
    [
        WRITE.replace("IMMEDIATE", "EXCLUSIVE"),
        pytest.param(
            WAL,
            marks=pytest.mark.skipif(has_log_fix(), reason="a safe log is not waited for"),
        ),
    ],
)
def test_opening_waits_and_then_says_who_holds_it(
    held: str, path: Path, fake_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchgen.ledger.database.patience", fake_clock.patience(60))
    with held_elsewhere(path, held) as process:
        with pytest.raises(LedgerBusyError, match="locked") as caught:
            open_for_writing(path)
        assert caught.value.exit_code is ExitCode.STOPPED
        if sys.platform == "linux":
            assert f"pid {process.pid} of" in str(caught.value)
        assert any("waiting for the ledger" in line for line in fake_clock.lines)
        fake_clock.after = (fake_clock.now + 30, process)
        open_for_writing(path).close()
    open_for_reading(path).close()


@pytest.mark.fault("XC12")
def test_what_is_not_a_lock_is_not_waited_for(path: Path, fake_clock: Clock) -> None:
    with closing(opened(path, fake_clock.patience(300))) as conn:
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            conn.execute("SELECT * FROM nowhere")
        assert fake_clock.now == 0


@on_linux
def test_holders_are_found_by_lock_and_kind(path: Path) -> None:
    assert holders(path) == []
    assert held_by(path) == "it is locked by another program"
    with held_elsewhere(path, READ) as reader, held_elsewhere(path, WRITE) as writer:
        found = holders(path)
        assert [(one.pid, one.writes) for one in found] == [
            (writer.pid, True),
            (reader.pid, False),
        ]
        assert held_by(path).endswith("and 1 more")
    with held_elsewhere(path, "SELECT 1 FROM sqlite_master") as idle:
        assert [one.pid for one in holders(path)] == [idle.pid], "it has the file open"
    assert os.getpid() not in [one.pid for one in holders(path)]


@pytest.mark.fault("XC12")
def test_a_run_waits_for_a_reader_and_finishes(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "state", "--fast-images") as endpoint:
        path = rig.manifest(tmp_path, endpoint.base_url, ["one"])
        rig.batchgen("run", path, cwd=tmp_path)
        rig.manifest(tmp_path, endpoint.base_url, ["one", "two"])
        with (
            held_elsewhere(tmp_path / "batchgen.db", READ) as reader,
            rig.start("run", path, cwd=tmp_path) as process,
        ):
            assert process.stderr is not None
            lines = []
            for line in process.stderr:
                lines.append(line)
                if line.startswith("waiting for the ledger batchgen.db"):
                    break
            reader.communicate()
            _, rest = process.communicate(timeout=rig.TIMEOUT_S)
        assert process.returncode == 0, lines
        assert "the ledger batchgen.db is free after" in rest
        rig.judge(tmp_path, endpoint.bill(), finished=True)


@pytest.mark.fault("XC12")
def test_a_run_gives_up_after_the_wait_that_is_set(tmp_path: Path) -> None:
    """With a response in the spool: the next run takes it from there."""
    with rig.endpoint(tmp_path / "state", "--fast-images", "--latency", "1") as endpoint:
        path = rig.manifest(tmp_path, endpoint.base_url, ["one"])
        with rig.start(
            "run", path, "--json", cwd=tmp_path, env={"BATCHGEN_LEDGER_WAIT": "0.5"}
        ) as process:
            for event in rig.events(process):
                if event["event"] == "attempt_started":
                    break
            with held_elsewhere(tmp_path / "batchgen.db", WRITE):
                _, errors = process.communicate(timeout=rig.TIMEOUT_S)
        assert process.returncode == ExitCode.STOPPED, errors
        rig.batchgen("run", path, cwd=tmp_path)
        assert len(endpoint.bill()) == 1
        rig.judge(tmp_path, endpoint.bill(), finished=True)


def test_ledger_wait_that_is_not_a_number_is_refused(tmp_path: Path) -> None:
    for written in ("soon", "-1", "inf", "nan"):
        refused = rig.batchgen(
            "status", cwd=tmp_path, env={"BATCHGEN_LEDGER_WAIT": written}, code=2
        )
        assert "expected seconds, like 600" in refused.stderr


@pytest.mark.fault("XC12")
def test_a_signal_ends_the_wait_of_a_command(tmp_path: Path) -> None:
    path = tmp_path / "batchgen.db"
    open_for_writing(path).close()
    with held_elsewhere(path, WRITE):
        with rig.start("budget", "--day", "5", cwd=tmp_path) as process:
            assert process.stderr is not None
            assert process.stderr.readline().startswith("waiting for the ledger")
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=rig.TIMEOUT_S)
        assert process.returncode == ExitCode.INTERRUPTED
