"""Values as rows that a statement joins with.

A group of steps then costs one statement in place of one for each step. For each statement, sqlite3
gives up Python's lock and waits to get it back, which costs more than the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def with_rows(columns: Sequence[str], rows: Sequence[Iterable[object]]) -> tuple[str, list[object]]:
    """Return a clause that names the rows ``one``, and its values; at least one row."""
    marks = f"({', '.join('?' * len(columns))})"
    text = f"WITH one({', '.join(columns)}) AS (VALUES {', '.join([marks] * len(rows))}) "
    return text, [value for row in rows for value in row]
