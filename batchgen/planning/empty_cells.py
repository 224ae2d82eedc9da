"""Find columns that templates print but that are empty in many rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Final

from batchgen.errors import Fault
from batchgen.manifest.fill_down import is_empty
from batchgen.manifest.loader import DocPath, Places
from batchgen.manifest.model import FileRows, SqliteRows
from batchgen.manifest.printed_variables import printed_names
from batchgen.manifest.rows import holds_text
from batchgen.manifest.table import normal_name
from batchgen.planning.job_template import JobTemplate
from batchgen.planning.line import Line
from batchgen.text import known_names_hint

_ROWS_SHOWN: Final = 3


@dataclass(slots=True)
class _EmptyColumn:
    rows: int
    sources: list[str]


class EmptyCells:
    """Counter of the rows in which each printed column is empty."""

    def __init__(self, template: JobTemplate, source: str | FileRows | SqliteRows) -> None:
        allowed = getattr(source, "allow_empty", None) or ()
        ignored = {normal_name(name) for name in allowed} | {"index", "key", "row"}
        self._places: dict[str, DocPath] = {}
        for part in (template.prompt, template.key, *template.images):
            if part is not None and part.template.constant is None:
                for name in sorted(printed_names(part.template.text) - ignored):
                    self._places.setdefault(name, part.place)
        self._names = tuple(self._places)
        self._pick = itemgetter(*self._names, *self._names[:1]) if self._names else None
        self._is_text = holds_text(source)
        self._empty: dict[str, _EmptyColumn] = {}

    def look(self, line: Line) -> None:
        """Count the empty cells of a row that becomes a job."""
        values = line.values
        if self._pick is None:
            return
        if self._is_text:  # fast path: most rows have no empty cell
            try:
                for value in self._pick(values):
                    if not value or value.isspace():
                        break
                else:
                    return
            except KeyError:
                pass  # not a column of the table
        for name in self._names:
            value = values.get(name, True)
            if (not value or (value.__class__ is str and value.isspace())) and is_empty(value):
                column = self._empty.setdefault(name, _EmptyColumn(0, []))
                column.rows += 1
                if column.rows <= _ROWS_SHOWN:
                    column.sources.append(line.source)

    def found(self, places: Places, rows: int) -> tuple[list[Fault], list[Fault]]:
        """Return warnings, and errors for columns that are empty in more than half of the rows."""
        warnings, faults = list[Fault](), list[Fault]()
        for name, column in self._empty.items():
            more = ", ..." if column.rows > len(column.sources) else ""
            fault = places.fault(
                self._places[name],
                f"{{{{ {name} }}}} is empty in {column.rows:,} of {rows:,}"
                f" {'row' if rows == 1 else 'rows'} ({', '.join(column.sources)}{more}); fill it"
                f" from the row above with rows: {{fill: [{name}]}}, handle it in the template with"
                f" {{{{ {name} or '...' }}}}, or allow it with rows: {{allow_empty: [{name}]}}",
            )
            (faults if column.rows * 2 > rows else warnings).append(fault)
        return warnings, faults


class NamedColumns:
    """Checker that the columns named in the options of ``rows`` exist in the table."""

    def __init__(self, source: str | FileRows | SqliteRows) -> None:
        self._wanted: dict[str, tuple[DocPath, str]] = {}
        self._known: Sequence[str] = ()
        if isinstance(source, str):
            return
        for option in ("fill", "allow_empty"):
            for number, name in enumerate(getattr(source, option) or ()):
                self._wanted[normal_name(name)] = (("rows", option, number), name)
        if source.fill_by:
            self._wanted[normal_name(source.fill_by)] = (("rows", "fill_by"), source.fill_by)

    def look(self, columns: Collection[str]) -> None:
        """Compare the names with the columns of a row or of the table."""
        if self._wanted:
            self._known = [*columns]
            self._wanted = {
                name: place for name, place in self._wanted.items() if name not in columns
            }

    def unknown(self) -> Mapping[DocPath, str]:
        """Return an error message per name that no row has, by its place. Empty without rows."""
        if not self._known:
            return {}
        return {
            place: f"no column {name!r}; {known_names_hint(normal, self._known)}"
            for normal, (place, name) in self._wanted.items()
        }
