"""Open the table of a manifest; its rows are read one at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Final

from batchgen.manifest.model import FileRows, SqliteRows
from batchgen.manifest.table import Reading, Report, RowsFault, Table, existing_file
from batchgen.manifest.table_bytes import TableFile
from batchgen.manifest.text_rows import TextOptions, text_rows
from batchgen.urls import is_bucket

_TEXT: Final = (".csv", ".tsv", ".tab", ".psv", ".txt")
_JSON_LINES: Final = (".jsonl", ".ndjson")
_JSON: Final = (".json",)
_PARQUET: Final = (".parquet",)
_COMPRESSED: Final = (".gz", ".zst")


def open_rows(
    source: str | FileRows | SqliteRows,
    base: Path,
    *,
    report: Report | None = None,
    copies: Mapping[str, Path] = MappingProxyType({}),
) -> Table:
    """Open a manifest's ``rows``, in their order and in constant memory (json excepted).

    Paths are relative to ``base``. Raises RowsFault if the table cannot be read; so does the
    iteration. A single row that is wrong is passed to ``report`` and left out, so that all can be
    reported at once; without ``report`` it is raised as well.
    ``copies`` has the local copies of tables in buckets, by their URLs.
    """
    # Readers are imported where they are used: a manifest has one table at most.
    report = report or _raise
    if isinstance(source, SqliteRows):
        from batchgen.manifest.sqlite_rows import sqlite_rows

        reading = Reading(table=source.sqlite)
        return Table(sqlite_rows(source, base, reading), reading)
    spec = FileRows(file=source) if isinstance(source, str) else source
    reading = Reading(table=spec.file)
    ending = _ending(spec.file)
    known = (*_TEXT, *_JSON_LINES, *_JSON, *_PARQUET)
    if ending not in known:
        raise RowsFault(
            f"unknown kind of table {spec.file!r}; expected a name that ends in {', '.join(known)},"
            f" also followed by {' or '.join(_COMPRESSED)}",
            file=spec.file,
            key="file",
        )
    path = copies.get(spec.file) or _file(base, spec.file)
    if ending in _PARQUET:
        from batchgen.manifest.parquet_rows import parquet_rows

        return Table(parquet_rows(path, reading), reading)
    table = TableFile(path, spec.file)
    if ending in _TEXT:
        options = TextOptions(
            ending=ending,
            delimiter=spec.delimiter,
            encoding=spec.encoding,
            strict=spec.strict,
        )
        return Table(text_rows(table, options, report, reading), reading)
    from batchgen.manifest.json_rows import json_rows, jsonl_rows

    read = jsonl_rows if ending in _JSON_LINES else json_rows
    return Table(read(table, spec.encoding, report, reading), reading)


def _file(base: Path, label: str) -> Path:
    if is_bucket(label):
        raise RowsFault(
            f"{label}: no copy of this table is on this machine; expected a run that fetches it",
            file=label,
            key="file",
        )
    return existing_file(base, label, "file")


def holds_text(source: str | FileRows | SqliteRows) -> bool:
    """Return whether every value of a table is text, never null."""
    if isinstance(source, SqliteRows):
        return False
    return _ending(source if isinstance(source, str) else source.file) in _TEXT


def has_fixed_columns(source: str | FileRows | SqliteRows) -> bool:
    """Return whether all rows of a table have the same columns."""
    if isinstance(source, SqliteRows) or holds_text(source):
        return True
    return _ending(source if isinstance(source, str) else source.file) in _PARQUET


def _ending(label: str) -> str:
    """Return the ending of a table's name without that of its compression."""
    path = PurePath(label.lower())
    return path.with_suffix("").suffix if path.suffix in _COMPRESSED else path.suffix


def _raise(fault: RowsFault) -> None:
    raise fault
