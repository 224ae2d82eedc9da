"""Read the rows of jsonl and json files; the content decides between the two."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import orjson

from batchgen.manifest.json_values import RepeatedKeys, has_repeated_keys, json_object, parse
from batchgen.manifest.lines import MAX_LINE_CHARS
from batchgen.manifest.table import ColumnNames, Reading, Report, Row, Rows, RowsFault
from batchgen.manifest.table_bytes import TableFile
from batchgen.manifest.table_encoding import Encoding, find_encoding

MAX_JSON_BYTES: Final = 64 << 20
_MAX_KNOWN_SHAPES: Final = 1_000
"""JSON objects may each have other keys; the names of this number of kinds are kept."""
_RECORD_SEPARATOR: Final = b"\x1e"
"""In front of each line of a JSON text sequence: RFC 7464."""
_UTF8: Final = frozenset({"utf-8", "utf-8-sig"})


class _Shapes:
    """Makes rows of JSON values; keeps the column names of each kind of object."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], ColumnNames] = {}

    def row(self, value: object, number: int, line: int, source: str) -> Row:
        """Return the row of a value. Raises ValueError if it is not an object or text."""
        if isinstance(value, str):
            return self._names(("line", "prompt")).row(number, line, source, (value, value))
        if not isinstance(value, dict):
            raise ValueError(f"expected an object {{...}}, got {_kind(value)}")
        if isinstance(value, RepeatedKeys):
            names = self._names(key for key, _ in value.pairs)
            cells = tuple(cell for _, cell in value.pairs)
        else:
            names, cells = self._names(value), tuple(value.values())
        return names.row(number, line, source, cells)

    def _names(self, keys: Iterable[str]) -> ColumnNames:
        shape = tuple(keys)
        if (known := self._known.get(shape)) is None:
            if len(self._known) >= _MAX_KNOWN_SHAPES:
                self._known.clear()
            known = self._known[shape] = ColumnNames(shape)
        return known


def jsonl_rows(table: TableFile, encoding: str | None, report: Report, reading: Reading) -> Rows:
    """Yield the rows of JSON lines, or of one JSON document under such a name."""
    found = _encoding(table, encoding, reading)
    if _first_bytes(table, found).startswith(b"[") and not _begins_with_a_line(table, found):
        yield from _document_rows(table, found, report, reading)
    else:
        yield from _line_rows(table, found, report, reading)


def json_rows(table: TableFile, encoding: str | None, report: Report, reading: Reading) -> Rows:
    """Yield the rows of a JSON document, or of JSON lines under such a name."""
    found = _encoding(table, encoding, reading)
    if _first_bytes(table, found).startswith(b"{") and _begins_with_a_line(table, found):
        yield from _line_rows(table, found, report, reading)
    else:
        yield from _document_rows(table, found, report, reading)


def _encoding(table: TableFile, declared: str | None, reading: Reading) -> str:
    try:
        found = find_encoding(table, declared)
    except RowsFault as fault:
        if fault.key is not None:
            raise
        found = Encoding("utf-8")  # each line that is not UTF-8 is an error of its own
    reading.encoding = found.name
    if found.notice:
        reading.notices.append(table.fault(found.notice))
    return found.name


# Lines


def _first_bytes(table: TableFile, encoding: str) -> bytes:
    """Return the first byte of a table that is neither white space nor a separator."""
    with _open_pieces(table, encoding) as pieces:
        for piece in pieces:
            if stripped := piece.lstrip(_RECORD_SEPARATOR + b" \t\r\n"):
                return stripped[:1]
    return b""


def _begins_with_a_line(table: TableFile, encoding: str) -> bool:
    """Return whether the first line is a JSON value, with another line after it.

    A line that is too long for JSON lines may be a whole document.
    """
    found = 0
    with _open_pieces(table, encoding) as pieces:
        for piece in pieces:
            if not piece.strip():
                continue
            found += 1
            if found == 2:
                return True
            if len(piece) >= MAX_LINE_CHARS:
                return False
            try:
                parse(piece.lstrip(_RECORD_SEPARATOR))
            except orjson.JSONDecodeError:
                return False
    return False


def _line_rows(table: TableFile, encoding: str, report: Report, reading: Reading) -> Rows:
    reading.layout = "JSON lines"
    shapes, label, number = _Shapes(), table.label, 0
    with _open_pieces(table, encoding) as pieces:
        for at, line in enumerate(_whole_lines(pieces, table), 1):
            if line.isspace():
                continue
            number += 1
            try:
                value, may_repeat = parse(line.lstrip(_RECORD_SEPARATOR))
                if may_repeat:
                    _check_inner_keys(value)
                row = shapes.row(value, number, at, f"{label}:{at}")
            except orjson.JSONDecodeError as error:
                report(_json_fault(error, label, at, line))
            except ValueError as error:
                report(RowsFault(str(error), file=label, line=at))
            else:
                yield row


@contextmanager
def _open_pieces(table: TableFile, encoding: str) -> Generator[Iterator[bytes], None, None]:
    """Open the lines of a table in UTF-8, of which long ones come in pieces.

    Raises RowsFault, also for what fails in between.
    """
    if encoding in _UTF8:
        with table.open() as stream:
            yield _pieces(stream.readline)
        return
    with table.open_text(encoding) as text:
        try:
            yield _pieces(lambda limit: text.readline(limit).encode())
        except UnicodeError as error:
            message = f"not {encoding}: {error}; expected another rows: {{encoding: NAME}}"
            raise table.fault(message) from None


def _pieces(read: Callable[[int], bytes]) -> Iterator[bytes]:
    if first := read(MAX_LINE_CHARS):
        yield first.removeprefix(b"\xef\xbb\xbf")
    while piece := read(MAX_LINE_CHARS):
        yield piece


def _whole_lines(pieces: Iterator[bytes], table: TableFile) -> Iterator[bytes]:
    """Yield lines. Raises RowsFault for one that is too long."""
    for number, piece in enumerate(pieces, 1):
        if len(piece) >= MAX_LINE_CHARS:
            raise table.fault(f"a line of more than {MAX_LINE_CHARS:,} bytes", line=number)
        yield piece


def _check_inner_keys(value: object) -> None:
    """Raise ValueError for repeated keys inside of the columns; those of columns are numbered."""
    inner: Iterable[object] = ()
    if isinstance(value, RepeatedKeys):
        inner = [cell for _, cell in value.pairs]
    elif isinstance(value, dict):
        inner = value.values()
    for cell in inner:
        if isinstance(cell, dict | list) and has_repeated_keys(cell):
            raise ValueError("an object in this row has a key twice; expected each key once")


def _json_fault(error: orjson.JSONDecodeError, label: str, line: int, text: bytes) -> RowsFault:
    try:
        text.decode()
    except UnicodeDecodeError as bad:
        problem = (
            f"not UTF-8: byte 0x{text[bad.start]:02x} at offset {bad.start} of this line; expected"
            " UTF-8, or rows: {encoding: NAME}"
        )
    else:
        problem = f"not valid JSON: {error.msg} at character {error.colno}"
    return RowsFault(problem, file=label, line=line)


# Documents


def _document_rows(table: TableFile, encoding: str, report: Report, reading: Reading) -> Rows:
    reading.layout = "JSON"
    label = table.label
    document = _document(table, encoding)
    shapes = _Shapes()
    for number, value in enumerate(_json_objects(document, label), 1):
        try:
            _check_inner_keys(value)
            row = shapes.row(value, number, 0, f"{label} row {number}")
        except ValueError as error:
            report(RowsFault(str(error), file=label, path=f"row {number}"))
        else:
            yield row


def _document(table: TableFile, encoding: str) -> object:
    with table.open() as stream:
        data = stream.read(MAX_JSON_BYTES + 1)
    if len(data) > MAX_JSON_BYTES:
        raise table.fault(
            f"is over {MAX_JSON_BYTES >> 20} MiB, and json is read as a whole; expected jsonl"
        )
    try:
        if encoding not in _UTF8:
            data = data.decode(encoding).encode()
        return parse(data.removeprefix(b"\xef\xbb\xbf")).value
    except orjson.JSONDecodeError as error:
        raise table.fault(f"not valid JSON: {error.msg}", line=error.lineno) from None
    except UnicodeError as error:
        raise table.fault(f"not {encoding}: {error}") from None


def _json_objects(document: object, label: str) -> Iterable[object]:
    """Return the rows of a document: a list, the one list of objects in it, or its columns."""
    if isinstance(document, list):
        return document
    if isinstance(document, dict):
        values = list(document.values())
        lists = [
            one for one in values if isinstance(one, list) and one and isinstance(one[0], dict)
        ]
        if len(lists) == 1:
            return lists[0]
        if (rows := _data_frame(document)) is not None:
            return rows
    raise RowsFault(
        "holds no rows; expected a list of objects, or an object with exactly one such list",
        file=label,
    )


def _data_frame(document: Mapping[str, object]) -> Iterable[object] | None:
    """Return the rows of a data frame as pandas writes it: by columns, by index, or split.

    https://pandas.pydata.org/docs/reference/api/pandas.DataFrame.to_json.html
    """
    values = list(document.values())
    columns, data = document.get("columns"), document.get("data")
    if isinstance(columns, list) and isinstance(data, list):
        names = list(map(str, columns))
        if all(isinstance(cells, list) and len(cells) == len(names) for cells in data):
            return [_object(names, cells) for cells in data]
    lists = [value for value in values if isinstance(value, list)]
    is_flat = not any(isinstance(cell, dict | list) for cells in lists for cell in cells)
    if is_flat and len(lists) == len(values) and len(set(map(len, lists))) == 1:
        return [_object(list(document), cells) for cells in zip(*lists, strict=True)]
    objects = [value for value in values if isinstance(value, dict)]
    if not objects or len(objects) != len(values):
        return None
    if all(map(str.isdigit, document)):
        return objects
    if all(one.keys() == objects[0].keys() and all(map(str.isdigit, one)) for one in objects):
        return [_object(list(document), [one[at] for one in objects]) for at in objects[0]]
    return None


def _object(names: Sequence[str], cells: Sequence[object]) -> dict[str, object]:
    return json_object(list(zip(names, cells, strict=True)))


def _kind(value: object) -> str:
    names = {list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
