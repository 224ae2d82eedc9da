"""The journal of the ledger: when it is a write-ahead log, and what becomes of the log."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from batchgen.ledger import journal
from batchgen.ledger.database import _back_up, open_for_reading, open_for_writing
from batchgen.ledger.group_commit import LedgerWriteError
from batchgen.ledger.journal import has_log_fix
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.writer import LedgerWriter

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "batchgen.db"


@pytest.fixture
def safe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take any SQLite and file system for one that may have a log."""
    monkeypatch.setattr(journal, "may_use_log", lambda path: True)


def note(number: int) -> Callable[[Ledger], None]:
    def step(ledger: Ledger) -> None:
        ledger.conn.execute("INSERT INTO days (day, spent) VALUES (?, 0)", (f"{number:010}",))

    return step


def days(path: Path) -> int:
    with closing(open_for_reading(path)) as conn:
        return int(conn.execute("SELECT count(*) FROM days").fetchone()[0])


def mode(path: Path) -> str:
    with closing(sqlite3.connect(path)) as conn:
        return str(conn.execute("PRAGMA journal_mode").fetchone()[0])


def files(path: Path) -> set[str]:
    return {file.name.removesuffix("-journal") for file in path.parent.iterdir()}


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ((3, 40, 1), False),
        ((3, 44, 5), False),
        ((3, 44, 6), True),
        ((3, 45, 9), False),
        ((3, 50, 6), False),
        ((3, 50, 7), True),
        ((3, 51, 2), False),
        ((3, 51, 3), True),
        ((3, 52, 0), True),
        ((4, 0, 0), True),
    ],
)
def test_a_log_needs_a_sqlite_with_the_fix(version: tuple[int, ...], expected: bool) -> None:
    assert has_log_fix(version) is expected


async def test_a_run_without_the_fix_has_no_log(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "has_log_fix", lambda: False)
    async with LedgerWriter(path) as writer:
        await writer.run(note(1))
        assert files(path) == {path.name}


@pytest.mark.usefixtures("safe")
async def test_a_log_is_read_during_a_run_and_gone_after_it(path: Path) -> None:
    async with LedgerWriter(path) as writer:
        await writer.run(note(1))
        assert (path.parent / "batchgen.db-wal").stat().st_size > 0
        assert days(path) == 1
        with closing(open_for_writing(path)) as conn:
            conn.execute("INSERT INTO days (day, spent) VALUES ('by a command', 0)")
        await writer.run(note(2))
    assert (files(path), mode(path), days(path)) == ({path.name}, "delete", 3)


@pytest.mark.usefixtures("safe")
async def test_the_last_of_two_runs_removes_the_log(path: Path) -> None:
    async with LedgerWriter(path) as second:
        async with LedgerWriter(path) as first:
            await first.run(note(1))
            await second.run(note(2))
        assert mode(path) == "wal"
        await second.run(note(3))
    assert (files(path), mode(path), days(path)) == ({path.name}, "delete", 3)


_KILLED = """
import asyncio, os, sys
from pathlib import Path
from batchgen.ledger import journal
from batchgen.ledger.writer import LedgerWriter
journal.may_use_log = lambda path: True
def step(ledger):
    ledger.conn.execute("INSERT INTO days (day, spent) VALUES ('one', 0)")
async def main():
    async with LedgerWriter(Path(sys.argv[1])) as writer:
        await writer.run(step)
        os.kill(os.getpid(), 9)
asyncio.run(main())
"""


@pytest.mark.fault("Q03")
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is of POSIX")
def test_the_log_of_a_killed_run_is_applied(path: Path) -> None:
    """Also where the next process may not keep a log itself."""
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(path)], check=False)
    assert killed.returncode == -9
    assert path.with_name("batchgen.db-wal").stat().st_size > 0
    assert days(path) == 1
    open_for_writing(path).close()
    assert (files(path), mode(path), days(path)) == ({path.name}, "delete", 1)


@pytest.mark.usefixtures("safe")
@pytest.mark.fault("Q11")
@pytest.mark.skipif(sys.platform == "win32", reason="an open file can't be removed there")
async def test_a_removed_log_stops_every_step(path: Path) -> None:
    async with LedgerWriter(path) as writer:
        await writer.run(note(1))
        path.with_name("batchgen.db-wal").unlink()
        with pytest.raises(LedgerWriteError, match="removed or replaced"):
            await writer.run(note(2))


@pytest.mark.usefixtures("safe")
async def test_a_backup_holds_what_is_only_in_the_log(path: Path) -> None:
    backup = path.with_name("backup.db")
    async with LedgerWriter(path) as writer:
        await writer.run(note(1))
        _back_up(path, backup)
    assert days(backup) == 1
    assert not path.with_name("backup.db-wal").exists()
