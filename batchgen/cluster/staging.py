"""Fetch a paid image on an actor, verify it, and put it where the driver says."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Final

from batchgen.cluster.messages import (
    FetchMessage,
    FetchReport,
    NotFetched,
    PutOrder,
    PutReport,
    VerifiedImage,
)
from batchgen.engine.delivery_results import embedded
from batchgen.engine.image_source import MAX_VIDEO_BYTES
from batchgen.engine.spooled_image import SpoolUnreadable, StillCompressed, spooled_image
from batchgen.engine.verification import (
    Embedded,
    verify_file,
)
from batchgen.http.download import MAX_IMAGE_BYTES, Downloader
from batchgen.images.base64_scanner import unpack_base64
from batchgen.images.formats import BadImage
from batchgen.job import AttemptId
from batchgen.outcomes.download_policy import FetchResult, FetchSpoiled
from batchgen.spool.portable import receive_response
from batchgen.spool.spool import Spool
from batchgen.storage.store import Store
from batchgen.system.atomic_files import PartFile
from batchgen.system.failpoints import Point, hit
from batchgen.system.threads import in_decode_thread, in_disk_thread, in_store_thread

_KEPT_IMAGES: Final = 256
"""Images on this machine; a driver asks for fewer at a time."""


class Stager:
    """Has verified images until the driver says where to put them."""

    def __init__(self, spool: Spool, store: Store, downloader: Downloader) -> None:
        self._spool = spool
        self._store = store
        self._downloader = downloader
        self._verified: OrderedDict[tuple[AttemptId, int], tuple[Path, str]] = OrderedDict()
        """The file of each image and its SHA-256."""

    async def fetch(self, message: FetchMessage) -> FetchReport:
        """Fetch and verify one image, or return why not. May be repeated. Raises OSError."""
        path = self._spool.directory / f"{message.attempt}.{message.position}.image"
        async with PartFile(path) as part:
            failed = await self._fill(message, part)
            if failed is not None:
                return failed
            try:
                found = await part.seal(lambda part: _prepared(part, path, message))
            except BadImage as exc:
                reason = f"{exc.reason}: {exc}"
                if message.url is None:
                    return FetchSpoiled(reason)
                return FetchResult(bad_image=reason)
            if isinstance(found, FetchSpoiled):
                return found
        key = message.attempt, message.position
        self._verified[key] = path, found.sha256
        self._verified.move_to_end(key)
        hit(Point.VERIFIED)
        if len(self._verified) > _KEPT_IMAGES:
            await self._forget(next(iter(self._verified)))
        return VerifiedImage(found)

    async def put(self, order: PutOrder) -> PutReport:
        """Put a verified image into the bucket, or return why not."""
        found = self._verified.get((order.attempt, order.position))
        if found is None:
            return PutReport("the actor no longer has the image")
        try:
            if not await in_store_thread(_put, self._store, order, *found):
                return PutReport("another object is there", is_taken=True)
        except OSError as exc:
            return PutReport(str(exc))
        hit(Point.STAGED)
        await self._forget((order.attempt, order.position))
        return PutReport()

    async def _forget(self, image: tuple[AttemptId, int]) -> None:
        path, _ = self._verified.pop(image)
        with suppress(OSError):
            await in_disk_thread(path.unlink)

    async def _fill(self, message: FetchMessage, part: PartFile) -> FetchReport | None:
        """Write the bytes of an image to a part; return why that failed."""
        known = self._verified.get((message.attempt, message.position))
        if known is not None:  # it gets its metadata now
            await in_disk_thread(part.adopt, known[0])
            return None
        if message.url is not None:
            max_bytes = MAX_VIDEO_BYTES if message.is_video else MAX_IMAGE_BYTES
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
        attempt = message.attempt
        if self._spool.find(attempt) is None:
            data = await in_store_thread(self._store.read, message.response)
            await in_disk_thread(receive_response, self._spool, attempt, data)

    def _unpack(self, message: FetchMessage, part: PartFile) -> None:
        base64, source = spooled_image(self._spool, message.attempt, message.position)
        if source is not None:
            part.adopt(source)
        else:
            part.write_blocking(unpack_base64(base64))


def _put(store: Store, order: PutOrder, path: Path, sha256: str) -> bool:
    """Put an image; return False if another object is there. Raises OSError.

    The response to a put may have been lost: an object with the content of the image is ours.
    """
    try:
        store.put_file(order.name, path, create=order.create)
    except FileExistsError:
        return store.digest(order.name) == sha256
    return True


def _prepared(part: Path, path: Path, message: FetchMessage) -> Embedded | FetchSpoiled:
    """Verify an image, write its metadata and rename it. Raises BadImage and OSError."""
    found: Embedded | FetchSpoiled
    found = Embedded(*verify_file(part, message.verify, is_video=message.is_video))
    if (special := message.special) is not None:
        found = embedded(part, special.job, special.image, found, special.origin)
    if not isinstance(found, FetchSpoiled):
        part.replace(path)
    return found
