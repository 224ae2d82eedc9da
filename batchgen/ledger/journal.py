"""The journal of the ledger: a write-ahead log during a run where that is safe, else TRUNCATE.

With either, a commit that returned survives a power cut (``synchronous=EXTRA``, which in a
write-ahead log is FULL). The log syncs one file per commit, the rollback journal three and a
directory.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Final

from batchgen.ledger.busy import LedgerConnection
from batchgen.system.mounts import is_local

LOG_SUFFIX: Final = "-wal"
_FIXED: Final = {(3, 44): 6, (3, 50): 7, (3, 51): 3}
"""First patch release of each branch without the WAL-reset fault."""


def has_log_fix(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> bool:
    """Return whether SQLite can keep a write-ahead log for two writers without losing a commit.

    In 3.7.0 to 3.51.2, two connections that write and checkpoint at the same moment can damage the
    file; 3.51.3 has the fix, and 3.50.7 and 3.44.6 have it too
    (https://www.sqlite.org/releaselog/3_51_3.html).
    """
    major, minor, patch = version[:3]
    if (major, minor) in _FIXED:
        return patch >= _FIXED[major, minor]
    return (major, minor) > max(_FIXED)


def may_use_log(path: Path) -> bool:
    """Return whether the ledger may have a write-ahead log, by SQLite and by its file system.

    Its index is shared memory, which no network file system has
    (https://www.sqlite.org/wal.html, section 1).
    """
    return has_log_fix() and is_local(path.resolve().parent)


def use_rollback_journal(conn: LedgerConnection) -> None:
    """Set the journal mode TRUNCATE, unless another process keeps a log that is safe.

    A run that was killed leaves its log, which opening the file has applied. Waits for a process
    that keeps a log which is not safe here, and raises sqlite3.OperationalError after that.
    """
    if has_log(conn) and conn.path is not None and may_use_log(conn.path):
        _change_if_alone(conn, "TRUNCATE")
    else:
        conn.execute("PRAGMA journal_mode = TRUNCATE")


def begin_log(conn: LedgerConnection) -> None:
    """Write to a log from now on, where that is safe and no other process prevents it."""
    if conn.path is not None and may_use_log(conn.path):
        _change_if_alone(conn, "WAL")
        conn.execute("SELECT count(*) FROM sqlite_master").fetchone()  # this creates the log


def end_log(conn: LedgerConnection) -> None:
    """Empty the log and return to a rollback journal, so that the ledger is one file again.

    The signature of a URL must not linger there after it was deleted. While another process has the
    ledger open, its log stays, emptied as far as that process allows.
    """
    conn.patience = None
    with suppress(sqlite3.Error):
        if has_log(conn):
            conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            _change_if_alone(conn, "TRUNCATE")


def files_of(conn: sqlite3.Connection, path: Path) -> list[Path]:
    """Return the files that hold what is committed; the log is next to the file itself."""
    file = path.resolve()
    return [path, file.with_name(file.name + LOG_SUFFIX)] if has_log(conn) else [path]


def has_log(conn: sqlite3.Connection) -> bool:
    """Return whether the ledger has a write-ahead log."""
    (mode,) = conn.execute("PRAGMA journal_mode").fetchone()
    return bool(mode == "wal")


def _change_if_alone(conn: LedgerConnection, mode: str) -> None:
    """Change the journal mode, which needs the file to itself for a moment; else leave it."""
    waits, conn.patience = conn.patience, None
    with suppress(sqlite3.OperationalError):
        conn.execute(f"PRAGMA journal_mode = {mode}").fetchall()
    conn.patience = waits
