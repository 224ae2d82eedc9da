"""Values as rows that a statement joins with.

A group of steps then costs one statement in place of one for each step. For each statement, sqlite3
gives up Python's lock and waits to get it back, which costs more than the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

_MAX_ROWS: Final = 500
"""Of a statement for any number of rows; SQLite allows 32,766 values in one."""


def with_rows(columns: Sequence[str], rows: Sequence[Iterable[object]]) -> tuple[str, list[object]]:
    """Return a clause that names the rows ``one``, and its values; at least one row."""
    marks = f"({', '.join('?' * len(columns))})"
    text = f"WITH one({', '.join(columns)}) AS (VALUES {', '.join([marks] * len(rows))}) "
    return text, [value for row in rows for value in row]


def with_parts_of_rows(
    columns: Sequence[str], rows: Sequence[Iterable[object]]
) -> Iterator[tuple[str, list[object]]]:
    """Yield what `with_rows` returns, for a few hundred rows at a time; nothing without rows.

    A group has at most 512 steps, but the steps may have any number of rows.
    """
    for start in range(0, len(rows), _MAX_ROWS):
        yield with_rows(columns, rows[start : start + _MAX_ROWS])
