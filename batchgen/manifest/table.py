"""Rows of a table and the names of its columns, whatever file format they come from."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


class RowsFault(Exception):
    """A table, or one row of it, cannot be used."""

    def __init__(
        self,
        message: str,
        *,
        file: str,
        line: int = 0,
        path: str = "",
        key: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.file = file
        self.line = line
        self.path = path
        """Which row, where the file has no lines: ``row 3``."""
        self.key = key
        """The key of the manifest's ``rows`` to blame, when it is not the table's content."""


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


class ColumnNames:
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


def existing_file(base: Path, label: str, key: str) -> Path:
    path = base / label
    try:
        if path.is_file():
            return path
        problem = "is not a file" if path.exists() else "no such file"
    except (OSError, ValueError) as error:  # a name too long, or with a NUL
        problem = str(error)
    raise RowsFault(f"{label}: {problem} ({path})", file=label, key=key)
