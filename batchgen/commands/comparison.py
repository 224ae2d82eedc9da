"""`batchgen gallery --compare`: arrange the images of a batch by axes of its matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from batchgen.errors import ManifestError, SettingsError
from batchgen.ledger.batches import BatchRow
from batchgen.ledger.gallery import GalleryImage
from batchgen.ledger.manifest_paths import manifest_of
from batchgen.manifest.loader import parse_manifest
from batchgen.planning.matrix_cells import matrix_axes, matrix_cells
from batchgen.providers.registry import PROFILES
from batchgen.review.comparison import Comparison, compare, known_axes
from batchgen.session.bucket_tables import with_kept_table
from batchgen.session.directories import references_directory


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
    manifest = manifest_of(ledger, batch)
    loaded = parse_manifest(batch.manifest.encode(), file=manifest.name, path=manifest)
    known = known_axes(matrix_axes(loaded), axes)
    profile = PROFILES.get(batch.provider)
    try:
        cells = matrix_cells(
            with_kept_table(loaded, references_directory(ledger)),
            {image.key for image in images} | unfinished.keys(),
            provider=batch.provider,
            default_model=profile.default_model if profile is not None else "",
        )
    except ManifestError as error:
        raise SettingsError(f"--compare: {error.faults[0]}") from error
    return compare(images, cells, known, unfinished)
