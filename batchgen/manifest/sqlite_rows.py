"""Read the rows of a query on a SQLite file, which cannot write, attach or run without end."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from batchgen.manifest.model import SqliteRows
from batchgen.manifest.table import ColumnNames, Reading, Rows, RowsFault, existing_file

MAX_VALUE_BYTES: Final = 16 << 20
"""Limit of one text or blob, at any step of a query."""
MAX_SILENT_STEPS: Final = 10_000_000_000
"""Limit of the virtual machine's steps between two rows, about five minutes of work."""
_FETCH_ROWS: Final = 500
_STEPS_PER_CALL: Final = 100_000
_ALLOWED: Final = frozenset(
    {
        sqlite3.SQLITE_SELECT,
        sqlite3.SQLITE_READ,
        sqlite3.SQLITE_FUNCTION,
        sqlite3.SQLITE_RECURSIVE,
    }
)
_FORBIDDEN_FUNCTIONS: Final = frozenset({"load_extension", "fts3_tokenizer"})
_OF_FTS5: Final = frozenset(
    {(sqlite3.SQLITE_PRAGMA, "data_version"), (sqlite3.SQLITE_UPDATE, "sqlite_master")}
)
"""What a full-text index needs to open: it declares its columns in memory, and notices changes by
other connections. The file itself is opened read-only."""


class _Steps:
    """A progress handler that ends a query on Ctrl-C or after too many steps."""

    def __init__(self) -> None:
        self.left = MAX_SILENT_STEPS
        self.interrupt: KeyboardInterrupt | None = None

    def __call__(self) -> int:
        # SQLite runs no signal handlers of Python; this call gives Python the chance to.
        try:
            self.left -= _STEPS_PER_CALL
            return self.left < 0
        except KeyboardInterrupt as exc:
            self.interrupt = exc
            return 1


def sqlite_rows(source: SqliteRows, base: Path, reading: Reading) -> Rows:
    """Yield the rows of a query, and fill ``reading``. Raises RowsFault."""
    path = existing_file(base, source.sqlite, "sqlite")
    return _query_rows(path, source.query, reading)


@contextmanager
def _open(path: Path, steps: _Steps) -> Iterator[sqlite3.Connection]:
    """Open a database for reading only.

    ``mode=ro`` does not suffice: VACUUM INTO and ATTACH write other files.
    """
    # Several threads may iterate over a plan, one after another.
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, check_same_thread=False)) as connection:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.set_progress_handler(steps, _STEPS_PER_CALL)
        connection.set_authorizer(_authorize)
        yield connection


def _authorize(
    action: int, first: str | None, second: str | None, database: str | None, trigger: str | None
) -> int:
    if action == sqlite3.SQLITE_FUNCTION and second in _FORBIDDEN_FUNCTIONS:
        return sqlite3.SQLITE_DENY
    is_allowed = action in _ALLOWED or (action, first) in _OF_FTS5
    return sqlite3.SQLITE_OK if is_allowed else sqlite3.SQLITE_DENY


def _query_rows(path: Path, query: str, reading: Reading) -> Rows:
    label, steps, number = reading.table, _Steps(), 0
    try:
        with _open(path, steps) as connection:
            cursor = connection.execute(query)
            if cursor.description is None:
                raise RowsFault("returns no rows; expected one SELECT", file=label, key="query")
            names = reading.columns = ColumnNames([name for name, *_ in cursor.description])
            while rows := cursor.fetchmany(_FETCH_ROWS):
                steps.left = MAX_SILENT_STEPS
                for cells in rows:
                    number += 1
                    yield names.row(number, 0, f"{label} row {number}", cells)
    except (sqlite3.Error, sqlite3.Warning) as error:
        raise _fault(error, steps, label) from None


def _fault(error: Exception, steps: _Steps, label: str) -> BaseException:
    code = getattr(error, "sqlite_errorcode", None)
    if code == sqlite3.SQLITE_INTERRUPT:
        # An interrupt may also arrive between SQLite and the handler, where nothing catches it.
        if steps.left >= 0:
            return steps.interrupt or KeyboardInterrupt()
        message = f"returned no row within {MAX_SILENT_STEPS:,} steps; expected a query that ends"
        return RowsFault(message, file=label, key="query")
    if code == sqlite3.SQLITE_AUTH or "not authorized" in str(error):
        message = "a query may only read; expected one SELECT without ATTACH, PRAGMA or VACUUM"
        return RowsFault(f"{message} (SQLite: {error})", file=label, key="query")
    about_file = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_CORRUPT)
    key = "sqlite" if code in about_file else "query"
    return RowsFault(f"SQLite: {error}", file=label, key=key)
