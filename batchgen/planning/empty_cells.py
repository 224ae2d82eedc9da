"""Finds prompts with holes: columns that templates print and that are empty in many rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Final

from batchgen.errors import Fault
from batchgen.manifest.fill_down import is_empty
from batchgen.manifest.loader import DocPath, Places
from batchgen.manifest.model import FileRows, SqliteRows
from batchgen.manifest.printed_variables import printed_names
from batchgen.manifest.rows import holds_text
from batchgen.manifest.table import Row, normal_name
from batchgen.planning.job_template import JobTemplate
from batchgen.planning.line import Line
from batchgen.text import known_names_hint

_ROWS_SHOWN: Final = 3


@dataclass(slots=True)
class _Hole:
    rows: int
    sources: list[str]


class EmptyCells:
    """Counts, for each column that the template prints, the rows in which it is empty."""

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
        self._holes: dict[str, _Hole] = {}

    def look(self, line: Line) -> None:
        """Take note of a row that becomes a job."""
        values = line.values
        if self._pick is None:
            return
        if self._is_text:  # most rows have no hole, and must cost next to nothing
            try:
                for value in self._pick(values):
                    if not value or value.isspace():
                        break
                else:
                    return
            except KeyError:
                pass  # a name that is no column of the table
        for name in self._names:
            value = values.get(name, True)
            if (not value or (value.__class__ is str and value.isspace())) and is_empty(value):
                hole = self._holes.setdefault(name, _Hole(0, []))
                hole.rows += 1
                if hole.rows <= _ROWS_SHOWN:
                    hole.sources.append(line.source)

    def found(self, places: Places, rows: int) -> tuple[list[Fault], list[Fault]]:
        """Return warnings, and the faults of columns that are empty in more than half the rows."""
        warnings, faults = list[Fault](), list[Fault]()
        for name, hole in self._holes.items():
            more = ", ..." if hole.rows > len(hole.sources) else ""
            fault = places.fault(
                self._places[name],
                f"{{{{ {name} }}}} is empty in {hole.rows:,} of {rows:,}"
                f" {'row' if rows == 1 else 'rows'} ({', '.join(hole.sources)}{more}); fill it from"
                f" the row above with rows: {{fill: [{name}]}}, handle it in the template with"
                f" {{{{ {name} or '...' }}}}, or allow it with rows: {{allow_empty: [{name}]}}",
            )
            (faults if hole.rows * 2 > rows else warnings).append(fault)
        return warnings, faults


class NamedColumns:
    """Checks that the columns which ``rows`` names in its options are in the table."""

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

    def look(self, row: Row) -> None:
        """Take note of a row's columns."""
        if self._wanted:
            self._known = [*row.values]
            self._wanted = {
                name: place for name, place in self._wanted.items() if name not in row.values
            }

    def unknown(self) -> Mapping[DocPath, str]:
        """What is wrong with each name that no row has, by its place; nothing without any row."""
        if not self._known:
            return {}
        return {
            place: f"no column {name!r}; {known_names_hint(normal, self._known)}"
            for normal, (place, name) in self._wanted.items()
        }
