"""Carry out the orders of a run in its own process; the steps of an image are in `delivery`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import anyio

from batchgen.engine.context import RunContext
from batchgen.engine.delivery_results import Fetched, Verified, completed, record_of
from batchgen.engine.executor import ExchangeOrder, FetchOrder
from batchgen.engine.image_source import ImageSource
from batchgen.engine.linked_parts import part_path
from batchgen.engine.placing import Placer
from batchgen.engine.saving import record_saved
from batchgen.engine.verification import (
    Embedded,
    verify_file,
    verify_small,
)
from batchgen.http.client import ApiClient
from batchgen.images.formats import BadImage, ImageInfo
from batchgen.job import SavedImage
from batchgen.ledger.attempts import read_provenance
from batchgen.outcomes.download_policy import FetchResult, FetchSpoiled
from batchgen.outcomes.exchange import Exchange, Reach
from batchgen.planning.naming import image_path
from batchgen.providers.adapters.video import is_video_task
from batchgen.system.atomic_files import PartFile
from batchgen.system.threads import in_disk_thread
from batchgen.system.write_buffers import BufferAllowance, WriteBuffer

_SMALL_BYTES: Final = 64 * 1024
"""Largest image that is verified on the event loop's thread: 0.1 ms, as long as a thread costs."""

_BUFFER_BYTES: Final = 512 * 1024
_MAX_BUFFER_BYTES: Final = 4 * 1024 * 1024
_BUFFERS_BYTES: Final = 4 * 1024 * 1024
"""What images may have in memory beyond a buffer each, together."""

_BUSY_IMAGES: Final = 4
"""Images being fetched or written from which on small ones are written together."""
_GATHER_S: Final = 0.005
"""How long they wait for each other: nothing next to a request, and half a context switch less for
each."""


class LocalExecutor:
    """Sends requests and saves images in this process.

    At most ``images`` images are fetched and written at a time, each with up to half a megabyte in
    memory, and some of a few megabytes as a whole. They are recorded as saved after that.
    """

    def __init__(
        self,
        context: RunContext,
        client: ApiClient,
        source: ImageSource,
        placer: Placer,
        *,
        images: int,
    ) -> None:
        self._context = context
        self._client = client
        self._source = source
        self._placer = placer
        self._images = images
        self._room = anyio.Semaphore(images, fast_acquire=True)
        self._gathered: anyio.Event | None = None
        self._memory = BufferAllowance(_BUFFERS_BYTES)

    async def exchange(self, order: ExchangeOrder) -> Exchange:
        """Send a request and write its response to the order's part; see `Executor.exchange`."""

        def note(reach: Reach) -> None:
            order.departure.reach = reach

        try:
            return await self._client.exchange(
                order.request, order.part, wait=order.wait, on_cancel=note
            )
        except BaseException:
            # Without its exchange a response in memory would be lost.
            with anyio.CancelScope(shield=True):
                await order.part.write_held()
            raise

    async def fetch(self, order: FetchOrder) -> Fetched:
        """Bring an image to its output path and record it as saved; see `Executor.fetch`."""
        job, image, placer = order.job, order.image, self._placer
        path = part_path(job, image)
        directory = await placer.make_directory(job.root, path)
        buffer = WriteBuffer(_BUFFER_BYTES, self._memory, _MAX_BUFFER_BYTES)
        final = directory / path.rpartition("/")[2]
        async with PartFile(final, mode=0o666, buffer=buffer) as part:
            found = await self._fetched(part, order)
            if not isinstance(found, Verified):
                return found
            saved = found.linked or await self._completed(part.part, order, found)
            if isinstance(saved, FetchSpoiled):
                return saved
            # From here to the ledger's row only our own disk can delay: do not cancel.
            with anyio.CancelScope(shield=True):
                if found.linked is None:
                    await placer.place(job, image, part, saved, taken=found.taken)
                placed = await record_saved(self._context, placer, order, saved)
                if found.linked is not None:
                    await placer.remove_later(part.part)
                if placer.may_have_bytes(image):
                    await placer.call(placer.drop_kept, job, image, saved)
            return placed

    async def _fetched(self, part: PartFile, order: FetchOrder) -> Verified | Fetched:
        """Fetch and verify an image; a plain one gets its final name too."""
        image = order.image
        async with self._room:
            failed = await self._source.write_to(image, part)
            if failed is not None:
                return failed
            try:
                # An image at its final name is recorded: do not cancel.
                with anyio.CancelScope(shield=True):
                    found = await self._verified(part, order)
            except BadImage as exc:
                self._context.spool.images.drop(image.attempt_id, image.position)
                reason = f"{exc.reason}: {exc}"
                # Reading a response again does not change it; a URL may serve another file.
                return FetchSpoiled(reason) if image.url is None else FetchResult(bad_image=reason)
        return found

    async def _completed(
        self, path: Path, order: FetchOrder, verified: Verified
    ) -> SavedImage | FetchSpoiled:
        """Write the metadata of an image, and return its record; see `completed`."""
        job, image, origin = order.job, order.image, None
        found = Embedded(verified.info, verified.sha256)
        if job.metadata and not is_video_task(image.task):
            origin = await self._context.ledger.run(read_provenance, image.attempt_id)
        elif image.replaces is None:
            return record_of(job, image, found)  # nothing of it needs the disk
        return await in_disk_thread(completed, path, job, image, found, origin)

    async def _verified(self, part: PartFile, order: FetchOrder) -> Verified:
        """Verify an image; link a plain one to its final name. Raises BadImage and OSError.

        A small plain one is verified here and written by the call that links it. Others are
        written first.
        """
        job, image = order.job, order.image
        is_plain = not (job.metadata or job.sidecar or image.path or image.replaces is not None)
        if is_plain and not is_video_task(image.task):
            content = part.held_content(_SMALL_BYTES)
            small = None if content is None else verify_small(content, job.verify)
            if small is not None:
                if self._images - self._room.value >= _BUSY_IMAGES:
                    await self._wait_for_others()
                return await in_disk_thread(self._link, part, order, *small)

        def verify(path: Path, content: bytes | None) -> Verified:
            found = self._verify(path, content, order)
            if found.taken or not is_plain:
                return found
            return self._link(part, order, found.info, found.sha256)

        return await part.seal_content(verify)

    async def _wait_for_others(self) -> None:
        """Wait a moment, so that one wake of a disk thread serves several images."""
        if self._gathered is None:
            self._gathered = anyio.Event()
            asyncio.get_running_loop().call_later(_GATHER_S, self._end_gathering)
        await self._gathered.wait()

    def _end_gathering(self) -> None:
        if self._gathered is not None:
            self._gathered.set()
            self._gathered = None

    def _verify(self, part: Path, content: bytes | None, order: FetchOrder) -> Verified:
        """Verify an image and check whether its path is free. Raises BadImage and OSError."""
        job, image = order.job, order.image
        is_video = is_video_task(image.task)
        info, sha256 = verify_file(part, job.verify, is_video=is_video, content=content)
        path = image_path(job, info.format.extension, image.rank, placed=image.path)
        return Verified(info, sha256, self._placer.is_taken(job.root, path))

    def _link(self, part: PartFile, order: FetchOrder, info: ImageInfo, sha256: str) -> Verified:
        """Link a plain image to its final name if that is free and links are possible."""
        saved = record_of(order.job, order.image, Embedded(info, sha256))
        try:
            is_linked = self._placer.link(order.job, order.image, part, saved)
        except FileExistsError:
            return Verified(info, sha256, taken=True)
        return Verified(info, sha256, taken=False, linked=saved if is_linked else None)
