"""Errors and warnings of a plan. Equal ones are kept once, with their number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Final

from batchgen.errors import Fault
from batchgen.job import ROW_REASON
from batchgen.manifest.loader import DocPath, Places, show_path
from batchgen.manifest.table import Reading, Row, RowsFault
from batchgen.text import counted

_MAX_WARNINGS: Final = 100


class TooManyFaults(Exception):
    """The limit of different errors is reached, so planning stops."""


class Faults:
    """The errors found so far. Errors that many rows share are kept once, with their number.

    Beyond ``limit`` different errors it raises TooManyFaults, or with ``drop`` discards them.
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
        """Add an error at a place of the manifest. Raises TooManyFaults."""
        if (path, message) not in self._first:
            self._add((path, message), self._places.fault(path, message))

    def add(self, fault: Fault) -> None:
        """Add an error whose line is known already. Raises TooManyFaults."""
        self._add((fault.path, fault.message), fault)

    def of_row(self, table: str, row: Row, path: DocPath, message: str) -> Fault:
        """Add an error of a row that a template was applied to. Raises TooManyFaults."""
        shown = show_path(path) if row.line else f"row {row.number}: {show_path(path)}"
        return self._of_table((table, path, message), row.number, (table, row.line, shown, message))

    def of_table(self, fault: RowsFault) -> Fault:
        """Add an error that the reader of a table found. Raises TooManyFaults."""
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
        """Return whether a kind of error is new; otherwise count this row."""
        if (seen := self._rows.get(kind)) is None:
            self._rows[kind] = _Rows(row)
            return True
        if seen.last != row:  # several jobs of one row count once
            seen.last = row
            seen.more += 1
        return False

    def _add(self, kind: Hashable, fault: Fault) -> None:
        if len(self._first) >= self._limit:
            raise TooManyFaults
        self._first[kind] = fault

    def add_truncation_note(self) -> None:
        """Add a final error saying that planning stopped early."""
        message = f"more than {self._limit} errors; the rest was not checked"
        self._first["stopped"] = self._places.fault((), message)

    def all(self) -> list[Fault]:
        """Return each different error with the number of rows that share it."""
        return [
            replace(fault, message=f"{fault.message} (and {_counted(self._rows[kind].more)})")
            if kind in self._rows and self._rows[kind].more
            else fault
            for kind, fault in self._first.items()
        ]


@dataclass(slots=True)
class _Rows:
    """The number of rows with an error, beyond the first."""

    last: Hashable
    more: int = 0


def _counted(rows: int) -> str:
    return f"{rows:,} more row" if rows == 1 else f"{rows:,} more rows"


def row_reason(fault: Fault) -> str:
    """Return the failure reason of a job whose row has this error."""
    return f"{ROW_REASON}: {fault}"


class RowFaults:
    """Errors of single rows. Each fails only the jobs of its row, unless most rows have one."""

    def __init__(self, faults: Faults, places: Places, *, strict: bool) -> None:
        self._strict = faults if strict else None
        """Receives the errors if each of them fails the whole plan; else None."""
        self._faults = Faults(places, _MAX_WARNINGS, drop=True)
        self._last: Hashable = None
        self.rows = 0
        """Number of rows read."""
        self.at_fault = 0
        """Number of rows with an error."""
        self.has_unknown_keys = False
        """Whether a row with an error has no key. It may be any known job, so none is retired."""
        self.left_out = 0
        """Number of rows for which ``where`` is false."""
        self.are_rows_read = False
        """Whether rows were read; they are not if the manifest has an error."""
        self.reading: Reading | None = None
        """How the table is read; None if it was not opened."""
        self.empty_columns: list[Fault] = []
        """Warnings about printed columns that are empty in some rows."""
        self._places = places

    def of_row(self, table: str, row: Row | None, path: DocPath, message: str) -> Fault | None:
        """Add an error of a row and return it; None if it fails the whole plan."""
        if row is None:
            raise ValueError("an error of a row needs the row")
        if self._strict is not None:
            self._strict.of_row(table, row, path, message)
            return None
        self._count(row.number)
        return self._faults.of_row(table, row, path, message)

    def of_table(self, fault: RowsFault) -> Fault | None:
        """Add the error of an unreadable row and return it; None if it fails the whole plan."""
        if self._strict is not None:
            self._strict.of_table(fault)
            return None
        self._count((fault.line, fault.path))
        return self._faults.of_table(fault)

    def notices(self) -> list[Fault]:
        """Return what the reader of the table found worth knowing."""
        found = [] if self.reading is None else self.reading.notices
        return [
            replace(self._places.fault_at(one.line, 0, (), one.message), file=one.file)
            for one in found
        ]

    def summary(self) -> str | None:
        """Return how the table was read, in one line; None if it was not opened."""
        reading = self.reading
        if reading is None:
            return None
        parts = [reading.layout, reading.encoding]
        if reading.columns is not None and not reading.is_list:
            parts.append(counted(len(reading.columns.raw), "column"))
        if self.are_rows_read:
            parts.append(counted(self.rows + self.left_out, "row"))
        if self.left_out:
            parts.append(f"{self.left_out:,} left out by where")
        return f"{reading.table}: {', '.join(filter(None, parts))}"

    def _count(self, row: Hashable) -> None:
        if row != self._last:
            self._last = row
            self.at_fault += 1

    def all(self) -> list[Fault]:
        """Return at most 100 different errors with the number of rows that share each."""
        return self._faults.all()


def most_rows_at_fault(places: Places, rows: int, at_fault: int) -> Fault | None:
    """Return the error for a table in which more than half of the rows have one; else None."""
    if at_fault * 2 <= rows:
        return None
    return places.fault(
        ("rows",),
        f"{at_fault:,} of {rows:,} rows have errors, more than half; fix the table or the manifest."
        " Nothing was changed",
    )


class Warnings:
    """Warnings about planned jobs: each message once, at its first place."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._met: dict[str, DocPath] = {}
        self._jobs: Counter[str] = Counter()

    def add(self, path: DocPath, message: str) -> None:
        """Count a warning about one job."""
        if message not in self._met:
            if len(self._met) >= _MAX_WARNINGS:
                path, message = (), f"more than {_MAX_WARNINGS} warnings; the rest is not shown"
            self._met[message] = path
        self._jobs[message] += 1

    def all(self) -> list[Fault]:
        """Return each different warning with the number of jobs it applies to."""
        return [
            self._places.fault(path, f"{message} ({jobs:,} {'job' if jobs == 1 else 'jobs'})")
            for message, path in self._met.items()
            if (jobs := self._jobs[message])
        ]
