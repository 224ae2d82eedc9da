"""A grid of images: a column for each value of some axes of a matrix, a row for the rest."""

from __future__ import annotations

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
_Values: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GridCell:
    """The images of a row for one column; several, if a job has variations."""

    images: Sequence[GalleryImage]
    note: str
    """Why the cell is empty, such as ``blocked``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GridRow:
    """Jobs that differ in nothing but the compared values."""

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
        """The head rows, one for each axis: texts, and how many columns each spans."""
        found = []
        for depth in range(1, len(self.axes) + 1):
            begins = [tuple(column[:depth]) for column in self.columns]
            found.append([(begin[-1], len(list(same))) for begin, same in groupby(begins)])
        return found

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

    Rows without an image are left out. ``axes`` are those of `known_axes`. Raises SettingsError for
    too many columns, and if there is nothing to compare.
    """
    by_key = dict[str, list[GalleryImage]]()
    for image in images:
        by_key.setdefault(image.key, []).append(image)
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
        raise SettingsError(
            f"--compare: {len(ordered):,} columns; expected at most {MOST_COLUMNS}: fewer axes, or"
            " fewer jobs with --only"
        )
    rows = [
        _row(source, others, [row.get(values, []) for values in ordered], by_key, unfinished)
        for (source, others), row in grid.items()
    ]
    rows = [one for one in rows if any(one.images)]
    if not rows:
        raise SettingsError(f"--compare: no image to show has the axis {axes[0]!r}")
    shown = {image.file.id for row in rows for image in row.images}
    return Comparison(
        axes=axes,
        columns=ordered,
        rows=rows,
        rest=[image for image in images if image.file.id not in shown],
    )


def _row(
    source: str,
    others: str,
    keys: Sequence[Sequence[str]],
    by_key: Mapping[str, Sequence[GalleryImage]],
    unfinished: Mapping[str, str],
) -> GridRow:
    cells = []
    for own in keys:
        images = [image for key in own for image in by_key.get(key, ())]
        states = {unfinished[key]: None for key in own if key in unfinished}
        cells.append(GridCell(images=images, note=", ".join(states) if not images else ""))
    prompts = {image.prompt for cell in cells for image in cell.images}
    return GridRow(
        source=source,
        others=others,
        prompt=prompts.pop() if len(prompts) == 1 else "",
        cells=cells,
    )


def known_axes(existing: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Return the wanted axes as the manifest spells them. Raises SettingsError for another one."""
    known = {normal_name(name): name for name in existing}
    if not known:
        raise SettingsError("--compare: the manifest has no matrix; expected one to compare by")
    for name in wanted:
        if normal_name(name) not in known:
            hint = known_names_hint(name, known.values())
            raise SettingsError(f"--compare: the matrix has no axis {name!r}; {hint}")
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
