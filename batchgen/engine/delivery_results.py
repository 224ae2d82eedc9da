"""What delivering one image of a paid job can end in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from batchgen.engine.compressed_response import Compressed
from batchgen.engine.verification import (
    Embedded,
    defect_of_replacement,
    embed_metadata,
    saved_image,
)
from batchgen.engine.video_tasks import TaskFailed, TaskUnresolved
from batchgen.images.formats import ImageInfo
from batchgen.images.inspect import mismatches, warnings_of
from batchgen.job import Job, SavedImage
from batchgen.ledger.records import DueImage, JobFinished, Provenance
from batchgen.outcomes.download_policy import (
    FetchAgain,
    FetchLater,
    FetchLost,
    FetchResult,
    FetchSpoiled,
)
from batchgen.planning.naming import image_path


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """An image was saved."""

    image: SavedImage
    finished: JobFinished | None
    """The finished job if this was its last image."""


Fetched: TypeAlias = Saved | FetchResult | FetchLater | FetchSpoiled | Compressed
"""What one try to fetch and place an image ends in."""

ImageResult: TypeAlias = (
    Saved
    | FetchAgain
    | FetchLater
    | FetchLost
    | FetchSpoiled
    | TaskFailed
    | TaskUnresolved
    | Compressed
)


@dataclass(frozen=True, slots=True)
class Waiting:
    """The job waits for another download try in this run."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A verified image in a temporary file."""

    info: ImageInfo
    sha256: str
    taken: bool
    """Whether a file exists at its output path."""
    linked: SavedImage | None = None
    """The record of an image whose temporary file is at its output path as well."""


def completed(
    path: Path, job: Job, image: DueImage, found: Embedded, origin: Provenance | None
) -> SavedImage | FetchSpoiled:
    """Write the metadata of a verified image, and return its record; see `embedded`."""
    result = embedded(path, job, image, found, origin)
    return result if isinstance(result, FetchSpoiled) else record_of(job, image, result)


def embedded(
    path: Path, job: Job, image: DueImage, found: Embedded, origin: Provenance | None
) -> Embedded | FetchSpoiled:
    """Write the metadata of a verified image.

    FetchSpoiled if it must not replace the image at its path. ``origin`` is None for an image that
    gets no metadata. Raises BadImage and OSError.
    """
    result = found if origin is None else embed_metadata(path, job, origin)
    if image.replaces is not None and image.rank == 0:
        differs = mismatches(result.info, job.options)
        defect = defect_of_replacement(path, result.info, image, differs)
        if defect is not None:
            return FetchSpoiled(defect)
    return result


def record_of(job: Job, image: DueImage, result: Embedded) -> SavedImage:
    """Return what the ledger keeps of an image that was written with its metadata."""
    info = result.info
    path = image_path(job, info.format.extension, image.rank, placed=image.path)
    warnings = warnings_of(info, job.options)
    return saved_image(path, info, result.sha256, warnings, result.refused)
