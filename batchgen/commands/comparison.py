"""`batchgen gallery --compare`: arrange the images of a batch by axes of its matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from batchgen.errors import SettingsError
from batchgen.ledger.batches import BatchRow
from batchgen.ledger.gallery import GalleryImage
from batchgen.review.comparison import Comparison, NoComparison, compare, known_axes
from batchgen.review.matrix import Matrix


def comparison(
    ledger: Path,
    batch: BatchRow,
    images: Sequence[GalleryImage],
    axes: Sequence[str],
    unfinished: Mapping[str, str],
) -> Comparison:
    """Return the grid of the images; ``unfinished`` has the states of jobs without an image.

    Raises SettingsError for an unknown axis, and for a table that is not there.
    """
    matrix = Matrix(ledger, batch)
    try:
        known = known_axes(matrix.axes, axes)
        cells = matrix.cells({image.key for image in images} | unfinished.keys())
        return compare(images, cells, known, unfinished)
    except NoComparison as error:
        raise SettingsError(f"--compare: {error}") from error
