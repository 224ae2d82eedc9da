"""Read the rows of jsonl and json files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import orjson

from batchgen.manifest.lines import MAX_LINE_CHARS
from batchgen.manifest.table import ColumnNames, Report, Rows, RowsFault

MAX_JSON_BYTES: Final = 64 << 20
_MAX_KNOWN_SHAPES: Final = 1_000
"""JSON objects may each have keys of their own; the names of this many kinds are remembered."""


class _Shapes:
    """The names of each kind of JSON object met so far."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], ColumnNames] = {}

    def names(self, keys: Iterable[str]) -> ColumnNames:
        shape = tuple(keys)
        if (known := self._known.get(shape)) is None:
            if len(self._known) >= _MAX_KNOWN_SHAPES:
                self._known.clear()
            known = self._known[shape] = ColumnNames(shape)
        return known


def jsonl_rows(path: Path, label: str, report: Report) -> Rows:
    shapes = _Shapes()
    number = 0
    for line_number, line in enumerate(_byte_lines(path, label), 1):
        if line.isspace():
            continue
        number += 1
        try:
            values = orjson.loads(line)
            if not isinstance(values, dict):
                raise ValueError(f"{_kind(values)} where an object was expected: {{...}}")
            names = shapes.names(values)
        except orjson.JSONDecodeError as error:
            report(_json_fault(error, label, line_number, line))
        except ValueError as error:
            report(RowsFault(str(error), file=label, line=line_number))
        else:
            source = f"{label}:{line_number}"
            yield names.row(number, line_number, source, tuple(values.values()))


def _byte_lines(path: Path, label: str) -> Iterator[bytes]:
    number = 0
    try:
        with path.open("rb") as stream:
            while line := stream.readline(MAX_LINE_CHARS):
                number += 1
                if len(line) == MAX_LINE_CHARS:
                    raise RowsFault(
                        f"a line of more than {MAX_LINE_CHARS:,} bytes", file=label, line=number
                    )
                yield line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
    except OSError as error:
        raise RowsFault(f"cannot be read: {error}", file=label, key="file") from None


def _json_fault(error: orjson.JSONDecodeError, label: str, line: int, text: bytes) -> RowsFault:
    try:
        text.decode()
    except UnicodeDecodeError as bad:
        problem = f"not UTF-8: byte 0x{text[bad.start]:02x}, the {bad.start + 1}th of this line"
    else:
        problem = f"not valid JSON: {error.msg} at character {error.colno}"
    return RowsFault(problem, file=label, line=line)


def json_rows(path: Path, label: str, report: Report) -> Rows:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise RowsFault(
                f"is over {MAX_JSON_BYTES >> 20} MB, and json is read as a whole; make it jsonl",
                file=label,
            )
        document = orjson.loads(path.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    except OSError as error:
        raise RowsFault(f"cannot be read: {error}", file=label, key="file") from None
    except orjson.JSONDecodeError as error:
        raise RowsFault(f"not valid JSON: {error.msg}", file=label, line=error.lineno) from None
    shapes = _Shapes()
    for number, values in enumerate(_json_objects(document, label), 1):
        try:
            if not isinstance(values, dict):
                raise ValueError(f"{_kind(values)} where an object was expected: {{...}}")
            names = shapes.names(values)
        except ValueError as error:
            report(RowsFault(str(error), file=label, path=f"row {number}"))
        else:
            yield names.row(number, 0, f"{label} row {number}", tuple(values.values()))


def _json_objects(document: object, label: str) -> list[object]:
    """The rows of a document: the document itself, or the one list of objects in it."""
    if isinstance(document, list):
        return document
    if isinstance(document, dict):
        lists = [
            value
            for value in document.values()
            if isinstance(value, list) and value and isinstance(value[0], dict)
        ]
        if len(lists) == 1:
            return lists[0]
    raise RowsFault(
        "holds no rows: a list of objects, or an object with exactly one such list, was expected",
        file=label,
    )


def _kind(value: object) -> str:
    names = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
