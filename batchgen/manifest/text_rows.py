"""Read the rows of text tables: csv, tsv, feeds with other delimiters, lists of prompts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import Final

from batchgen.manifest.csv_records import Records
from batchgen.manifest.layout import SAMPLE_CHARS, find_layout
from batchgen.manifest.lines import first_text, text_lines
from batchgen.manifest.table import ColumnNames, Reading, Report, Rows, RowsFault
from batchgen.manifest.table_bytes import TableFile
from batchgen.manifest.table_encoding import find_encoding
from batchgen.text import counted

_FORMULA_TEXT: Final = re.compile(r'="([^"]*)"')
"""How exports keep the zeros of ``00123`` in spreadsheets."""
_FORMULA_IN_SAMPLE: Final = re.compile(r'(?:^|[,;\t|"])=""?[^"]', re.MULTILINE)
_SQL_NULL: Final = r"\N"
"""An empty cell as MySQL and PostgreSQL write it: https://dev.mysql.com/doc/refman/en/load-data.html"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextOptions:
    """What a manifest says about a text table."""

    ending: str
    """Of the file's name, such as ``.csv``."""
    delimiter: str | None = None
    encoding: str | None = None
    strict: bool = False
    """Whether a row with too few cells is an error."""


def text_rows(table: TableFile, options: TextOptions, report: Report, reading: Reading) -> Rows:
    """Yield the rows of a text table, and fill ``reading``. Raises RowsFault."""
    encoding = find_encoding(table, options.encoding)
    reading.encoding = encoding.name
    if encoding.notice:
        reading.notices.append(table.fault(encoding.notice))
    sample, is_whole = first_text(table, encoding.name, SAMPLE_CHARS)
    has_formulas = _FORMULA_IN_SAMPLE.search(sample) is not None
    layout = find_layout(sample, options.ending, options.delimiter, is_whole=is_whole)
    del sample
    reading.layout = layout.description
    with closing(text_lines(table, encoding.name)) as chunks:
        lines = chain.from_iterable(chunks)
        if layout.is_list:
            yield from _listed_rows(lines, table, reading)
            return
        rows = _TableRows(table, report, reading, is_strict=options.strict)
        records = layout.records(lines, table.label)
        if layout.has_row_names:
            line, header = next(records)
            records = chain([(line, ["row name", *header])], records)
        if has_formulas:
            records = ((line, _unwrapped(cells)) for line, cells in records)
        yield from rows.read(records)


def _listed_rows(lines: Iterator[str], table: TableFile, reading: Reading) -> Rows:
    """Yield a row per line that is not blank, as ``line`` and ``prompt``."""
    names = reading.columns = ColumnNames(["line", "prompt"])
    reading.is_list = True
    number = 0
    for at, line in enumerate(lines, 1):
        if text := line.strip():
            number += 1
            yield names.row(number, at, f"{table.label}:{at}", (text, text))
    if not number:
        raise table.fault("is empty; expected one prompt per line")


class _TableRows:
    """Rows below a header."""

    def __init__(
        self, table: TableFile, report: Report, reading: Reading, *, is_strict: bool
    ) -> None:
        self._table = table
        self._report = report
        self._reading = reading
        self._is_strict = is_strict
        self._short_rows = 0
        self._first_short_line = 0

    def read(self, records: Records) -> Rows:
        """Yield the rows. Raises RowsFault."""
        names = self._reading.columns = self._header(records)
        label, width, number = self._table.label, len(names.raw), 0
        for line, cells in records:
            if not any(cells):
                continue  # spreadsheets leave such lines after the last row
            number += 1
            if len(cells) != width:
                try:
                    cells = self._fitted(cells, width, line)
                except ValueError as error:
                    self._report(RowsFault(str(error), file=label, line=line))
                    continue
            if _SQL_NULL in cells:
                cells = ["" if cell == _SQL_NULL else cell for cell in cells]
            yield names.row(number, line, f"{label}:{line}", cells)
        self._note_short_rows()

    def _header(self, records: Records) -> ColumnNames:
        for _, cells in records:
            # Columns at the end may have no name if they hold nothing.
            width = next((at for at in range(len(cells), 0, -1) if cells[at - 1].strip()), 0)
            if width:
                named = enumerate(cells[:width], 1)
                return ColumnNames([name if name.strip() else f"column {at}" for at, name in named])
        raise self._table.fault("is empty; expected a header that names the columns")

    def _fitted(self, cells: list[str], width: int, line: int) -> list[str]:
        """Return as many cells as there are columns. Raises ValueError if a value has no column."""
        if len(cells) > width:
            if any(cells[width:]):
                raise ValueError(
                    f"{counted(len(cells), 'cell')}, but the header has {counted(width, 'column')}"
                )
            return cells[:width]
        if self._is_strict:
            raise ValueError(
                f"{counted(len(cells), 'cell')}, but the header has {counted(width, 'column')}"
            )
        self._short_rows += 1
        self._first_short_line = self._first_short_line or line
        return cells + [""] * (width - len(cells))

    def _note_short_rows(self) -> None:
        if self._short_rows:
            rows = "1 row has" if self._short_rows == 1 else f"{self._short_rows:,} rows have"
            self._reading.notices.append(
                self._table.fault(
                    f"{rows} fewer cells than the header; the missing ones at the end are empty",
                    line=self._first_short_line,
                )
            )


def _unwrapped(cells: Sequence[str]) -> list[str]:
    """Return the cells with ``="00123"`` as ``00123``."""
    return [
        found[1] if cell.startswith('="') and (found := _FORMULA_TEXT.fullmatch(cell)) else cell
        for cell in cells
    ]
