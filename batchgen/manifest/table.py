"""Rows of a table and the names of its columns, for every file format."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple


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
        """The key of the manifest's ``rows`` to blame, if it is not the table's content."""


class Row(NamedTuple):
    """One row of a table; a tuple, because a million are created."""

    number: int
    """1-based, counting rows that hold something, without the header."""
    line: int
    """Where the row begins in its file, 1-based; 0 where the file has no lines."""
    source: str
    """For messages: ``products.csv:14`` or ``shop.db row 3``."""
    columns: ColumnNames
    """The columns of the table, or of rows like this one."""
    cells: Sequence[object]
    """The value of each column."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the file, in its order."""
        return self.columns.raw

    @property
    def values(self) -> dict[str, object]:
        """Values under their normal names; see `normal_name`. Those of text tables are text.

        The dictionary is made for each caller, since most rows become jobs without it.
        """
        # There are as many cells as names, and being strict about it would cost as much again.
        values = dict(zip(self.columns.normal, self.cells))  # noqa: B905
        if self.columns.has_nameless:
            del values[""]
        return values

    @property
    def raw(self) -> Mapping[str, object]:
        """Values under the names of the file."""
        return dict(zip(self.names, self.cells, strict=True))


_NEW_ROW: Final[Callable[[tuple[object, ...]], Row]] = partial(tuple.__new__, Row)
"""Half the time of ``Row(...)``."""
Rows = Generator[Row, None, None]
Report = Callable[[RowsFault], None]


def ignore(fault: RowsFault) -> None:
    """Leave out a row that cannot be read; a `Report` of who only shows rows."""


def normal_name(name: str) -> str:
    """Return the name a column has in templates: ``Body (HTML)`` is ``body_html``.

    Lower case in NFC, with ``_`` for everything that a name cannot contain; empty if nothing of
    the name is left.
    """
    text = unicodedata.normalize("NFC", name.lower())
    text = "".join(char if f"_{char}".isidentifier() else "_" for char in text)
    text = re.sub("__+", "_", text).strip("_")
    return text if not text or text.isidentifier() else f"_{text}"


def normal_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the normal names of variables. Raises ValueError if two of them are equal."""
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


def _numbered(names: Sequence[str]) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Number equal names: ``x, y, x`` becomes ``x_1, y, x_2``.

    Also return the new names of each that occurred more than once.
    """
    total = Counter(names)
    taken, counted = set(names), Counter[str]()
    found: dict[str, list[str]] = {}
    numbered = []
    for name in names:
        if total[name] == 1 or not name:
            numbered.append(name)
            continue
        new = name
        while new in taken:
            counted[name] += 1
            new = f"{name}_{counted[name]}"
        taken.add(new)
        found.setdefault(name, []).append(new)
        numbered.append(new)
    return tuple(numbered), {name: tuple(new) for name, new in found.items()}


class ColumnNames:
    """The column names of a table, or of one kind of JSON object.

    Equal names are numbered, and none of the columns has the name itself.
    """

    __slots__ = ("ambiguous", "has_nameless", "normal", "raw")

    def __init__(self, raw: Sequence[str]) -> None:
        self.raw, ambiguous = _numbered(raw)
        self.normal, ambiguous_normal = _numbered([normal_name(name) for name in raw])
        self.ambiguous: Mapping[str, tuple[str, ...]] = ambiguous | ambiguous_normal
        """Names that more than one column has, with the names that these columns have instead."""
        self.has_nameless = "" in self.normal
        """Whether nothing is left of some name under the rules of `normal_name`."""

    def with_more(self, names: Sequence[str]) -> ColumnNames:
        """Return these columns followed by others, whose names are normal ones."""
        more = copy(self)
        more.raw, more.normal = (*self.raw, *names), (*self.normal, *names)
        return more

    def row(self, number: int, line: int, source: str, cells: Sequence[object]) -> Row:
        """Return a row with these cells."""
        return _NEW_ROW((number, line, source, self, cells))


@dataclass(slots=True, kw_only=True)
class Reading:
    """How a table is read; complete after its last row."""

    table: str
    """The name of the table in messages."""
    layout: str = ""
    """``comma-separated``, ``one prompt per line``, ``JSON lines``; empty for a query."""
    encoding: str = ""
    """Empty where the format has none."""
    is_list: bool = False
    """Whether each line is a prompt, without a header."""
    columns: ColumnNames | None = None
    """None where rows may differ in their columns."""
    notices: list[RowsFault] = field(default_factory=list)
    """What its reader should know, although it is not an error."""


class Table:
    """An open table: an iterator of its rows, with how they are read.

    The first row is read when the table is opened, so that its columns are known.
    """

    def __init__(self, rows: Rows, reading: Reading) -> None:
        """Read the first row. Raises RowsFault as `__next__` does."""
        self.reading = reading
        self._rows = rows
        self._first = next(rows, None)

    def __iter__(self) -> Iterator[Row]:
        # A generator, because a method call per row would cost more.
        if self._first is not None:
            first, self._first = self._first, None
            yield first
        yield from self._rows

    def __next__(self) -> Row:
        """Return the next row. Raises RowsFault if the table cannot be read on."""
        if self._first is None:
            return next(self._rows)
        first, self._first = self._first, None
        return first

    def close(self) -> None:
        """Close the file."""
        self._rows.close()


def existing_file(base: Path, label: str, key: str) -> Path:
    """Return the path of a table. Raises RowsFault if it is not a file."""
    try:
        path = base / Path(label).expanduser()
        if path.is_file():
            return path
        problem = "is not a file" if path.exists() else "no such file"
    except (OSError, ValueError, RuntimeError) as error:  # too long, with a NUL, unknown ~user
        problem, path = str(error), Path(label)
    raise RowsFault(f"{label}: {problem} ({path})", file=label, key=key)
