"""Split the lines of text tables into cells."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain
from typing import Final, NamedTuple

from batchgen.manifest.table import RowsFault

MAX_CELL_CHARS: Final = 1 << 20

Records = Iterator[tuple[int, list[str]]]


def csv_records(
    lines: Iterator[str], label: str, delimiter: str, line: int, *, escapes: bool = False
) -> Records:
    """Yield the cells of each record with its first line, where ``line`` is that of the first.

    Quotes are those of RFC 4180, or with ``escapes`` have a backslash in front. Raises RowsFault
    where a stray quote would silently change the text around it.
    """
    # The limit is one for the process and 128 KiB by default, less than some shops' descriptions.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_CELL_CHARS))
    blank = 0
    for first in lines:
        if first.strip():
            break
        blank += 1
    else:
        return
    reader = csv.reader(
        chain([first], lines),
        delimiter=delimiter,
        strict=True,
        doublequote=not escapes,
        escapechar="\\" if escapes else None,
    )
    start = line = line + blank
    try:
        for cells in reader:
            yield line, cells
            line = start + reader.line_num
    except csv.Error as error:
        raise RowsFault(_csv_problem(str(error)), file=label, line=line) from None


def _csv_problem(message: str) -> str:
    if "unexpected end of data" in message:
        return "a quote is opened in this row and never closed"
    if "expected after" in message:
        return 'text follows a closing quote; expected "" for a quote inside a quoted cell'
    if "field limit" in message:
        return f"a cell of more than {MAX_CELL_CHARS:,} characters; expected a closing quote"
    return message


class _Patterns(NamedTuple):
    """How a quoted cell ends, for one delimiter."""

    closing: re.Pattern[str]
    still_open: re.Pattern[str]


@lru_cache(maxsize=8)
def _patterns(delimiter: str) -> _Patterns:
    end = re.escape(delimiter)
    return _Patterns(re.compile(rf'((?:[^"]+|"")*+)"(?={end}|\Z)'), re.compile(r'(?:[^"]+|"")*+\Z'))


def lenient_records(lines: Iterator[str], label: str, delimiter: str, line: int) -> Records:
    """Yield the cells of each record with its first line, where ``line`` is that of the first.

    Text with tabs knows no quotes, but spreadsheets quote a cell that holds a tab, a line break or
    a quote. So a cell is unquoted only if it is quoted as a whole, with every quote inside written
    twice; any other quote is a part of the text, as in ``"BE NICE" on a wall``, where the csv
    module would drop it.
    """
    quoted_cell, patterns = f'{delimiter}"', _patterns(delimiter)
    number = line - 1
    for full in lines:
        number += 1
        text = full.rstrip("\r\n")
        if not text.startswith('"') and quoted_cell not in text:
            yield number, text.split(delimiter)
            continue
        first, cells, at, end = number, [], 0, full[len(text) :]
        while True:
            if text.startswith('"', at):
                if closing := patterns.closing.match(text, at + 1):
                    cells.append(closing[1].replace('""', '"'))
                    at = closing.end()
                elif patterns.still_open.match(text, at + 1):
                    parts = [text[at + 1 :], end]
                    rest, taken = _rest_of_cell(lines, parts, patterns, (label, first))
                    number += taken
                    text, at = rest.rstrip("\r\n"), 0
                    end = rest[len(text) :]
                    cells.append("".join(parts).replace('""', '"'))
                else:
                    at = _plain_cell(text, at, delimiter, cells)
            else:
                at = _plain_cell(text, at, delimiter, cells)
            if at == len(text):
                break
            at += 1
        yield first, cells


def _plain_cell(text: str, at: int, delimiter: str, cells: list[str]) -> int:
    end = text.find(delimiter, at)
    end = len(text) if end < 0 else end
    cells.append(text[at:end])
    return end


def _rest_of_cell(
    lines: Iterator[str], parts: list[str], patterns: _Patterns, place: tuple[str, int]
) -> tuple[str, int]:
    """Read a quoted cell to its end. Return what follows on its last line, and the lines read."""
    size = 0
    for taken, line in enumerate(lines, 1):
        text = line.rstrip("\r\n")
        size += len(line)
        if closing := patterns.closing.match(text):
            parts.append(closing[1])
            return line[closing.end() :], taken
        if not patterns.still_open.match(text) or size > MAX_CELL_CHARS:
            break
        parts.append(line)
    label, first = place
    raise RowsFault(
        "a cell begins with a quote that is not closed at the end of a cell; close it, or write the"
        " text without a quote at its beginning",
        file=label,
        line=first,
    )
