"""What is found wrong or worth a word while a plan is made: alike findings kept once, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Final

from batchgen.errors import Fault
from batchgen.job import ROW_REASON
from batchgen.manifest.loader import DocPath, Places, show_path
from batchgen.manifest.table import Row, RowsFault

_MAX_WARNINGS: Final = 100


class TooManyFaults(Exception):
    """Nothing is gained by looking on."""


class Faults:
    """The faults found so far; alike ones of many rows are kept once, with their number.

    Beyond ``limit`` different ones it raises TooManyFaults; with ``drop`` it keeps no more.
    """

    def __init__(self, places: Places, limit: int, *, drop: bool = False) -> None:
        self._places = places
        self._limit = limit
        self._drop = drop
        self._first: dict[Hashable, Fault] = {}
        self._rows: dict[Hashable, _Rows] = {}

    def __len__(self) -> int:
        return len(self._first)

    def of_manifest(self, path: DocPath, message: str) -> None:
        """What is wrong at a place of the manifest. Raises TooManyFaults."""
        if (path, message) not in self._first:
            self._add((path, message), self._places.fault(path, message))

    def add(self, fault: Fault) -> None:
        """Note a fault whose place is known. Raises TooManyFaults."""
        self._add((fault.path, fault.message), fault)

    def of_row(self, table: str, row: Row, path: DocPath, message: str) -> Fault:
        """What is wrong with a row that a template is applied to. Raises TooManyFaults."""
        shown = show_path(path) if row.line else f"row {row.number}: {show_path(path)}"
        return self._of_table((table, path, message), row.number, (table, row.line, shown, message))

    def of_table(self, fault: RowsFault) -> Fault:
        """What a reader of rows found. Raises TooManyFaults."""
        found = (fault.file, fault.line, fault.path, fault.message)
        return self._of_table((fault.file, fault.message), (fault.line, fault.path), found)

    def _of_table(self, kind: Hashable, row: Hashable, found: tuple[str, int, str, str]) -> Fault:
        table, line, path, message = found
        fault = replace(self._places.fault_at(line, 0, (), message), file=table, path=path)
        is_full = self._drop and len(self._first) >= self._limit and kind not in self._rows
        if not is_full and self._is_new(kind, row):
            self._add(kind, fault)
        return fault

    def _is_new(self, kind: Hashable, row: Hashable) -> bool:
        """Whether a kind of fault was never seen; if it was, this row is counted."""
        if (seen := self._rows.get(kind)) is None:
            self._rows[kind] = _Rows(row)
            return True
        if seen.last != row:  # jobs of one row that fail alike are no news
            seen.last = row
            seen.more += 1
        return False

    def _add(self, kind: Hashable, fault: Fault) -> None:
        if len(self._first) >= self._limit:
            raise TooManyFaults
        self._first[kind] = fault

    def say_that_it_stopped(self) -> None:
        """Add that there may be more."""
        message = f"over {self._limit} faults; what comes after them was not looked at"
        self._first["stopped"] = self._places.fault((), message)

    def all(self) -> list[Fault]:
        """Each different fault, with the number of rows that share it."""
        return [
            replace(fault, message=f"{fault.message} (and {_counted(self._rows[kind].more)})")
            if kind in self._rows and self._rows[kind].more
            else fault
            for kind, fault in self._first.items()
        ]


@dataclass(slots=True)
class _Rows:
    """How many rows have a fault, beyond the first."""

    last: Hashable
    more: int = 0


def _counted(rows: int) -> str:
    return f"{rows:,} more row" if rows == 1 else f"{rows:,} more rows"


def row_reason(fault: Fault) -> str:
    """Return the reason of a job whose row has this fault."""
    return f"{ROW_REASON}: {fault}"


class RowFaults:
    """Faults of single rows: each fails the jobs of its row alone, unless most rows have one."""

    def __init__(self, faults: Faults, places: Places, *, strict: bool) -> None:
        self._strict = faults if strict else None
        """Where they are noted if each of them fails the whole plan."""
        self._faults = Faults(places, _MAX_WARNINGS, drop=True)
        self._last: Hashable = None
        self.rows = 0
        """How many rows were looked at."""
        self.at_fault = 0
        """How many of them have a fault."""
        self.has_unknown_keys = False
        """Whether a row at fault gives no key, so that it may be the row of any known job."""
        self.holes: list[Fault] = []
        """Columns that templates print and that are empty in some rows."""

    def of_row(self, table: str, row: Row | None, path: DocPath, message: str) -> Fault | None:
        """Note a fault of a row, and return it; None where it fails the whole plan."""
        if row is None:
            raise ValueError("a fault of a row needs the row")
        if self._strict is not None:
            self._strict.of_row(table, row, path, message)
            return None
        self._count(row.number)
        return self._faults.of_row(table, row, path, message)

    def of_table(self, fault: RowsFault) -> Fault | None:
        """Note a row that a reader could not read, and return its fault; None as above."""
        if self._strict is not None:
            self._strict.of_table(fault)
            return None
        self._count((fault.line, fault.path))
        return self._faults.of_table(fault)

    def _count(self, row: Hashable) -> None:
        if row != self._last:
            self._last = row
            self.at_fault += 1

    def all(self) -> list[Fault]:
        """Each different fault, with the number of rows that share it; a hundred at most."""
        return self._faults.all()


def most_rows_at_fault(places: Places, rows: int, at_fault: int) -> Fault | None:
    """Return the fault of a manifest of which more than half of the rows are at fault."""
    if at_fault * 2 <= rows:
        return None
    return places.fault(
        ("rows",),
        f"{at_fault:,} of {rows:,} rows are at fault, more than half, so the table or the manifest"
        " is; nothing was changed",
    )


class Warnings:
    """What is told of jobs that are planned: each message once, where it was first met."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._met: dict[str, DocPath] = {}
        self._jobs: Counter[str] = Counter()

    def add(self, path: DocPath, message: str) -> None:
        """Count a warning of one job."""
        if message not in self._met:
            if len(self._met) >= _MAX_WARNINGS:
                path, message = (), f"over {_MAX_WARNINGS} warnings; others are not shown"
            self._met[message] = path
        self._jobs[message] += 1

    def all(self) -> list[Fault]:
        """Each different warning, with the number of jobs that it is about."""
        return [
            self._places.fault(path, f"{message} ({jobs:,} {'job' if jobs == 1 else 'jobs'})")
            for message, path in self._met.items()
            if (jobs := self._jobs[message])
        ]
