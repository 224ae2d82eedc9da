"""Lines: the rows and explicit jobs that job templates are applied to."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from batchgen.manifest.loader import DocPath
from batchgen.manifest.model import JobEntry
from batchgen.manifest.table import Row, normal_names
from batchgen.manifest.template import present
from batchgen.planning.faults import Faults

_NOTHING: Final[Mapping[str, object]] = MappingProxyType({})


class Line(NamedTuple):
    """A row of a table, or the values of an explicit job."""

    source: str
    values: Mapping[str, object] = _NOTHING
    """By normal name, with nulls replaced; see `present`."""
    row: Row | None = None
    given: Mapping[str, object] = _NOTHING
    """The values of an explicit job by the names in the manifest."""

    @property
    def raw(self) -> Mapping[str, object]:
        """The values by the names in the table or the manifest."""
        return self.given if self.row is None else self.row.raw


def explicit_line(entry: JobEntry, at: DocPath, source: str, faults: Faults) -> Line | None:
    """Return the line of an explicit job. Return None after reporting names that collide."""
    raw = entry.values or {}
    try:
        values = dict(zip(normal_names(list(raw)), raw.values(), strict=True))
    except ValueError as error:
        faults.of_manifest((*at, "values"), str(error))
        return None
    return Line(source, present(values), given=raw)
