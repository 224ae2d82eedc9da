"""Rows from csv, tsv, jsonl, json and SQLite, one at a time; no template is applied here."""

from __future__ import annotations

import csv
import re
import sqlite3
import unicodedata
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple

import orjson

from batchgen.manifest.lines import MAX_LINE_CHARS, RowsFault, text_lines
from batchgen.manifest.model import FileRows, SqliteRows

MAX_CELL_CHARS: Final = 1 << 20
MAX_JSON_BYTES: Final = 64 << 20
_FETCH_ROWS: Final = 500
_MAX_KNOWN_SHAPES: Final = 1_000
"""JSON objects may each have keys of their own; the names of this many kinds are remembered."""


class Row(NamedTuple):
    """One row of a table, whatever it was read from; a tuple, since a million are made."""

    number: int
    """1-based, counting rows that hold something, without the header."""
    line: int
    """Where the row begins in its file, 1-based; 0 where the file has no lines."""
    source: str
    """For messages: ``products.csv:14`` or ``shop.db row 3``."""
    values: Mapping[str, object]
    """Values under their normal names; see `normal_name`. Those of csv and tsv are always text."""
    names: tuple[str, ...]
    """The names of the file, in its order."""
    cells: Sequence[object]
    """The value of each."""

    @property
    def raw(self) -> Mapping[str, object]:
        """Values under the names of the file."""
        return dict(zip(self.names, self.cells, strict=True))


Rows = Generator[Row, None, None]
Report = Callable[[RowsFault], None]


def open_rows(
    source: str | FileRows | SqliteRows, base: Path, *, report: Report | None = None
) -> Rows:
    """Read the rows of a manifest's ``rows`` in their order, in constant memory (json excepted).

    Relative paths start at ``base``. Raises RowsFault when the table cannot be read on. A single
    row that is wrong is handed to ``report`` and left out, so that all can be told at once;
    without ``report`` it is raised as well.
    """
    if isinstance(source, SqliteRows):
        return _sqlite_rows(source, base, report or _raise)
    label = source if isinstance(source, str) else source.file
    reader = _READERS.get(Path(label).suffix.lower())
    if reader is None:
        raise RowsFault(
            f"{label!r} is no table batchgen reads; its name must end in {', '.join(_READERS)}",
            file=label,
            key="file",
        )
    return reader(_existing_file(base, label, "file"), label, report or _raise)


def holds_text(source: str | FileRows | SqliteRows) -> bool:
    """Whether every value of a table is a text, never null."""
    if isinstance(source, SqliteRows):
        return False
    label = source if isinstance(source, str) else source.file
    return Path(label).suffix.lower() in (".csv", ".tsv")


def has_fixed_columns(source: str | FileRows | SqliteRows) -> bool:
    """Whether all rows of a table have the same columns."""
    return isinstance(source, SqliteRows) or holds_text(source)


def normal_name(name: str) -> str:
    """The name a column has in templates: ``Body (HTML)`` is ``body_html``.

    Lower case in NFC, everything that cannot stand in a name becomes ``_``; empty when nothing of
    the name is left.
    """
    text = unicodedata.normalize("NFC", name.lower())
    text = "".join(char if f"_{char}".isidentifier() else "_" for char in text)
    text = re.sub("__+", "_", text).strip("_")
    return text if not text or text.isidentifier() else f"_{text}"


def normal_names(names: Sequence[str]) -> tuple[str, ...]:
    """The normal names of columns. Raises ValueError when two of them cannot be told apart."""
    seen: dict[str, str] = {}
    for name in names:
        normal = normal_name(name)
        if normal in seen:
            other = seen[normal]
            raise ValueError(
                f"two columns are called {name!r}"
                if other == name
                else f"the columns {other!r} and {name!r} are both {normal!r} in templates"
            )
        if normal:
            seen[normal] = name
    return tuple(map(normal_name, names))


def _raise(fault: RowsFault) -> None:
    raise fault


def _existing_file(base: Path, label: str, key: str) -> Path:
    path = base / label
    try:
        if path.is_file():
            return path
        problem = "is not a file" if path.exists() else "no such file"
    except (OSError, ValueError) as error:  # a name too long, or with a NUL
        problem = str(error)
    raise RowsFault(f"{label}: {problem} ({path})", file=label, key=key)


class _Names:
    """The column names of a table, or of one kind of JSON object."""

    __slots__ = ("_nameless", "normal", "raw")

    def __init__(self, raw: Sequence[str]) -> None:
        """Raises ValueError when two columns cannot be told apart."""
        self.raw = tuple(raw)
        self.normal = normal_names(raw)
        self._nameless = "" in self.normal

    def row(self, number: int, line: int, source: str, cells: Sequence[object]) -> Row:
        # There are as many cells as names, and being strict about it would cost as much again.
        values = dict(zip(self.normal, cells))  # noqa: B905
        if self._nameless:
            del values[""]
        return Row(number, line, source, values, self.raw, cells)


# csv and tsv


def _csv_rows(path: Path, label: str, report: Report) -> Rows:
    return _text_rows(path, label, report, _csv_records)


def _tsv_rows(path: Path, label: str, report: Report) -> Rows:
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
        self.names = _Names([name for name in header if name.strip()])

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


# jsonl and json


class _Shapes:
    """The names of each kind of JSON object met so far."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], _Names] = {}

    def names(self, keys: Iterable[str]) -> _Names:
        shape = tuple(keys)
        if (known := self._known.get(shape)) is None:
            if len(self._known) >= _MAX_KNOWN_SHAPES:
                self._known.clear()
            known = self._known[shape] = _Names(shape)
        return known


def _jsonl_rows(path: Path, label: str, report: Report) -> Rows:
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


def _json_rows(path: Path, label: str, report: Report) -> Rows:
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


# SQLite


def _sqlite_rows(source: SqliteRows, base: Path, report: Report) -> Rows:
    label = source.sqlite
    path = _existing_file(base, label, "sqlite")
    return _query_rows(path, label, source.query)


def _query_rows(path: Path, label: str, query: str) -> Rows:
    number = 0
    try:
        # A plan may be walked by one thread after another, so the connection must not mind.
        with closing(
            sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False
            )
        ) as connection:
            cursor = connection.execute(query)
            if cursor.description is None:
                raise RowsFault("gives no rows; one SELECT was expected", file=label, key="query")
            names = _Names([column[0] for column in cursor.description])
            while rows := cursor.fetchmany(_FETCH_ROWS):
                for cells in rows:
                    number += 1
                    yield names.row(number, 0, f"{label} row {number}", cells)
    except ValueError as error:
        raise RowsFault(f"{error}; name one with AS", file=label, key="query") from None
    except (sqlite3.Error, sqlite3.Warning) as error:
        key = "sqlite" if _is_about_the_file(error) else "query"
        raise RowsFault(f"SQLite says: {error}", file=label, key=key) from None


def _is_about_the_file(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_CORRUPT)


_READERS: Final[Mapping[str, Callable[[Path, str, Report], Rows]]] = {
    ".csv": _csv_rows,
    ".tsv": _tsv_rows,
    ".jsonl": _jsonl_rows,
    ".ndjson": _jsonl_rows,
    ".json": _json_rows,
}
