"""Values as rows that a statement joins with.

A group of steps then costs one statement in place of one for each step. For each statement, sqlite3
gives up Python's lock and waits to get it back, which costs more than the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Final

_MAX_ROWS: Final = 500
"""Of a statement for any number of rows; SQLite allows 32,766 values in one."""


def with_rows(columns: Sequence[str], rows: Sequence[Iterable[object]]) -> tuple[str, list[object]]:
    """Return a clause that names the rows ``one``, and its values; at least one row.

    The text is the same for up to a power of two of rows, so that SQLite compiles few statements:
    compiling one takes longer than running it.
    """
    size = 1 << (len(rows) - 1).bit_length()
    values = [value for row in rows for value in row]
    values += [None] * (size * len(columns) - len(values))
    values.append(len(rows))
    return _clause(tuple(columns), size), values


@lru_cache(maxsize=256)
def _clause(columns: tuple[str, ...], size: int) -> str:
    row = f"({', '.join('?' * len(columns))})"
    rows = ", ".join([row] * size)
    return f"WITH one({', '.join(columns)}) AS (SELECT * FROM (VALUES {rows}) LIMIT ?) "


def with_parts_of_rows(
    columns: Sequence[str], rows: Sequence[Iterable[object]]
) -> Iterator[tuple[str, list[object]]]:
    """Yield what `with_rows` returns, for a few hundred rows at a time; nothing without rows.

    A group has at most 512 steps, but the steps may have any number of rows.
    """
    for start in range(0, len(rows), _MAX_ROWS):
        yield with_rows(columns, rows[start : start + _MAX_ROWS])
