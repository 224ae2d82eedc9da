"""Read the rows of csv and tsv files."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Final

from batchgen.manifest.lines import text_lines
from batchgen.manifest.table import ColumnNames, Report, Rows, RowsFault

MAX_CELL_CHARS: Final = 1 << 20


def csv_rows(path: Path, label: str, report: Report) -> Rows:
    return _text_rows(path, label, report, _csv_records)


def tsv_rows(path: Path, label: str, report: Report) -> Rows:
    return _text_rows(path, label, report, _tsv_records)


_Records = Callable[[Iterator[str], str], Iterator[tuple[int, list[str]]]]


def _text_rows(path: Path, label: str, report: Report, records: _Records) -> Rows:
    with closing(text_lines(path, label)) as lines:
        yield from _table_rows(records(chain.from_iterable(lines), label), label, report)


def _csv_records(lines: Iterator[str], label: str) -> Iterator[tuple[int, list[str]]]:
    # The limit is one for the process and 128 KiB by default, less than some shops' descriptions.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_CELL_CHARS))
    blank = 0
    for header in lines:
        if header.strip():
            break
        blank += 1
    else:
        return
    # strict, or a stray quote would silently change the text around it
    reader = csv.reader(chain([header], lines), delimiter=_delimiter(header), strict=True)
    line = blank + 1
    try:
        for cells in reader:
            yield line, cells
            line = blank + reader.line_num + 1
    except csv.Error as error:
        raise RowsFault(_csv_problem(str(error)), file=label, line=line) from None


def _delimiter(header: str) -> str:
    """Spreadsheets in half of Europe write csv with semicolons, some exports with tabs."""
    unquoted = re.sub(r'"[^"]*"?', "", header)
    return next((mark for mark in ",;\t" if mark in unquoted), ",")


def _csv_problem(message: str) -> str:
    if "unexpected end of data" in message:
        return "a quote is opened in this row and never closed"
    if "expected after" in message:
        return 'text follows a closing quote; a quote inside a quoted cell is written twice: ""'
    if "field limit" in message:
        return f"a cell of more than {MAX_CELL_CHARS:,} characters; is a quote left open?"
    return message


_TSV_CLOSING = re.compile(r'((?:[^"]+|"")*+)"(?=\t|\Z)')
_TSV_STILL_OPEN = re.compile(r'(?:[^"]+|"")*+\Z')


def _tsv_records(lines: Iterator[str], label: str) -> Iterator[tuple[int, list[str]]]:
    """Cells of tab-separated text.

    The format itself knows no quotes, but spreadsheets quote a cell that holds a tab, a line break
    or a quote. So a cell is unquoted only when it is quoted as a whole, with every quote inside
    written twice; any other quote is a part of the text, as in ``"BE NICE" on a wall``, where the
    csv module would drop it.
    """
    number = 0
    for line in lines:
        number += 1
        text = line.rstrip("\r\n")
        if not text.startswith('"') and '\t"' not in text:
            yield number, text.split("\t")
            continue
        first, cells, at = number, [], 0
        while True:
            if text.startswith('"', at):
                if closing := _TSV_CLOSING.match(text, at + 1):
                    cells.append(closing[1].replace('""', '"'))
                    at = closing.end()
                elif _TSV_STILL_OPEN.match(text, at + 1):
                    parts = [text[at + 1 :], line[len(text) :]]
                    line, taken = _tsv_rest(lines, parts, label, first)
                    number += taken
                    text, at = line.rstrip("\r\n"), 0
                    cells.append("".join(parts).replace('""', '"'))
                else:
                    at = _tsv_plain(text, at, cells)
            else:
                at = _tsv_plain(text, at, cells)
            if at == len(text):
                break
            at += 1
        yield first, cells


def _tsv_plain(text: str, at: int, cells: list[str]) -> int:
    end = text.find("\t", at)
    end = len(text) if end < 0 else end
    cells.append(text[at:end])
    return end


def _tsv_rest(lines: Iterator[str], parts: list[str], label: str, first: int) -> tuple[str, int]:
    """Read a quoted cell to its end; gives what follows it on its last line, and lines taken."""
    size = 0
    for taken, line in enumerate(lines, 1):
        text = line.rstrip("\r\n")
        size += len(line)
        if closing := _TSV_CLOSING.match(text):
            parts.append(closing[1])
            return line[closing.end() :], taken
        if not _TSV_STILL_OPEN.match(text) or size > MAX_CELL_CHARS:
            break
        parts.append(line)
    raise RowsFault(
        "a cell begins with a quote that is not closed before the end of a cell; close it, or "
        "write the text without a quote at its beginning",
        file=label,
        line=first,
    )


def _table_rows(records: Iterator[tuple[int, list[str]]], label: str, report: Report) -> Rows:
    columns: _Columns | None = None
    number = 0
    for line, cells in records:
        if not any(cells):
            continue  # spreadsheets leave such lines behind the last row
        try:
            if columns is None:
                columns = _Columns(cells)
                continue
            number += 1
            kept = columns.kept(cells)
        except ValueError as error:
            fault = RowsFault(str(error), file=label, line=line)
            if columns is None:
                raise fault from None
            report(fault)
            continue
        yield columns.names.row(number, line, f"{label}:{line}", kept)
    if columns is None:
        raise RowsFault("is empty; the first line must name the columns", file=label)


class _Columns:
    """The header of a table; a column without a name may stand there as long as it is empty."""

    __slots__ = ("_unnamed", "_width", "names")

    def __init__(self, header: Sequence[str]) -> None:
        self._width = len(header)
        self._unnamed = [at for at, name in enumerate(header) if not name.strip()]
        self.names = ColumnNames([name for name in header if name.strip()])

    def kept(self, cells: list[str]) -> Sequence[str]:
        """The cells of named columns; ValueError when they do not fit the header."""
        if len(cells) != self._width:
            raise ValueError(
                f"{_counted(len(cells), 'cell')}, but the header has "
                f"{_counted(self._width, 'column')}"
            )
        if not self._unnamed:
            return cells
        for at in self._unnamed:
            if cells[at]:
                raise ValueError(f"column {at + 1} holds a value but has no name")
        return [cell for at, cell in enumerate(cells) if at not in self._unnamed]


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
