"""Find the names in templates that no column or variable has, before a row is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

from batchgen.manifest.loader import DocPath
from batchgen.manifest.required_names import RequiredNames
from batchgen.manifest.sandbox import GLOBALS
from batchgen.manifest.table import ColumnNames, normal_name
from batchgen.manifest.template import Expression
from batchgen.planning.job_template import JobTemplate
from batchgen.planning.line import Line
from batchgen.planning.naming import KEY_COLUMNS
from batchgen.text import known_names_hint

_OWN: Final = ("index", "name", "model", "row")
"""Variables of every template."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a table, or the values of an explicit job."""

    normal: Sequence[str]
    raw: Sequence[str]
    ambiguous: Mapping[str, Sequence[str]]
    """Names of several columns, with the names that these have instead."""

    @classmethod
    def of_table(cls, names: ColumnNames) -> Self:
        """Return the columns of a table."""
        return cls([name for name in names.normal if name], names.raw, names.ambiguous)

    @classmethod
    def of_line(cls, line: Line) -> Self:
        """Return the values of an explicit job."""
        return cls(list(line.values), list(line.raw), {})

    def missing(self, needed: RequiredNames, also: Sequence[str]) -> Iterator[str]:
        """Yield an error for each needed name that is not a column, nor one of ``also``."""
        for name in sorted(needed.variables - {*self.normal, *also, *GLOBALS}):
            yield self._message(name, [*also, *self.normal])
        raw = [*self.raw, *also]
        for name in sorted(needed.row - {*raw}):
            yield self._message(name, raw)

    def _message(self, name: str, known: Sequence[str]) -> str:
        if instead := self.ambiguous.get(name):
            expected = ", ".join(instead)
            return f"{len(instead)} columns are called {name!r}; expected one of {expected}"
        return f"no column {name!r}; {known_names_hint(name, known)}"


def unknown_names(template: JobTemplate, columns: Columns) -> Iterator[tuple[DocPath, str]]:
    """Yield an error and its place, relative to the job, for each name that does not exist."""
    matrix = list(template.matrix)
    matrix_names = {*map(normal_name, matrix), *matrix}
    own = [*_OWN, *map(normal_name, matrix), *matrix]
    for part in template.parts:
        needed = part.template.required
        if part.of_rows or not any(needed):
            continue
        if part is template.model_part:
            also = [name for name in own if name != "model" or name in matrix_names]
        else:
            also = own if part is template.key else [*own, "key"]
            if any(part is value for value in template.options.values()):
                also = [*also, "omit"]
        for message in columns.missing(needed, [*also, "ext"] if part is template.path else also):
            yield part.place, message


def unknown_in_where(where: Expression, columns: Columns) -> Iterator[str]:
    """Yield an error for each name in ``where`` that does not exist."""
    yield from columns.missing(where.required, _OWN)


def ambiguous_key(template: JobTemplate, columns: Columns) -> str | None:
    """Return the error of a table whose rows take their key from one of several equal columns."""
    if template.key is not None:
        return None
    for name in KEY_COLUMNS:
        if name in columns.normal:
            return None
        if instead := columns.ambiguous.get(name):
            return (
                f"{len(instead)} columns are called {name!r}, so rows have no key; expected a key"
                f" such as key: '{{{{ {instead[0]} }}}}'"
            )
    return None
