"""Read the rows of a query on a SQLite file."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from batchgen.manifest.model import SqliteRows
from batchgen.manifest.table import ColumnNames, Rows, RowsFault, existing_file

_FETCH_ROWS: Final = 500


def sqlite_rows(source: SqliteRows, base: Path) -> Rows:
    label = source.sqlite
    path = existing_file(base, label, "sqlite")
    return _query_rows(path, label, source.query)


def _query_rows(path: Path, label: str, query: str) -> Rows:
    number = 0
    try:
        # A plan may be walked by one thread after another, so the connection must not mind.
        with closing(
            sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False
            )
        ) as connection:
            cursor = connection.execute(query)
            if cursor.description is None:
                raise RowsFault("gives no rows; one SELECT was expected", file=label, key="query")
            names = ColumnNames([column[0] for column in cursor.description])
            while rows := cursor.fetchmany(_FETCH_ROWS):
                for cells in rows:
                    number += 1
                    yield names.row(number, 0, f"{label} row {number}", cells)
    except ValueError as error:
        raise RowsFault(f"{error}; name one with AS", file=label, key="query") from None
    except (sqlite3.Error, sqlite3.Warning) as error:
        key = "sqlite" if _is_about_the_file(error) else "query"
        raise RowsFault(f"SQLite says: {error}", file=label, key=key) from None


def _is_about_the_file(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_CORRUPT)
