"""The comparison grid of the review page: its rows and columns, and what its cells hold now."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from batchgen.errors import ManifestError
from batchgen.job import JobState
from batchgen.ledger.batches import find_batch
from batchgen.ledger.compared import (
    ComparedImage,
    JobNote,
    compared_images,
    job_notes,
    job_prompts,
    plan_number,
)
from batchgen.ledger.review import ImageFilter
from batchgen.planning.job_context import Cell
from batchgen.review.batch import ReviewBatch
from batchgen.review.comparison import (
    Arrangement,
    arrange,
    common_text,
    heads,
    known_axes,
    usual_axes,
)
from batchgen.review.matrix import Matrix

_LETTERS: Final = {
    JobState.PENDING: "p",
    JobState.SENDING: "s",
    JobState.PAID: "$",
    JobState.DONE: "d",
    JobState.FAILED: "f",
    JobState.BLOCKED: "b",
    JobState.UNCERTAIN: "u",
}
_KEPT: Final = 8


@dataclass(frozen=True, slots=True)
class _Planned:
    """The matrix of one plan of the batch."""

    plan: int
    axes: Sequence[str]
    cells: Mapping[str, Cell]


class ComparedBatch:
    """Arranges the images of one batch. For threads."""

    def __init__(self, batch: ReviewBatch) -> None:
        self._batch = batch
        self._lock = threading.Lock()
        self._planned: _Planned | None = None
        self._arranged = dict[tuple[int, str], Arrangement]()
        try:
            self.axes: Sequence[str] = Matrix(batch.ledger, batch.row).axes
        except ManifestError:  # written for another release; its images can still be reviewed
            self.axes = ()

    def rows(self, wanted: Sequence[str]) -> dict[str, Any]:
        """Return the rows and columns for some axes, by default the usual ones.

        Raises NoComparison for an unknown axis, too many columns, and a table that is not there.
        """
        planned, arranged = self._arrange(wanted)
        batch = self._batch
        prompts = batch.read(job_prompts, batch.id, batch.view.chosen.only)
        return {
            "version": _version(planned, arranged),
            "all_axes": list(planned.axes),
            "axes": list(arranged.axes),
            "columns": [list(one) for one in arranged.columns],
            "heads": heads(arranged.columns),
            "rows": [
                {
                    "source": row.source,
                    "others": row.others,
                    "prompt": common_text(
                        [prompts.get(key, "") for own in row.keys for key in own]
                    ),
                }
                for row in arranged.rows
            ],
        }

    def cells(self, wanted: Sequence[str], chosen: ImageFilter) -> dict[str, Any]:
        """Return what the cells hold of the images that pass a filter. Raises as `rows` does."""
        planned, arranged = self._arrange(wanted)
        batch = self._batch
        images = batch.read(compared_images, batch.id, chosen)
        notes = batch.read(job_notes, batch.id, batch.view.chosen.only)
        return {"version": _version(planned, arranged), **contents(arranged, images, notes)}

    def _arrange(self, wanted: Sequence[str]) -> tuple[_Planned, Arrangement]:
        with self._lock:
            planned = self._plan()
            axes = known_axes(planned.axes, wanted) or usual_axes(planned.cells, planned.axes)
            place = (planned.plan, ",".join(axes))
            found = self._arranged.pop(place, None) or arrange(planned.cells, axes)
            self._arranged[place] = found
            while len(self._arranged) > _KEPT:
                del self._arranged[next(iter(self._arranged))]
            return planned, found

    def _plan(self) -> _Planned:
        """Return the matrix of the newest plan; its table is read once."""
        batch = self._batch
        plan = batch.read(plan_number, batch.id)
        if self._planned is None or self._planned.plan != plan:
            matrix = Matrix(batch.ledger, batch.read(find_batch, batch.row.name))
            known_axes(matrix.axes, ())
            keys = batch.read(job_notes, batch.id, batch.view.chosen.only).keys()
            self._planned = _Planned(plan, matrix.axes, matrix.cells(keys))
        return self._planned


def _version(planned: _Planned, arranged: Arrangement) -> str:
    return f"{planned.plan}:{','.join(arranged.axes)}"


def contents(
    arranged: Arrangement, images: Sequence[ComparedImage], notes: Mapping[str, JobNote]
) -> dict[str, Any]:
    """Return what each cell holds, row by row: its images, and the states of its jobs."""
    by_key = dict[str, list[ComparedImage]]()
    for image in images:
        by_key.setdefault(image.key, []).append(image)
    ids, states, reasons, letters = list[list[int]](), list[str](), dict[int, str](), list[str]()
    columns: list[list[ComparedImage]] = [[] for _ in arranged.columns]
    for row in arranged.rows:
        for own, column in zip(row.keys, columns, strict=True):
            held = [image for key in own for image in by_key.get(key, ())]
            known = [notes[key] for key in own if key in notes]
            if reason := _reason(known):
                reasons[len(ids)] = reason
            ids.append([image.id for image in held])
            letters += [image.letter for image in held]
            states.append("".join(_LETTERS[note.state] for note in known))
            column += held
    return {
        "images": ids,
        "decisions": "".join(letters),
        "states": states,
        "reasons": reasons,
        "possible": _possible(arranged, notes),
        "totals": [_total(one) for one in columns],
        "outside": len(images) - sum(map(len, columns)),
    }


def _reason(notes: Sequence[JobNote]) -> str:
    return "; ".join(dict.fromkeys(note.reason for note in notes if note.reason))


def _possible(arranged: Arrangement, notes: Mapping[str, JobNote]) -> dict[int, int]:
    """Return what uncertain requests may have cost, by cell."""
    found, cell = dict[int, int](), 0
    for row in arranged.rows:
        for own in row.keys:
            uncertain = [
                notes[key].price
                for key in own
                if key in notes and notes[key].state is JobState.UNCERTAIN
            ]
            if uncertain:
                found[cell] = sum(uncertain)
            cell += 1
    return found


def _total(images: Sequence[ComparedImage]) -> dict[str, Any]:
    """Return the mean cost and the median time of the images of a column."""
    seconds = [one.seconds for one in images if one.seconds is not None]
    return {
        "images": len(images),
        "cost": sum(one.cost for one in images) / len(images) if images else None,
        "seconds": median(seconds) if seconds else None,
    }
