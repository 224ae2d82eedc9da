"""Lines of text tables, as fast as they can be read, and the error where they cannot be read."""

from __future__ import annotations

import codecs
from collections.abc import Generator, Iterator
from io import StringIO
from typing import Final, NamedTuple

from batchgen.manifest.table import RowsFault
from batchgen.manifest.table_bytes import TableFile

MAX_LINE_CHARS: Final = 16 << 20
"""A file without line breaks must not be read into memory as one line."""
_CHUNK_CHARS: Final = 1 << 14
_CHUNK_BYTES: Final = 1 << 16


def text_lines(table: TableFile, encoding: str) -> Generator[Iterator[str], None, None]:
    """Yield the lines of a file with their ends as they are, some hundreds at a time.

    So a reader written in C gets each line without running Python code. Raises RowsFault for what
    is not text in this encoding.
    """
    try:
        with table.open_text(encoding) as stream:
            rest, size = list[str](), 0
            while chunk := stream.read(_CHUNK_CHARS):
                if "\0" in chunk:
                    raise _line_fault(table, encoding)
                if rest and rest[-1].endswith("\r"):
                    # Its line feed may be the first character of this chunk.
                    chunk = rest.pop() + chunk
                end = max(chunk.rfind("\n"), chunk.rfind("\r", 0, -1)) + 1
                if end:
                    rest.append(chunk[:end])
                    yield StringIO("".join(rest), newline="")
                    rest, size = [], 0
                rest.append(chunk[end:])
                size += len(chunk) - end
                if size >= MAX_LINE_CHARS:
                    raise _line_fault(table, encoding)
            yield StringIO("".join(rest), newline="")
    except UnicodeError as error:
        raise _encoding_fault(table, encoding, error) from None


def first_text(table: TableFile, encoding: str, chars: int) -> tuple[str, bool]:
    """Return the beginning of a file, and whether this is all of it. Raises RowsFault."""
    try:
        with table.open_text(encoding) as stream:
            text = stream.read(chars)
            return text, len(text) < chars
    except UnicodeError as error:
        raise _encoding_fault(table, encoding, error) from None


def _line_fault(table: TableFile, encoding: str) -> RowsFault:
    """Return the error of the first bad line; searched only when there is one."""
    number, problem = 0, "contains a NUL character; expected a text file"
    with table.open_text(encoding) as stream:
        while line := stream.readline(MAX_LINE_CHARS):
            number += 1
            if "\0" in line:
                break
            if len(line) == MAX_LINE_CHARS:
                problem = f"a line of more than {MAX_LINE_CHARS:,} characters"
                break
    return table.fault(problem, line=number)


def _encoding_fault(table: TableFile, encoding: str, error: UnicodeError) -> RowsFault:
    """Return the error of bytes that are not in the declared or marked encoding."""
    bad = first_bad_byte(table, encoding)
    where = f"byte 0x{bad.value:02x} at offset {bad.offset:,}" if bad else str(error)
    return table.fault(
        f"not {encoding}: {where}; expected another rows: {{encoding: NAME}}",
        line=bad.line if bad else 0,
    )


class BadByte(NamedTuple):
    """A byte that is not in an encoding, with its offset and line."""

    value: int
    offset: int
    line: int


def first_bad_byte(table: TableFile, encoding: str) -> BadByte | None:
    """Return the first byte that is not in an encoding; None if the whole table is."""
    decoder = codecs.getincrementaldecoder(encoding)()
    offset, line = 0, 1
    with table.open() as stream:
        while True:
            data = stream.read(_CHUNK_BYTES)
            try:
                line += decoder.decode(data, final=not data).count("\n")
            except UnicodeDecodeError as error:
                pending = len(error.object) - len(data)
                good = error.object[: error.start].decode(encoding, "replace")
                at = offset + error.start - pending
                return BadByte(error.object[error.start], at, line + good.count("\n"))
            except UnicodeError:  # UTF-16 without its mark
                return BadByte(data[0] if data else 0, offset, line)
            if not data:
                return None
            offset += len(data)
