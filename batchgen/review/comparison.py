"""A grid of images: a column for each value of some axes of a matrix, a row for the rest."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final, TypeAlias

from batchgen.errors import SettingsError
from batchgen.ledger.gallery import GalleryImage
from batchgen.manifest.field_types import MatrixValue
from batchgen.manifest.table import normal_name
from batchgen.money import dollars
from batchgen.planning.job_context import Cell
from batchgen.text import counted, duration, known_names_hint

MOST_COLUMNS: Final = 50
_USUAL_COLUMNS: Final = 12
"""Columns that a grid has at most before a person chooses axes."""
_Values: TypeAlias = tuple[str, ...]
_PIECE: Final = re.compile(r"\s*\S+")


class NoComparison(SettingsError):
    """The images cannot be arranged by these axes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrangedRow:
    """Jobs that differ in nothing but the compared values."""

    source: str
    others: str
    """The values of the other axes."""
    keys: Sequence[Sequence[str]]
    """The jobs of each column; several, if a job has variations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    """Jobs by the values of some axes."""

    axes: Sequence[str]
    columns: Sequence[Sequence[str]]
    """The values of each column, one for each axis."""
    rows: Sequence[ArrangedRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class GridCell:
    """The images of a row for one column; several, if a job has variations."""

    images: Sequence[GalleryImage]
    note: str
    """Why the cell is empty, such as ``blocked``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GridRow:
    """The images of a row of the grid."""

    source: str
    others: str
    """The values of the other axes."""
    prompt: str
    """The prompt that all its images share; empty if they differ in it."""
    cells: Sequence[GridCell]

    @property
    def images(self) -> Iterator[GalleryImage]:
        """All images of the row."""
        return (image for cell in self.cells for image in cell.images)


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """The images of a column, summed up."""

    images: str
    cost: str
    """Of one image, on average."""
    seconds: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Images by the values of some axes."""

    axes: Sequence[str]
    columns: Sequence[Sequence[str]]
    """The values of each column, one for each axis."""
    rows: Sequence[GridRow]
    rest: Sequence[GalleryImage]
    """Images that no matrix with these axes makes."""

    @property
    def heads(self) -> list[list[tuple[str, int]]]:
        """See `heads`."""
        return heads(self.columns)

    @property
    def totals(self) -> list[Total]:
        """The average of each column."""
        return [
            _total([image for row in self.rows for image in row.cells[place].images])
            for place in range(len(self.columns))
        ]


def compare(
    images: Sequence[GalleryImage],
    cells: Mapping[str, Cell],
    axes: Sequence[str],
    unfinished: Mapping[str, str],
) -> Comparison:
    """Arrange images in a grid. ``unfinished`` has the states of jobs without an image, by key.

    Rows without an image are left out. ``axes`` are those of `known_axes`. Raises NoComparison for
    too many columns, and if there is nothing to compare.
    """
    by_key = dict[str, list[GalleryImage]]()
    for image in images:
        by_key.setdefault(image.key, []).append(image)
    found = arrange(cells, axes)
    rows = [_row(one, by_key, unfinished) for one in found.rows]
    rows = [one for one in rows if any(one.images)]
    if not rows:
        raise NoComparison(f"no image to show has the axis {axes[0]!r}")
    shown = {image.file.id for row in rows for image in row.images}
    return Comparison(
        axes=axes,
        columns=found.columns,
        rows=rows,
        rest=[image for image in images if image.file.id not in shown],
    )


def arrange(cells: Mapping[str, Cell], axes: Sequence[str]) -> Arrangement:
    """Arrange jobs in a grid, in the order of ``cells``; those without all axes are left out.

    Raises NoComparison for too many columns.
    """
    grid, columns = dict[tuple[str, str], dict[_Values, list[str]]](), dict[_Values, None]()
    for key, cell in cells.items():
        if not cell.values.keys() >= set(axes):
            continue
        others = ", ".join(
            f"{name}: {_text(value)}" for name, value in cell.values.items() if name not in axes
        )
        values = tuple(_text(cell.values[name]) for name in axes)
        row = grid.setdefault((cell.source, others), {})
        row.setdefault(values, []).append(key)
        columns.setdefault(values)
    ordered = _ordered(list(columns))
    if len(ordered) > MOST_COLUMNS:
        raise NoComparison(
            f"{len(ordered):,} columns; expected at most {MOST_COLUMNS}: fewer axes, or"
            " fewer jobs with --only"
        )
    return Arrangement(
        axes=axes,
        columns=ordered,
        rows=[
            ArrangedRow(
                source=source, others=others, keys=[row.get(values, []) for values in ordered]
            )
            for (source, others), row in grid.items()
        ],
    )


def heads(columns: Sequence[Sequence[str]]) -> list[list[tuple[str, int]]]:
    """Return the head rows, one for each axis: texts, and how many columns each spans."""
    found = []
    for depth in range(1, len(columns[0]) + 1 if columns else 1):
        begins = [tuple(column[:depth]) for column in columns]
        found.append([(begin[-1], len(list(same))) for begin, same in groupby(begins)])
    return found


def usual_axes(cells: Mapping[str, Cell], axes: Sequence[str]) -> list[str]:
    """Return the axes to begin with: the first, and others that keep the grid small and whole."""
    chosen = list[str]()
    for name in axes:
        wanted = [*chosen, name]
        having = [one.values for one in cells.values() if one.values.keys() >= set(wanted)]
        columns = {tuple(_text(values[axis]) for axis in wanted) for values in having}
        before = sum(1 for one in cells.values() if one.values.keys() >= set(chosen))
        is_whole = len(having) == before and len(columns) <= _USUAL_COLUMNS
        if having and (is_whole or not chosen):
            chosen = wanted
    return chosen or list(axes[:1])


def common_text(texts: Sequence[str]) -> str:
    """Return the words at the start and the end that all texts share, with … for the others."""
    if len(set(texts)) <= 1:
        return texts[0] if texts else ""
    pieces = [_PIECE.findall(text) for text in texts]
    head = _shared(pieces)
    tail = _shared([one[len(head) :][::-1] for one in pieces])[::-1]
    if not head and not tail:
        return ""
    return f"{''.join(head)} …{''.join(tail)}".strip()


def _shared(texts: Sequence[Sequence[str]]) -> list[str]:
    """Return the pieces that all texts begin with."""
    found = list[str]()
    for pieces in zip(*texts, strict=False):
        if len(set(pieces)) > 1:
            break
        found.append(pieces[0])
    return found


def _row(
    row: ArrangedRow,
    by_key: Mapping[str, Sequence[GalleryImage]],
    unfinished: Mapping[str, str],
) -> GridRow:
    cells = []
    for own in row.keys:
        images = [image for key in own for image in by_key.get(key, ())]
        states = {unfinished[key]: None for key in own if key in unfinished}
        cells.append(GridCell(images=images, note=", ".join(states) if not images else ""))
    prompts = {image.prompt for cell in cells for image in cell.images}
    return GridRow(
        source=row.source,
        others=row.others,
        prompt=prompts.pop() if len(prompts) == 1 else "",
        cells=cells,
    )


def known_axes(existing: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Return the wanted axes as the manifest spells them. Raises NoComparison for another one."""
    known = {normal_name(name): name for name in existing}
    if not known:
        raise NoComparison("the manifest has no matrix; expected one to compare by")
    for name in wanted:
        if normal_name(name) not in known:
            hint = known_names_hint(name, known.values())
            raise NoComparison(f"the matrix has no axis {name!r}; {hint}")
    return list(dict.fromkeys(known[normal_name(name)] for name in wanted))


def _ordered(columns: list[_Values]) -> list[_Values]:
    """Return the columns with equal first values next to each other, in order of appearance."""
    ranks = [
        {value: rank for rank, value in enumerate(dict.fromkeys(values))}
        for values in zip(*columns, strict=True)
    ]
    return sorted(columns, key=lambda one: [ranks[n][value] for n, value in enumerate(one)])


def _text(value: MatrixValue) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) or "(empty)"


def _total(images: Sequence[GalleryImage]) -> Total:
    number = len(images)
    if not number:
        return Total(images="no image", cost="", seconds="")
    cost = round(sum(image.cost for image in images) / number, -1)
    seconds = sum(image.seconds for image in images) / number
    return Total(
        images=counted(number, "image"),
        cost=dollars(int(cost)),
        seconds=duration(seconds),
    )
