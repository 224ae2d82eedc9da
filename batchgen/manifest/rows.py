"""Open the table of a manifest; its rows are read one at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from batchgen.manifest.csv_rows import csv_rows, tsv_rows
from batchgen.manifest.json_rows import json_rows, jsonl_rows
from batchgen.manifest.model import FileRows, SqliteRows
from batchgen.manifest.parquet_rows import parquet_rows
from batchgen.manifest.sqlite_rows import sqlite_rows
from batchgen.manifest.table import Report, Rows, RowsFault, existing_file


def open_rows(
    source: str | FileRows | SqliteRows, base: Path, *, report: Report | None = None
) -> Rows:
    """Read the rows of a manifest's ``rows`` in their order, in constant memory (json excepted).

    Relative paths start at ``base``. Raises RowsFault when the table cannot be read on. A single
    row that is wrong is handed to ``report`` and left out, so that all can be told at once;
    without ``report`` it is raised as well.
    """
    if isinstance(source, SqliteRows):
        return sqlite_rows(source, base)
    label = source if isinstance(source, str) else source.file
    reader = _READERS.get(Path(label).suffix.lower())
    if reader is None:
        raise RowsFault(
            f"{label!r} is no table batchgen reads; its name must end in {', '.join(_READERS)}",
            file=label,
            key="file",
        )
    return reader(existing_file(base, label, "file"), label, report or _raise)


def holds_text(source: str | FileRows | SqliteRows) -> bool:
    """Whether every value of a table is a text, never null."""
    if isinstance(source, SqliteRows):
        return False
    label = source if isinstance(source, str) else source.file
    return Path(label).suffix.lower() in (".csv", ".tsv")


def has_fixed_columns(source: str | FileRows | SqliteRows) -> bool:
    """Whether all rows of a table have the same columns."""
    if isinstance(source, SqliteRows) or holds_text(source):
        return True
    label = source if isinstance(source, str) else source.file
    return Path(label).suffix.lower() == ".parquet"


def _raise(fault: RowsFault) -> None:
    raise fault


_READERS: Final[Mapping[str, Callable[[Path, str, Report], Rows]]] = {
    ".csv": csv_rows,
    ".tsv": tsv_rows,
    ".jsonl": jsonl_rows,
    ".ndjson": jsonl_rows,
    ".json": json_rows,
    ".parquet": parquet_rows,
}
