"""Find the layout of a text table from its beginning: delimiter, header and lines around it."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from itertools import islice
from typing import Final

from batchgen.manifest.csv_records import csv_records, lenient_records
from batchgen.manifest.table import RowsFault, normal_name

SAMPLE_CHARS: Final = 1 << 16
_MAX_RECORDS: Final = 200
_DELIMITERS: Final = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}
_WORDS: Final = {word: mark for mark, word in _DELIMITERS.items()} | {r"\t": "\t"}
_LENIENT: Final = frozenset("\t|")
"""Delimiters that text does not contain, so that a quote inside a cell is only a quote."""

_SEP: Final = re.compile(r'"?sep=(.)"?[;,\t]*\s*', re.IGNORECASE)
"""Excel's own way to name the delimiter: https://stackoverflow.com/q/20395699"""
_AMAZON: Final = re.compile(r'"?(?:templatetype|settings)=', re.IGNORECASE)
"""First line of a flat file of Amazon. The names of columns are in line 3 unless it says more."""
_AMAZON_ROWS: Final = re.compile(r"\b(attributeRow|dataRow)=(\d{1,2})\b")
_EBAY: Final = re.compile(r'"?(?:#?info)"?\s*[,;]\s*"?version=', re.IGNORECASE)
"""First lines of templates of eBay's Seller Hub."""
_COLUMN_WORDS: Final = """
    aw_product_id caption category description handle id image image_link item_name item_sku key
    link name price product_id product_name prompt prompts sku text title url
"""
_KNOWN_COLUMNS: Final = frozenset(_COLUMN_WORDS.split())
_ONE_COLUMN: Final = frozenset({"prompt", "prompts", "text", "caption", "title"})


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the header of a text table is, and how its lines are split."""

    delimiter: str | None
    """None for a table of one column, or of one prompt per line."""
    header_line: int = 1
    data_line: int = 0
    """The line of the first row; 0 for the one after the header."""
    is_list: bool = False
    """Without a header: each line is a prompt."""
    has_row_names: bool = False
    """Whether rows begin with a name for which the header has no cell, as R writes them."""
    escapes: bool = False
    """Whether a quote inside a quoted cell is written with a backslash, as by MySQL and Spark."""

    @property
    def description(self) -> str:
        """Return the layout in words."""
        if self.is_list:
            return "one prompt per line"
        if self.delimiter is None:
            return "one column"
        return f"{_DELIMITERS.get(self.delimiter, repr(self.delimiter))}-separated"

    def records(self, lines: Iterator[str], label: str) -> Iterator[tuple[int, list[str]]]:
        """Yield the cells of each record with its line, header first. Raises RowsFault."""
        for _ in islice(lines, self.header_line - 1):
            pass
        first = self.header_line
        if self.data_line > first + 1:
            header = next(lines, "")
            yield from self._split(iter([header]), label, first)
            for _ in islice(lines, self.data_line - first - 1):
                pass
            first = self.data_line
        yield from self._split(lines, label, first)

    def _split(
        self, lines: Iterator[str], label: str, line: int
    ) -> Iterator[tuple[int, list[str]]]:
        # No text holds a NUL character, which the reader of lines refuses.
        delimiter = self.delimiter or "\0"
        if self.delimiter is None or self.delimiter in _LENIENT:
            return lenient_records(lines, label, delimiter, line)
        return csv_records(lines, label, delimiter, line, escapes=self.escapes)


def check_delimiter(text: str) -> str:
    """Return the delimiter that a manifest names. Raises ValueError."""
    found = _WORDS.get(text.lower(), text)
    if len(found) != 1 or found.isalnum() or found in "\"'\r\n\0 ._-":
        raise ValueError(
            f"{text[:20]!r} is not a delimiter; expected one character, or comma, semicolon, tab"
            " or pipe"
        )
    return found


def find_layout(sample: str, ending: str, declared: str | None, *, is_whole: bool) -> Layout:
    """Find the layout of a table from its beginning.

    ``ending`` is that of its name, such as ``.txt``; ``is_whole`` says that there is nothing after
    the sample.
    """
    lines = list(StringIO(sample, newline=""))
    if not is_whole:
        lines = lines[:-1] or lines
    header_line, data_line, sep = _before_header(lines)
    body = lines[header_line - 1 :]
    if data_line > header_line:
        body = [*body[:1], *lines[data_line - 1 :]]
    delimiter = declared or sep
    if delimiter is None:
        delimiter = _most_even(body, "\t" if ending in (".tsv", ".tab") else None)
        if ending == ".txt" and not _is_table(body, delimiter):
            return Layout(None, is_list=True)
    return Layout(
        delimiter,
        header_line,
        data_line,
        has_row_names=_has_row_names(body, delimiter),
        escapes=_has_escapes(body, delimiter),
    )


def _has_row_names(lines: Sequence[str], delimiter: str | None) -> bool:
    """Return whether every row has one more value than the header, as written by write.table in R.

    https://stat.ethz.ch/R-manual/R-devel/library/utils/html/write.table.html
    """
    if delimiter is None:
        return False
    header, *rows = [cells for cells in _sample_records(lines, delimiter) if any(cells)] or [[]]
    return bool(rows) and all(_filled(cells) == len(header) + 1 for cells in rows)


def _has_escapes(lines: Sequence[str], delimiter: str | None) -> bool:
    """Return whether the sample can be read only if a backslash escapes a quote."""
    if delimiter is None or delimiter in _LENIENT or not any('\\"' in line for line in lines):
        return False

    def is_readable(*, escapes: bool) -> bool:
        try:
            for _ in csv_records(iter(lines), "", delimiter, 1, escapes=escapes):
                pass
        except RowsFault as fault:
            # The sample may end inside of a quoted cell.
            return "never closed" in fault.message
        return True

    return not is_readable(escapes=False) and is_readable(escapes=True)


def _before_header(lines: Sequence[str]) -> tuple[int, int, str | None]:
    """Return the lines of the header and of the first row, and the delimiter of a ``sep=`` line."""
    at = next((number for number, line in enumerate(lines) if line.strip()), 0)
    if at >= len(lines):
        return 1, 0, None
    line = lines[at]
    if sep := _SEP.fullmatch(line):
        return at + 2, 0, sep[1]
    if _AMAZON.match(line):
        rows = {name: int(number) for name, number in _AMAZON_ROWS.findall(line)}
        filled = [number for number, text in enumerate(lines, 1) if text.strip()]
        header = rows.get("attributeRow", filled[2] if len(filled) > 2 else at + 3)
        return header, rows.get("dataRow", 0), None
    while at < len(lines) - 1 and (_EBAY.match(lines[at]) or _is_comment(lines[at])):
        at += 1
    return at + 1, 0, None


def _is_comment(line: str) -> bool:
    """Return whether all cells are comments, as in the templates of Facebook and eBay."""
    cells = [cell.strip(' "') for cell in re.split(r'[,;\t](?=\s*(?:"?#|$))', line.strip())]
    filled = [cell for cell in cells if cell]
    return line.startswith(("#", '"#')) and all(cell.startswith(("# ", "#INFO")) for cell in filled)


def _most_even(lines: Sequence[str], preferred: str | None) -> str | None:
    """Return the delimiter that splits header and rows into equally many cells, most cells first.

    None if none splits the header. A ``preferred`` one needs only to split it.
    """
    scores = {mark: _evenness(lines, mark) for mark in _DELIMITERS}
    splitting = {mark: score for mark, score in scores.items() if score[1] > 1}
    if preferred in splitting:
        return preferred
    return max(splitting, key=lambda mark: splitting[mark], default=None)


def _evenness(lines: Sequence[str], mark: str) -> tuple[float, int]:
    """Return the share of rows that are as wide as the header, and its width."""
    records = _sample_records(lines, mark)
    width = len(next((cells for cells in records if any(cells)), []))
    # Empty cells beyond the header do not count.
    widths = [max(_filled(cells), min(len(cells), width)) for cells in records if any(cells)]
    return (sum(one == width for one in widths) / len(widths) if widths else 1.0), width


def _filled(cells: Sequence[str]) -> int:
    """Return the number of cells without the empty ones at the end."""
    return next((at for at in range(len(cells), 0, -1) if cells[at - 1]), 0)


def _sample_records(lines: Sequence[str], mark: str) -> Iterator[list[str]]:
    def found() -> Iterator[list[str]]:
        if mark in _LENIENT:
            try:
                for _, cells in lenient_records(iter(lines), "", mark, 1):
                    yield cells
            except RowsFault:
                return
        else:
            try:
                yield from csv.reader(iter(lines), delimiter=mark)
            except csv.Error:
                return

    return islice(found(), _MAX_RECORDS)


def _is_table(lines: Sequence[str], delimiter: str | None) -> bool:
    """Return whether a ``.txt`` file is a table, and not one prompt per line.

    Prompts hold commas and semicolons too, so the first line must name a usual column.
    """
    line = next((line.strip() for line in lines if line.strip()), "")
    if delimiter is None:
        return normal_name(line) in _ONE_COLUMN and line == line.strip()
    names = [cell.strip('" ') for cell in line.split(delimiter)]
    has_names = all(0 < len(name) <= 64 for name in names)
    if delimiter == "\t":
        return has_names
    return has_names and any(normal_name(name) in _KNOWN_COLUMNS for name in names)
