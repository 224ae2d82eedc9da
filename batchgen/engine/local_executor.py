"""Carry out the orders of a run in its own process; the steps of an image are in `delivery`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import anyio

from batchgen.engine.context import RunContext
from batchgen.engine.delivery_results import Fetched, Verified, completed, record_of
from batchgen.engine.executor import ExchangeOrder, FetchOrder
from batchgen.engine.image_source import ImageSource
from batchgen.engine.placing import Placer
from batchgen.engine.saving import record_saved
from batchgen.engine.verification import (
    Embedded,
    verify_file,
    verify_small,
)
from batchgen.http.client import ApiClient
from batchgen.images.formats import BadImage
from batchgen.job import EXT_PLACEHOLDER, SavedImage
from batchgen.ledger.attempts import read_provenance
from batchgen.outcomes.download_policy import FetchResult, FetchSpoiled
from batchgen.outcomes.exchange import Exchange
from batchgen.planning.naming import image_path
from batchgen.providers.adapters.video import is_video_task
from batchgen.system.atomic_files import PartFile
from batchgen.system.threads import in_disk_thread

_SMALL_BYTES: Final = 64 * 1024
"""Largest image that is verified on the event loop's thread: 0.1 ms, as long as a thread costs."""


class LocalExecutor:
    """Sends requests and saves images in this process."""

    def __init__(
        self, context: RunContext, client: ApiClient, source: ImageSource, placer: Placer
    ) -> None:
        self._context = context
        self._client = client
        self._source = source
        self._placer = placer

    async def exchange(self, order: ExchangeOrder) -> Exchange:
        """Send a request and write its response to the order's part; see `Executor.exchange`."""
        try:
            return await self._client.exchange(order.request, order.part, wait=order.wait)
        except BaseException:
            # Without its exchange a response in memory would be lost.
            with anyio.CancelScope(shield=True):
                await order.part.write_held()
            raise

    async def fetch(self, order: FetchOrder) -> Fetched:
        """Bring an image to its output path and record it as saved; see `Executor.fetch`."""
        job, image = order.job, order.image
        # The file extension is unknown until the image has arrived; the directory is not.
        path = image_path(job, EXT_PLACEHOLDER, placed=image.path)
        known_path = path.partition(EXT_PLACEHOLDER)[0]
        directory = await self._placer.make_directory(job.root, known_path)
        # Not named after the job: truncated long names of two jobs could be equal.
        name = f".{image.attempt_id}.{image.position}"
        async with PartFile(directory / name, mode=0o666) as part:
            failed = await self._source.write_to(image, part)
            if failed is not None:
                return failed
            try:
                found = await self._verified(part, order)
            except BadImage as exc:
                self._context.spool.images.drop(image.attempt_id, image.position)
                reason = f"{exc.reason}: {exc}"
                # Reading a response again does not change it; a URL may serve another file.
                return FetchSpoiled(reason) if image.url is None else FetchResult(bad_image=reason)
            saved = await self._completed(part.part, order, Embedded(found.info, found.sha256))
            if isinstance(saved, FetchSpoiled):
                return saved
            # From here to the ledger's row only our own disk can delay: do not cancel.
            with anyio.CancelScope(shield=True):
                await self._placer.place(job, image, part, saved, taken=found.taken)
                placed = await record_saved(self._context, self._placer, order, saved)
                if self._placer.may_have_bytes(image):
                    await self._placer.call(self._placer.drop_kept, job, image, saved)
            return placed

    async def _completed(
        self, path: Path, order: FetchOrder, found: Embedded
    ) -> SavedImage | FetchSpoiled:
        """Write the metadata of an image, and return its record; see `completed`."""
        job, image, origin = order.job, order.image, None
        if job.metadata and not is_video_task(image.task):
            origin = await self._context.ledger.run(read_provenance, image.attempt_id)
        elif image.replaces is None:
            return record_of(job, image, found)  # nothing of it needs the disk
        return await in_disk_thread(completed, path, job, image, found, origin)

    async def _verified(self, part: PartFile, order: FetchOrder) -> Verified:
        """Verify an image. Raises BadImage and OSError.

        A small one is verified here and written by the same call that gives it its path, which
        was free before the request. Others are written first.
        """
        job, image = order.job, order.image
        is_plain = not (job.metadata or job.sidecar or image.path or is_video_task(image.task))
        if is_plain and image.replaces is None:
            content = part.held_content(_SMALL_BYTES)
            small = None if content is None else verify_small(content, job.verify)
            if small is not None:
                return Verified(*small, taken=False)
        return await part.seal_content(lambda path, content: self._verify(path, content, order))

    def _verify(self, part: Path, content: bytes | None, order: FetchOrder) -> Verified:
        """Verify an image and check whether its path is free. Raises BadImage and OSError."""
        job, image = order.job, order.image
        is_video = is_video_task(image.task)
        info, sha256 = verify_file(part, job.verify, is_video=is_video, content=content)
        path = image_path(job, info.format.extension, image.rank, placed=image.path)
        return Verified(info, sha256, self._placer.is_taken(job.root, path))
