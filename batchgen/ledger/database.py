"""Opening the ledger's file: created aside, checked, migrated with a backup, never recreated."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from batchgen.errors import LedgerBusyError, LedgerError
from batchgen.ledger.busy import SQLITE_TIMEOUT_S, LedgerConnection, Patience, is_busy, patience
from batchgen.ledger.file_aliases import check_single_name
from batchgen.ledger.journal import use_rollback_journal
from batchgen.ledger.schema import APPLICATION_ID, SCHEMA_VERSION, migrations
from batchgen.system.failpoints import Point, hit

_CHECKED_BELOW_BYTES: Final = 64 * 1024 * 1024
"""Up to here every page is checked at each start; above, that would take seconds."""
_OLDEST_SQLITE: Final = (3, 37, 0)


def open_for_writing(
    path: Path, waits: Patience | None = None, *, checked: bool = False
) -> LedgerConnection:
    """Open the ledger, creating or migrating it first. Raises LedgerError; never overwrites.

    ``waits`` bounds how long another program's lock is waited for, while opening and afterwards;
    None takes the bound of the process. ``checked`` states that the same run has opened the file
    before: its pages are not checked again, which takes 0.1 s for 100,000 jobs.
    The connection is in autocommit mode with ``synchronous=EXTRA``: a commit that returned survives
    a power cut. `journal` says which journal it has.
    """
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise LedgerError(
            f"SQLite {sqlite3.sqlite_version} is too old: 3.37 or newer is needed for the ledger"
        )
    check_single_name(path)
    try:
        if not path.exists():
            _create(path)
        conn = _connect(path)
        if waits is not None:
            conn.patience = waits
    except (OSError, sqlite3.OperationalError) as exc:
        raise _not_opened(path, "opened for writing", exc) from exc
    try:
        _check(conn, path, pages=not checked)
        use_rollback_journal(conn)
        if _version(conn) < SCHEMA_VERSION:
            _migrate(conn, path)
        conn.execute("PRAGMA synchronous = EXTRA")
        # On macOS SQLite's fsync leaves a commit in the drive's cache without it.
        conn.execute("PRAGMA fullfsync = ON")
        conn.execute("PRAGMA foreign_keys = ON")
        # Otherwise deleted content, such as the signature of a URL, lingers in the file.
        conn.execute("PRAGMA secure_delete = ON")
        _try_to_write(conn)
    except (OSError, sqlite3.OperationalError) as exc:  # locked, read-only, full: not the content
        conn.close()
        raise _not_opened(path, "opened for writing", exc) from exc
    except sqlite3.DatabaseError as exc:
        conn.close()
        raise _unusable(path, str(exc)) from exc
    except BaseException:
        conn.close()
        raise
    return conn


def check_exists(path: Path) -> None:
    """Raise LedgerError if no ledger exists there."""
    if not path.exists():
        raise LedgerError(f"{path}: no such ledger; name one with --db, or run a manifest")


def open_for_reading(path: Path, *, checked: bool = False) -> LedgerConnection:
    """Open an existing ledger without writing to it. Raises LedgerError.

    For ``checked``, see `open_for_writing`.
    A journal that a killed run left has to be rolled back before anybody can read; only then
    the file is opened for writing for a moment.
    """
    check_exists(path)
    check_single_name(path)
    try:
        _roll_back_journal(path)
        conn = _connect(path, mode="ro")
    except sqlite3.OperationalError as exc:
        raise _not_opened(path, "read", exc) from exc
    except sqlite3.DatabaseError as exc:
        raise _unusable(path, str(exc)) from exc
    try:
        _check(conn, path, pages=not checked)
        if (version := _version(conn)) < SCHEMA_VERSION:
            raise LedgerError(
                f"{path}: the ledger has schema {version}, this batchgen writes {SCHEMA_VERSION}: "
                "run its manifest once, which makes a backup and migrates it"
            )
    except sqlite3.OperationalError as exc:
        conn.close()
        raise _not_opened(path, "read", exc) from exc
    except sqlite3.DatabaseError as exc:
        conn.close()
        raise _unusable(path, str(exc)) from exc
    except BaseException:
        conn.close()
        raise
    return conn


def peek(path: Path, waits: Patience | None = None) -> sqlite3.Connection:
    """Open an existing ledger for a quick look, unchecked. Raises sqlite3.DatabaseError.

    ``waits`` bounds how long another program's lock is waited for, now and in later statements;
    None takes the bound of the process.
    """
    _roll_back_journal(path, waits)
    return _connect(path, mode="ro", waits=waits)


def _roll_back_journal(path: Path, waits: Patience | None = None) -> None:
    try:
        _read_once(path, "ro", waits)
    except sqlite3.OperationalError as exc:
        if is_busy(exc):
            raise
        _read_once(path, "rw", waits)


def _read_once(path: Path, mode: str, waits: Patience | None) -> None:
    with closing(_connect(path, mode, waits)) as conn:
        conn.execute("SELECT count(*) FROM sqlite_master").fetchone()


def in_memory() -> sqlite3.Connection:
    """Return an empty ledger in memory, for plans where none exists yet."""
    conn = sqlite3.connect(":memory:", isolation_level=None)
    conn.row_factory = sqlite3.Row
    conn.execute("BEGIN IMMEDIATE")
    _apply_migrations(conn)
    conn.execute("COMMIT")
    return conn


def _not_opened(path: Path, what: str, exc: Exception) -> LedgerError:
    error = LedgerBusyError if is_busy(exc) else LedgerError
    return error(f"{path}: the ledger can't be {what}: {exc}")


def _connect(path: Path, mode: str = "rw", waits: Patience | None = None) -> LedgerConnection:
    conn = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        timeout=SQLITE_TIMEOUT_S,
        check_same_thread=False,
        factory=LedgerConnection,
    )
    conn.path, conn.patience = path, waits or patience
    conn.row_factory = sqlite3.Row
    return conn


def _create(path: Path) -> None:
    """Build the database next to its final name and link it there; no reader sees half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    from batchgen.system.atomic_files import (
        sync_directory,  # only a new ledger needs it, and it is heavy
    )

    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    aside = Path(name)
    try:
        with closing(_connect(aside)) as conn:
            conn.execute("PRAGMA synchronous = EXTRA")
            conn.execute("PRAGMA fullfsync = ON")
            conn.execute("BEGIN IMMEDIATE")
            _apply_migrations(conn)
            conn.execute("COMMIT")
        hit(Point.LEDGER_MADE)
        with suppress(FileExistsError):  # another process was first, and its file is as good
            _put(aside, path)
        sync_directory(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def _put(aside: Path, path: Path) -> None:
    """Give a file its name. Raises FileExistsError where something has it."""
    if os.name == "nt":
        aside.rename(path)
        return
    try:
        os.link(aside, path)
    except FileExistsError:
        raise
    except OSError:  # FAT and some network shares know no links; the name is taken empty then
        path.touch(mode=0o600, exist_ok=False)
        aside.replace(path)


def _check(conn: sqlite3.Connection, path: Path, *, pages: bool) -> None:
    (application,) = conn.execute("PRAGMA application_id").fetchone()
    version = _version(conn)
    if application != APPLICATION_ID:
        raise LedgerError(
            f"{path}: this SQLite file is not a batchgen ledger; name another with --db"
        )
    if version > SCHEMA_VERSION:
        raise LedgerError(
            f"{path}: the ledger has schema {version}, but this batchgen knows {SCHEMA_VERSION}: "
            "install a newer batchgen; nothing was changed"
        )
    if pages and path.stat().st_size <= _CHECKED_BELOW_BYTES:
        found = [row[0] for row in conn.execute("PRAGMA quick_check(3)")]
        if found != ["ok"]:
            raise _unusable(path, "; ".join(found))


def _try_to_write(conn: sqlite3.Connection) -> None:
    """Begin a write and leave it: what may not be written is opened for reading without a word."""
    conn.execute("BEGIN IMMEDIATE")
    try:
        conn.execute(f"PRAGMA user_version = {_version(conn)}")
    finally:
        if conn.in_transaction:
            conn.execute("ROLLBACK")


def _version(conn: sqlite3.Connection) -> int:
    (version,) = conn.execute("PRAGMA user_version").fetchone()
    return int(version)


def _migrate(conn: sqlite3.Connection, path: Path) -> None:
    """Back up and migrate, unless another process was first.

    The transaction is begun before the backup, so that it holds the old schema and nothing newer.
    """
    conn.execute("BEGIN IMMEDIATE")
    try:
        if _version(conn) < SCHEMA_VERSION:
            _back_up(path, path.with_name(f"{path.name}.schema{_version(conn)}.bak"))
            _apply_migrations(conn)
            hit(Point.MIGRATED)
        conn.execute("COMMIT")
    except BaseException:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise


def _back_up(path: Path, backup: Path) -> None:
    from batchgen.system.atomic_files import (
        sync_directory,  # only an old ledger needs it, and it is heavy
    )

    handle, name = tempfile.mkstemp(prefix=f".{backup.name}.", dir=path.parent)
    os.close(handle)
    aside = Path(name)
    try:
        _copy(path, aside)
        hit(Point.BACKED_UP)
        aside.replace(backup)
        sync_directory(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def copy_ledger(path: Path, target: Path) -> None:
    """Copy a ledger as it is at one moment, also while a run writes to it, into an empty file.

    Raises LedgerError and OSError.
    """
    try:
        _copy(path, target)
    except sqlite3.DatabaseError as exc:
        raise _not_opened(path, f"copied to {target}", exc) from exc


def _copy(path: Path, target: Path) -> None:
    # A connection with an open transaction can't be copied from.
    with closing(_connect(path, mode="ro")) as source, closing(_connect(target)) as copy:
        source.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")  # it has the mode of its source


def _apply_migrations(conn: sqlite3.Connection) -> None:
    """Run the steps that are missing, within the transaction of the caller."""
    from sqlite_utils import Database  # heavy, and only a new or old ledger needs it

    migrations().apply(Database(conn))
    conn.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _unusable(path: Path, detail: str) -> LedgerError:
    return LedgerError(
        f"{path}: the ledger is damaged or not a SQLite database ({detail}). Nothing was changed."
        f" Keep the file, try `sqlite3 {path.name} .recover`, or put back a backup"
        f" ({path.name}.*.bak)"
    )
