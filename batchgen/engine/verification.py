"""Verify a downloaded image: format, hash, embedded metadata, comparison with the old one."""

from __future__ import annotations

import hashlib
import mmap
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from batchgen.images.formats import USUAL_FORMATS, BadImage, ImageInfo
from batchgen.images.inspect import decode, inspect, is_blank, warnings_of
from batchgen.images.mp4 import inspect_mp4
from batchgen.job import Job, SavedImage, Verify
from batchgen.ledger.records import DueImage, Provenance
from batchgen.output.sidecar import described
from batchgen.planning.naming import image_path
from batchgen.providers.adapters.video import is_video_task
from batchgen.system.atomic_files import write_atomically

_MAPPED: Final = threading.BoundedSemaphore(2)
"""Files mapped at once. Their pages count as our memory, and two keep two processors busy."""


def verify_file(
    path: Path, verify: Verify, *, is_video: bool, content: bytes | None = None
) -> tuple[ImageInfo, str]:
    """Return the properties and the SHA-256 of an image or video.

    ``content`` is that of the file, where it is in memory.

    GIF and AVIF images are decoded in any case, as their structure proves less. Raises BadImage and
    OSError.
    """
    if content is not None:
        info, digest = _verify(content, is_video=is_video)
    else:
        with _MAPPED, path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                inspect(b"")  # raises BadImage; an empty file can't be mapped
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                info, digest = _verify(data, is_video=is_video)
    if not is_video and (verify is Verify.DECODE or info.format not in USUAL_FORMATS):
        decode(path)
    return info, digest


def verify_small(content: bytes, verify: Verify) -> tuple[ImageInfo, str] | None:
    """Verify a small image that is in memory only; return None if it has to be decoded.

    Raises BadImage.
    """
    if verify is Verify.DECODE:
        return None
    info, digest = _verify(content, is_video=False)
    return (info, digest) if info.format in USUAL_FORMATS else None


def _verify(data: bytes | mmap.mmap, *, is_video: bool) -> tuple[ImageInfo, str]:
    info = inspect_mp4(data) if is_video else inspect(data)
    return info, hashlib.sha256(data).hexdigest()


def saved_image(
    path: str,
    info: ImageInfo,
    sha256: str,
    warnings: Sequence[str] = (),
    metadata_refused: str = "",
) -> SavedImage:
    """Return the record of a verified image at its output path."""
    return SavedImage(
        path=path,
        sha256=sha256,
        bytes=info.size_bytes,
        width=info.width,
        height=info.height,
        format=info.format.value,
        warnings=tuple(warnings),
        metadata_refused=metadata_refused,
    )


@dataclass(frozen=True, slots=True)
class Embedded:
    """An image after its origin was written into it."""

    info: ImageInfo
    sha256: str
    refused: str = ""
    """Why it stayed unchanged; empty if it has the metadata."""


def embed_metadata(path: Path, job: Job, origin: Provenance) -> Embedded:
    """Write the origin of a verified image into it, unless it cannot take it. Raises OSError."""
    from batchgen.images.xmp import MetadataRefused, embed  # 14 ms, for `metadata: true` alone

    values = {"batch": origin.batch, "key": job.key, **described(job, origin)}
    plain = path.read_bytes()
    try:
        data = embed(plain, {name: text for name, text in values.items() if text})
        info = inspect(data)
    except MetadataRefused as exc:
        return Embedded(inspect(plain), hashlib.sha256(plain).hexdigest(), str(exc))
    except BadImage:
        too_large = "it would make the file too large"
        return Embedded(inspect(plain), hashlib.sha256(plain).hexdigest(), too_large)
    if data != plain:
        write_atomically(path, data)
    return Embedded(info, hashlib.sha256(data).hexdigest())


def read_placed(path: Path, job: Job, image: DueImage) -> SavedImage:
    """Verify an image that a killed run may have placed, and return its record.

    Its path is the planned one, which may differ from that of the file. Raises BadImage and
    OSError.
    """
    is_video = is_video_task(image.task)
    info, sha256 = verify_file(path, job.verify, is_video=is_video)
    planned = image_path(job, info.format.extension, image.rank, placed=image.path)
    refused = _metadata_refused(path, info) if job.metadata and not is_video else ""
    return saved_image(planned, info, sha256, warnings_of(info, job.options), refused)


def _metadata_refused(path: Path, info: ImageInfo) -> str:
    """Return why a placed image has no metadata of ours; empty if it has. Raises OSError."""
    from batchgen.images.xmp import has_metadata, refusal_of

    data = path.read_bytes()
    if has_metadata(data):
        return ""
    return refusal_of(data, info) or "it did not fit"


def defect_of_replacement(
    path: Path, info: ImageInfo, image: DueImage, differs: Sequence[str]
) -> str | None:
    """Return why a new image must not replace the good one at its path; None if it may.

    ``differs`` says how it differs from what was requested.
    """
    is_like_the_old = image.replaces == f"{info.width}x{info.height} {info.format}"
    if differs and not is_like_the_old:
        return f"worse than the image it would replace: {differs[0]}"
    if not is_video_task(image.task) and is_blank(path):
        return "worse than the image it would replace: it has a single color"
    return None
