"""Make jobs of the usual rows of text tables, whose cells are put into templates as they are.

Other rows are left to `batchgen.planning.expansion`, which would make the same jobs of these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Final, NamedTuple, TypeAlias

from batchgen.job import PlannedJob
from batchgen.manifest.loader import DocPath
from batchgen.manifest.sandbox import MAX_CHARS
from batchgen.manifest.table import ColumnNames, Row
from batchgen.manifest.template import Template
from batchgen.planning.job_context import Context, OptionSet
from batchgen.planning.job_template import JobTemplate
from batchgen.planning.naming import KEY_COLUMNS, ordinary_path, prompt_key

Fill: TypeAlias = Callable[[Sequence[object]], str]
"""Returns the text of a template from the cells of a row; empty if a cell it prints is blank."""

_OVERWRITTEN: Final = frozenset({"key", "row"})
"""Names under which templates see something else than the column of this name."""
_NEW_JOB: Final[Callable[[tuple[object, ...]], PlannedJob]] = partial(tuple.__new__, PlannedJob)
"""Half the time of ``PlannedJob(...)``."""


class _Fills(NamedTuple):
    """What the cells of a row are put into."""

    prompt: Fill
    key: Fill | None = None
    """None if the key is made of the prompt."""
    path: Fill | None = None
    """Takes the key after the cells; None if the path is the key."""


class PlainRows:
    """Maker of the jobs of plain rows: no fault, an ordinary key and path, nothing but text."""

    __slots__ = ("_accepted_chars", "_fills", "_options", "_warn", "_warnings")

    def __init__(self, fills: _Fills, options: OptionSet, context: Context, at: DocPath) -> None:
        self._fills = fills
        self._options = options
        self._accepted_chars = context.accepted_chars
        self._warn = context.warnings.add
        self._warnings = [((*at, *found.place), found.message) for found in options.objections]

    def job(self, row: Row) -> PlannedJob | None:
        """Return the job of a row; None if the row needs a closer look."""
        _, _, source, _, cells = row
        fill_prompt, fill_key, fill_path = self._fills
        kind = self._options.kind
        text = fill_prompt(cells)
        prompt = text.strip()
        if not prompt or len(prompt) > self._accepted_chars.get(kind.model, 0):
            return None
        if len(text) > MAX_CHARS or not (text.isascii() or _is_valid(text)):
            return None
        key = prompt_key(prompt, {}) if fill_key is None else fill_key(cells)
        path = ordinary_path(key)
        if path is not None and fill_path is not None:
            path = ordinary_path(fill_path((*cells, key)))
        if path is None:
            return None
        for place, message in self._warnings:
            self._warn(place, message)
        fingerprint = self._options.fingerprints.of(prompt)
        return _NEW_JOB((kind, key, fingerprint, prompt, path, source, (), None, None))


def plain_rows(
    template: JobTemplate,
    stem: Template | None,
    columns: ColumnNames,
    options: OptionSet | None,
    context: Context,
) -> PlainRows | None:
    """Return the maker for the plain rows of a text table with these columns.

    None if no row is plain, because some template needs more than cells. ``stem`` is that of the
    path, or None; ``options`` are those of all jobs, None if they differ.
    """
    is_special = template.images or template.mask or template.matrix or template.count > 1
    if is_special or template.broken or context.amendments is not None or options is None:
        return None
    if any(objection.fatal for objection in options.objections):
        return None
    fills = None if stem is None else _fills(template, stem, columns)
    return None if fills is None else PlainRows(fills, options, context, template.at)


def _fills(template: JobTemplate, stem: Template, columns: ColumnNames) -> _Fills | None:
    at = {name: number for number, name in enumerate(columns.normal) if name}
    known = {name: number for name, number in at.items() if name not in _OVERWRITTEN}
    prompt = _fill(template.prompt.template, known) if template.prompt else None
    path = _fill(stem, {**known, "key": len(columns.normal)})
    if template.key is not None:
        key = _fill(template.key.template, known)
    else:
        key = next((itemgetter(at[name]) for name in KEY_COLUMNS if name in at), None)
    if prompt is None or path is None or (key is None and template.key is not None):
        return None
    is_key = stem.filling == ("%s", ("key",))
    return _Fills(prompt, key, None if is_key else path)


def _fill(template: Template, at: Mapping[str, int]) -> Fill | None:
    """Return the fill of a template, by the positions of the columns."""
    if template.filling is None:
        return None
    text, names = template.filling
    if not at.keys() >= {*names}:
        return None
    pick = itemgetter(*(at[name] for name in names))
    if text == "%s":
        return pick  # a blank cell is a blank text
    if len(names) == 1:

        def fill_one(cells: Sequence[object]) -> str:
            cell: str = pick(cells)
            return text % cell if cell and not cell.isspace() else ""

        return fill_one

    def fill(cells: Sequence[object]) -> str:
        found: tuple[str, ...] = pick(cells)
        for cell in found:
            if not cell or cell.isspace():
                return ""
        return text % found

    return fill


def _is_valid(text: str) -> bool:
    """Return whether a text has no unpaired surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
