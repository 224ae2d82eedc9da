"""Lines of text tables, as fast as they can be read, and what is wrong where they cannot be."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from io import StringIO
from pathlib import Path
from typing import Final

from batchgen.manifest.table import RowsFault

MAX_LINE_CHARS: Final = 16 << 20
"""A file without line breaks must not be read into memory as one line."""
_CHUNK_CHARS: Final = 1 << 14


def text_lines(path: Path, label: str) -> Generator[Iterator[str], None, None]:
    """The lines of a UTF-8 file with their ends as they are, some hundreds at a time.

    So that a reader written in C asks for each line without a detour through Python. Raises
    RowsFault for what is no text.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rest = ""
            while chunk := stream.read(_CHUNK_CHARS):
                if "\0" in chunk:
                    raise _line_fault(path, label)
                text = rest + chunk if rest else chunk
                # A carriage return at the very end may have its line feed in the next chunk.
                end = max(text.rfind("\n"), text.rfind("\r", 0, -1)) + 1
                rest = text[end:]
                if len(rest) >= MAX_LINE_CHARS:
                    raise _line_fault(path, label)
                yield StringIO(text[:end], newline="")
            yield StringIO(rest, newline="")
    except UnicodeDecodeError:
        raise _encoding_fault(path, label) from None
    except OSError as error:
        raise RowsFault(f"cannot be read: {error}", file=label, key="file") from None


def _line_fault(path: Path, label: str) -> RowsFault:
    """What is wrong with the first line that is none; looked for once it is known to be there."""
    number, problem = 0, "a NUL character; this is no text file"
    with path.open(encoding="utf-8-sig", newline="") as stream:
        while line := stream.readline(MAX_LINE_CHARS):
            number += 1
            if "\0" in line:
                break
            if len(line) == MAX_LINE_CHARS:
                problem = f"a line of more than {MAX_LINE_CHARS:,} characters"
                break
    return RowsFault(problem, file=label, line=number)


def _encoding_fault(path: Path, label: str) -> RowsFault:
    offset = 0
    with path.open("rb") as stream:
        for number, line in enumerate(iter(lambda: stream.readline(MAX_LINE_CHARS), b""), 1):
            if number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
                return RowsFault("is UTF-16; save it as UTF-8", file=label, line=1)
            try:
                line.decode()
            except UnicodeDecodeError as error:
                at = offset + error.start
                return RowsFault(
                    f"not UTF-8: byte 0x{line[error.start]:02x} at offset {at:,}; "
                    "save the file as UTF-8",
                    file=label,
                    line=number,
                )
            offset += len(line)
    return RowsFault("not UTF-8; save the file as UTF-8", file=label)
