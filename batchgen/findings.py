"""What is found wrong or worth a word while a plan is made: alike findings kept once, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Final

from batchgen.errors import Fault
from batchgen.manifest.lines import RowsFault
from batchgen.manifest.loader import DocPath, Places, show_path
from batchgen.manifest.rows import Row

_MAX_WARNINGS: Final = 100


class TooManyFaults(Exception):
    """Nothing is gained by looking on."""


class Faults:
    """The faults found so far; alike ones of many rows are kept once, with their number."""

    def __init__(self, places: Places, limit: int) -> None:
        self._places = places
        self._limit = limit
        self._first: dict[Hashable, Fault] = {}
        self._rows: dict[Hashable, _Rows] = {}

    def __len__(self) -> int:
        return len(self._first)

    def of_manifest(self, path: DocPath, message: str) -> None:
        """What is wrong at a place of the manifest. Raises TooManyFaults."""
        if (path, message) not in self._first:
            self._add((path, message), self._places.fault(path, message))

    def of_row(self, table: str, row: Row, path: DocPath, message: str) -> None:
        """What is wrong with a row that a template is applied to. Raises TooManyFaults."""
        kind = (table, path, message)
        if self._is_new(kind, row.number):
            shown = show_path(path) if row.line else f"row {row.number}: {show_path(path)}"
            self._add_of_table(kind, table, row.line, shown, message)

    def of_table(self, fault: RowsFault) -> None:
        """What a reader of rows found. Raises TooManyFaults."""
        kind = (fault.file, fault.message)
        if self._is_new(kind, (fault.line, fault.path)):
            self._add_of_table(kind, fault.file, fault.line, fault.path, fault.message)

    def _is_new(self, kind: Hashable, row: Hashable) -> bool:
        """Whether a kind of fault was never seen; if it was, this row is counted."""
        if (seen := self._rows.get(kind)) is None:
            self._rows[kind] = _Rows(row)
            return True
        if seen.last != row:  # jobs of one row that fail alike are no news
            seen.last = row
            seen.more += 1
        return False

    def _add_of_table(self, kind: Hashable, table: str, line: int, path: str, message: str) -> None:
        fault = self._places.fault_at(line, 0, (), message)
        self._add(kind, replace(fault, file=table, path=path))

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
