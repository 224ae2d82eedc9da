"""Fetch a paid image on an actor, verify it, and put it under its staging name."""

from __future__ import annotations

from pathlib import Path

from batchgen.cluster.messages import (
    FetchMessage,
    FetchReport,
    NotFetched,
    StagedImage,
    staging_name,
)
from batchgen.engine.delivery_results import completed
from batchgen.engine.image_source import MAX_VIDEO_BYTES
from batchgen.engine.spooled_image import SpoolUnreadable, StillCompressed, spooled_image
from batchgen.engine.verification import (
    Embedded,
    verify_file,
)
from batchgen.http.download import MAX_IMAGE_BYTES, Downloader
from batchgen.images.base64_scanner import unpack_base64
from batchgen.images.formats import BadImage
from batchgen.job import SavedImage
from batchgen.outcomes.download_policy import FetchResult, FetchSpoiled
from batchgen.providers.adapters.video import is_video_task
from batchgen.spool.portable import receive_response
from batchgen.spool.spool import Spool
from batchgen.storage.store import Store
from batchgen.system.atomic_files import PartFile
from batchgen.system.failpoints import Point, hit
from batchgen.system.threads import in_decode_thread, in_disk_thread, in_store_thread


class Stager:
    """Puts verified images under their staging names."""

    def __init__(self, spool: Spool, store: Store, downloader: Downloader) -> None:
        self._spool = spool
        self._store = store
        self._downloader = downloader

    async def stage(self, message: FetchMessage) -> FetchReport:
        """Fetch, verify and put one image, or return why not. Raises OSError."""
        image = message.image
        name = f"{image.attempt_id}.{image.position}.image"
        async with PartFile(self._spool.directory / name) as part:
            failed = await self._fill(message, part)
            if failed is not None:
                return failed
            try:
                saved = await part.seal(lambda path: _prepared(path, message))
            except BadImage as exc:
                reason = f"{exc.reason}: {exc}"
                if message.url is None:
                    return FetchSpoiled(reason)
                return FetchResult(bad_image=reason)
            if isinstance(saved, FetchSpoiled):
                return saved
            extension = saved.path.rpartition(".")[2]
            staged = staging_name(image.attempt_id, image.position, extension)
            await in_store_thread(self._store.put_file, staged, part.part)
            hit(Point.STAGED)
            return StagedImage(saved, staged)

    async def _fill(self, message: FetchMessage, part: PartFile) -> FetchReport | None:
        """Write the bytes of an image to a part; return why that failed."""
        if message.url is not None:
            is_video = is_video_task(message.image.task)
            max_bytes = MAX_VIDEO_BYTES if is_video else MAX_IMAGE_BYTES
            return await self._downloader.fetch(message.url, part, max_bytes=max_bytes)
        try:
            await self._bring_response(message)
            await in_decode_thread(self._unpack, message, part)
        except (FileNotFoundError, SpoolUnreadable, StillCompressed) as exc:
            return NotFetched(f"its response is not usable here: {exc}")
        except ValueError as exc:
            return FetchSpoiled(f"invalid base64: {exc}")
        return None

    async def _bring_response(self, message: FetchMessage) -> None:
        """Read a response from the bucket that another actor received."""
        attempt = message.image.attempt_id
        if self._spool.find(attempt) is None:
            data = await in_store_thread(self._store.read, message.response)
            await in_disk_thread(receive_response, self._spool, attempt, data)

    def _unpack(self, message: FetchMessage, part: PartFile) -> None:
        image = message.image
        base64, source = spooled_image(self._spool, image.attempt_id, image.position)
        if source is not None:
            part.adopt(source)
        else:
            part.write_blocking(unpack_base64(base64))


def _prepared(path: Path, message: FetchMessage) -> SavedImage | FetchSpoiled:
    """Verify an image and write its metadata. Raises BadImage and OSError."""
    job, image = message.job, message.image
    is_video = is_video_task(image.task)
    info, sha256 = verify_file(path, job.verify, is_video=is_video)
    origin = None if is_video else message.origin
    return completed(path, job, image, Embedded(info, sha256), origin)
