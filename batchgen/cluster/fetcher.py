"""Have paid images fetched and put by the actors of a cluster; their bytes stay off this machine.

What no actor can do for an image, this process does.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Final

import anyio

from batchgen.cluster.actors import Actors, NoActorError
from batchgen.cluster.channel import Channel, OrderLostError
from batchgen.cluster.messages import (
    FetchMessage,
    NotFetched,
    PutOrder,
    PutReport,
    Report,
    Special,
    VerifiedImage,
    staging_name,
)
from batchgen.cluster.parts import ClusterParts
from batchgen.cluster.received import Received, ReceivedResponses
from batchgen.engine.bucket_placing import BucketPlacer
from batchgen.engine.context import RunContext
from batchgen.engine.delivery_results import Fetched, Saved, record_of
from batchgen.engine.executor import FetchOrder
from batchgen.engine.image_source import ImageSource
from batchgen.engine.local_executor import LocalExecutor
from batchgen.engine.saving import record_saved
from batchgen.job import AttemptId, SavedImage
from batchgen.ledger.attempts import read_provenance
from batchgen.ledger.records import DueImage
from batchgen.outcomes.download_policy import FetchLater, FetchResult, FetchSpoiled
from batchgen.providers.adapters.video import is_video_task
from batchgen.storage.object_store import MULTIPART_BYTES, copy_to_free_name
from batchgen.storage.store import Store, StoreError
from batchgen.system.atomic_files import PartFile
from batchgen.system.threads import in_store_thread

_REMOVE_AT_ONCE: Final = 90
"""Objects that are deleted in one request."""


class _NotPutError(Exception):
    """An actor did not put an image, or nothing is known of that."""


class Fetcher:
    """Brings images to their final names by orders to actors."""

    def __init__(
        self,
        context: RunContext,
        parts: ClusterParts,
        actors: Actors,
        received: ReceivedResponses,
        local: tuple[LocalExecutor, ImageSource],
    ) -> None:
        """``local`` does what actors cannot do."""
        self._context = context
        self._parts = parts
        self._store = parts.store
        self._root = parts.started.settings.root
        self._actors = actors
        self._received = received
        self._local, self._source = local
        self._placer = BucketPlacer(context)
        self._finished: list[str] = []
        """Objects that are no longer needed."""

    async def fetch(self, order: FetchOrder) -> Fetched:
        """Have an image fetched and verified, and copy it to its final name; see `Executor`."""
        job, image = order.job, order.image
        is_plain = image.copy_of is None and not self._placer.may_have_bytes(image)
        if job.keep_partials or not (is_plain and job.root == self._root):
            await self._bring_inline(image)
        if not (is_plain and job.root == self._root):
            return await self._local.fetch(order)
        fetched = await self._fetch(order)
        if fetched is not None:
            return fetched
        await self._bring_inline(image)
        return await self._local.fetch(order)

    async def _fetch(self, order: FetchOrder) -> Fetched | None:
        """Fetch an image by an actor; None if this process should do it."""
        job, image, origin = order.job, order.image, None
        is_video = is_video_task(image.task)
        if job.metadata and not is_video:
            origin = await self._context.ledger.run(read_provenance, image.attempt_id)
        is_special = origin is not None or image.replaces is not None
        url = None if image.url is None else self._source.url_of(image)
        received = self._received.of(image.attempt_id)
        try:
            report = await _fetched(received, image.position, url)
            channel = await self._actors.pick(None if received is None else received.channel)
            if report is None or (is_special and isinstance(report, VerifiedImage)):
                message = FetchMessage(
                    attempt=image.attempt_id,
                    position=image.position,
                    url=url,
                    response=self._received.name(image.attempt_id),
                    verify=job.verify,
                    is_video=is_video,
                    special=Special(job, image, origin) if is_special else None,
                )
                report, _ = await channel.give(message)
        except (OrderLostError, NoActorError):
            return None
        match report:
            case VerifiedImage(found):
                return await self._place(order, record_of(job, image, found), channel)
            case FetchResult() | FetchLater() | FetchSpoiled():
                return report
            case _:
                return None

    async def _bring_inline(self, image: DueImage) -> None:
        if image.url is None and image.copy_of is None:
            with suppress(StoreError):  # the local executor says that the response is not there
                await self._received.bring(image.attempt_id)

    async def _place(
        self, order: FetchOrder, saved: SavedImage, channel: Channel
    ) -> Fetched | None:
        """Have a verified image put under its final name and record it; None as in `_fetch`.

        The actor puts it only after the ledger has its placement, and only if nothing is there.
        """
        if not self._parts.lease.is_held:
            return FetchLater(self._parts.lease.reason or "the lease of the batch is lost")
        job, image = order.job, order.image
        received = self._received.of(image.attempt_id)
        known = None if received is None else received.known.get(saved.path)
        if saved.bytes > MULTIPART_BYTES:
            final = partial(self._put_large, channel, image, saved)
        else:
            final = partial(self._put, channel, image, saved.path, create=True)
        with anyio.CancelScope(shield=True):
            try:
                if not await self._placer.place_by(job, image, saved, final, known):
                    await self._place_bytes(order, saved, await self._stage(channel, image, saved))
            except _NotPutError:
                return None
            placed = await record_saved(self._context, self._placer, order, saved)
            await self._remove_later(image.attempt_id, placed)
        return placed

    async def _put(self, channel: Channel, image: DueImage, name: str, *, create: bool) -> bool:
        """Have an image put; return False if another object is there. Raises _NotPutError."""
        order = PutOrder(image.attempt_id, image.position, name, create)
        try:
            report, _ = await channel.give(order)
        except OrderLostError as exc:
            raise _NotPutError from exc
        assert isinstance(report, PutReport)
        if report.problem and not report.is_taken:
            raise _NotPutError(report.problem)
        return not report.is_taken

    async def _stage(self, channel: Channel, image: DueImage, saved: SavedImage) -> str:
        """Have an image put under its staging name and return that. Raises _NotPutError."""
        extension = saved.path.rpartition(".")[2]
        name = staging_name(image.attempt_id, image.position, extension)
        await self._put(channel, image, name, create=False)
        self._finished.append(name)
        return name

    async def _put_large(self, channel: Channel, image: DueImage, saved: SavedImage) -> bool:
        """Do as `_put` for an image whose upload in pieces has no condition.

        An actor that was given up could end such an upload after another image took the name.
        """
        staged = await self._stage(channel, image, saved)
        return await in_store_thread(copy_to_free_name, self._store, staged, saved.path)

    async def _place_bytes(self, order: FetchOrder, saved: SavedImage, staged: str) -> None:
        """Place a staged image where another object is, with all checks and versions."""
        job, image = order.job, order.image
        directory = await self._placer.make_directory(job.root, "")
        name = f".{image.attempt_id}.{image.position}.staged"
        async with PartFile(directory / name) as part:
            await in_store_thread(_download, self._store, staged, part)
            await part.seal(lambda path: None)
            await self._placer.place(job, image, part, saved, taken=False)

    async def _remove_later(self, attempt: AttemptId, placed: Saved) -> None:
        if placed.finished is not None:
            received = self._received.forget(attempt)
            if received is not None and not self._parts.keeps_intents:
                self._finished.append(self._received.name(attempt))
                received.intents.left -= 1
                if not received.intents.left:
                    self._finished.append(received.intents.name)
        if len(self._finished) >= _REMOVE_AT_ONCE:
            names, self._finished = self._finished, []
            with suppress(OSError):  # the end of the run removes what is left
                await self._remove(names)

    async def close(self) -> None:
        """Delete the objects that are no longer needed. Raises OSError."""
        await self._remove(self._finished)

    async def _remove(self, names: Sequence[str]) -> None:
        if names:
            await in_store_thread(self._store.delete_all, names)


async def _fetched(received: Received | None, position: int, url: str | None) -> Report | None:
    """Return the report of an image that its actor fetched without an order; None if it did not."""
    fetching = None if received is None else received.images.pop(position, None)
    if received is None or fetching is None:
        return None
    report = await fetching.done  # also of another URL: an actor fetches an image once at a time
    is_right = fetching.url == url and received.channel.lost is None
    return report if is_right and not isinstance(report, NotFetched) else None


def _download(store: Store, name: str, part: PartFile) -> None:
    for chunk in store.chunks(name):
        part.write_blocking(chunk)
