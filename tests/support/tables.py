"""Write and open tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from batchgen.manifest.model import FileRows, SqliteRows
from batchgen.manifest.rows import open_rows
from batchgen.manifest.table import RowsFault

Write = Callable[[str, str | bytes], str]
"""Write a file with this name and content, and return the name."""


def fault_of(source: str | FileRows | SqliteRows, base: Path) -> RowsFault:
    """Return the error of a table that cannot be read."""
    with pytest.raises(RowsFault) as caught:
        list(open_rows(source, base))
    return caught.value


def values(source: str | FileRows | SqliteRows, base: Path) -> list[dict[str, object]]:
    """Return the values of all rows."""
    return [dict(row.values) for row in open_rows(source, base)]
