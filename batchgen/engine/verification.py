"""Verify a downloaded image: format, hash, embedded metadata, comparison with the old one."""

from __future__ import annotations

import hashlib
import mmap
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from batchgen.images.formats import BadImage, ImageInfo
from batchgen.images.inspect import decode, inspect, is_blank
from batchgen.images.mp4 import inspect_mp4
from batchgen.images.xmp import embed
from batchgen.job import Job, SavedImage, Verify
from batchgen.ledger.records import DueImage, Provenance
from batchgen.output.sidecar import described
from batchgen.providers.adapters.video import is_video_task
from batchgen.system.atomic_files import write_atomically

_MAPPED: Final = threading.BoundedSemaphore(2)
"""Files mapped at once. Their pages count as our memory, and two keep two processors busy."""


def verify_file(path: Path, verify: Verify, *, is_video: bool) -> tuple[ImageInfo, str]:
    """Return the properties and the SHA-256 of an image or video, reading it once.

    Raises BadImage and OSError.
    """
    with _MAPPED, path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            inspect(b"")  # raises BadImage; an empty file can't be mapped
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            info = inspect_mp4(data) if is_video else inspect(data)
            digest = hashlib.sha256(data).hexdigest()
    if verify is Verify.DECODE and not is_video:
        decode(path)
    return info, digest


def saved_image(
    path: str, info: ImageInfo, sha256: str, warnings: Sequence[str] = ()
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
    )


def embed_metadata(path: Path, job: Job, origin: Provenance) -> tuple[ImageInfo, str]:
    """Write the origin of a verified image into it; return its new properties and SHA-256.

    The image stays unchanged if the metadata would make it too large. Raises OSError.
    """
    values = {"batch": origin.batch, "key": job.key, **described(job, origin)}
    plain = path.read_bytes()
    data = embed(plain, {name: text for name, text in values.items() if text})
    try:
        info = inspect(data)
    except BadImage:
        data, info = plain, inspect(plain)
    write_atomically(path, data)
    return info, hashlib.sha256(data).hexdigest()


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
