"""Carry out the orders of a run by the actors of a cluster. The driver decides everything.

After an actor is lost, the driver first tries to take the name of the intent. If that succeeds, the
request was never sent and never will be: the actor's own create-only put fails. Otherwise it waits
for the response, by name, and gives the attempt up as ambiguous after a grace period.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

import anyio

from batchgen.cluster.actors import Actors, NoActorError, Started
from batchgen.cluster.channel import Channel, Intents, OrderLostError
from batchgen.cluster.dispatch import intent_of, require_lease
from batchgen.cluster.intents import response_name, withdraw
from batchgen.cluster.lease import Lease
from batchgen.cluster.messages import (
    DepartOrder,
    FetchMessage,
    PutOrder,
    PutReport,
    Reference,
    Report,
    RunSettings,
    SendOrder,
    SendReport,
    VerifiedImage,
    staging_name,
)
from batchgen.cluster.references import SharedReferences
from batchgen.engine.bucket_placing import BucketPlacer
from batchgen.engine.context import RunContext
from batchgen.engine.delivery_results import Fetched, Saved
from batchgen.engine.executor import ExchangeOrder, FetchOrder, NotSentError
from batchgen.engine.image_source import ImageSource
from batchgen.engine.local_executor import LocalExecutor
from batchgen.engine.recovery import spooled_exchange
from batchgen.engine.saving import record_saved
from batchgen.engine.stop_reasons import STORAGE
from batchgen.http.request import Body
from batchgen.images.base64_scanner import ScannedBody
from batchgen.job import AttemptId, SavedImage
from batchgen.ledger.attempts import read_provenance
from batchgen.ledger.records import DueImage
from batchgen.outcomes.download_policy import FetchLater, FetchResult, FetchSpoiled
from batchgen.outcomes.exchange import Exchange, Failure, Reach
from batchgen.providers.adapters.multipart import FilePiece, PiecedBody
from batchgen.spool.portable import receive_response
from batchgen.storage.object_store import MULTIPART_BYTES, copy_to_free_name
from batchgen.storage.store import Store, StoreError
from batchgen.system.atomic_files import PartFile
from batchgen.system.threads import in_disk_thread, in_store_thread

CLUSTER: Final = "cluster"
"""Start of the reason of a stop: no actor is left."""
_LOOK_S: Final = 2.0
_MAX_RECEIVED: Final = 4096
_REMOVE_AT_ONCE: Final = 90
"""Objects that are deleted in one request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterParts:
    """What a driver has of its cluster, from before the run."""

    started: Started
    store: Store
    """The output directory, which also has intents, responses and staging names."""
    lease: Lease
    grace_s: float = 30.0
    """How long to wait for the response of an order that is lost."""
    keeps_intents: bool = False
    """Whether intents and responses stay until the end of their attempts is backed up."""


@dataclass(frozen=True, slots=True)
class _Received:
    """Where the response to an attempt arrived."""

    channel: Channel
    intents: Intents


class _NotPutError(Exception):
    """An actor did not put an image, or nothing is known of that."""


class ClusterExecutor:
    """Gives orders to the actors, and brings their images to final names."""

    def __init__(
        self, context: RunContext, parts: ClusterParts, local: LocalExecutor, source: ImageSource
    ) -> None:
        self._context = context
        self._parts = parts
        self._store = parts.store
        self._root = parts.started.settings.root
        self._local = local
        self._source = source
        self._placer = BucketPlacer(context)
        self._actors: Actors
        self._references = SharedReferences(parts.store, parts.lease.batch)
        self._received: OrderedDict[AttemptId, _Received] = OrderedDict()
        """Who received the response of an attempt, of the newest ones."""
        self._finished: list[str] = []
        """Objects that are no longer needed."""

    async def open(self, run: RunSettings) -> None:
        """Prepare the actors for the orders of this run."""
        self._actors = Actors(self._parts.started, run, self._notice)
        await self._actors.open()

    async def close(self) -> None:
        """Give no more orders, and delete objects that are no longer needed."""
        self._actors.close()
        with suppress(OSError):
            await self._remove(self._finished)
            if self._parts.lease.is_held:
                await self._references.remove()

    async def exchange(self, order: ExchangeOrder) -> Exchange:
        """Have a request sent once by an actor; see `Executor.exchange`."""
        message = await self._message(order)
        if not order.is_timed:
            await order.wait()
        channel, intents = await self._pick(), None
        try:
            if order.is_timed:
                intents = await self._announce(channel, message)
                report = await self._depart(channel, order)
            else:
                report, intents = await channel.give(message)
        except OrderLostError as exc:
            if exc.bug is not None:
                self._context.record_internal_error(exc.bug)
            if not exc.is_given:
                raise NotSentError(f"an actor was lost before its order: {exc}") from exc
            given = exc.intents or intents
            assert given is not None
            return await self._after_loss(order.attempt, given, str(exc))
        assert isinstance(report, SendReport)
        assert intents is not None
        self._raise_if_refused(report)
        self._note_received(order.attempt, _Received(channel, intents))
        return await self._exchange_of(order.attempt, report)

    async def _announce(self, channel: Channel, message: SendOrder) -> Intents | None:
        """Have an actor prepare a request, and return the object with its intent.

        Raises NotSentError: it leaves only after another order.
        """
        try:
            report, intents = await channel.give(message, at_once=True)
        except OrderLostError as exc:
            if exc.bug is not None:
                self._context.record_internal_error(exc.bug)
            raise NotSentError(f"an actor was lost before its order to send: {exc}") from exc
        assert isinstance(report, SendReport)
        self._raise_if_refused(report)
        return intents

    async def _depart(self, channel: Channel, order: ExchangeOrder) -> Report:
        """Let a request leave at its time. Raises NotSentError and OrderLostError."""
        clock = channel.clock
        left_s = await order.wait(clock.ahead_s)
        require_lease(self._context, self._parts.lease)
        at = clock.theirs(time.monotonic() + left_s)
        report, _ = await channel.give(DepartOrder(order.attempt, at), at_once=True)
        if isinstance(report, SendReport):
            clock.note_late(report.late_s)
        return report

    async def _message(self, order: ExchangeOrder) -> SendOrder:
        """Return the message of an order. Raises NotSentError."""
        request, lease = order.request, self._parts.lease
        try:
            pieces = await self._pieces(request.body)
        except StoreError as exc:
            self._context.throttle.stop(f"{STORAGE}: {exc}")
            raise NotSentError(f"no reference image in the bucket: {exc}") from exc
        except OSError as exc:
            raise NotSentError(f"a reference image cannot be read: {exc}") from exc
        intent = intent_of(self._context, order, batch=lease.batch, epoch=lease.epoch)
        return SendOrder(
            attempt=order.attempt,
            intent=intent.as_json(),
            method=request.method,
            url=request.url,
            headers=dict(request.headers),
            content_type=request.body.headers["Content-Type"],
            pieces=pieces,
            route=request.route,
            is_timed=order.is_timed,
        )

    async def _pieces(self, body: Body) -> tuple[bytes | Reference, ...]:
        """Return the pieces of a body, with reference images in the bucket. Raises OSError."""
        if not isinstance(body, PiecedBody):
            return (b"".join([piece async for piece in body.stream()]),)
        return tuple(
            [
                await self._references.put(piece) if isinstance(piece, FilePiece) else piece
                for piece in body.pieces
            ]
        )

    async def _pick(self) -> Channel:
        """Return an actor for a paid order. Raises NotSentError, and stops dispatch then."""
        require_lease(self._context, self._parts.lease)
        try:
            return await self._actors.pick()
        except NoActorError as exc:
            self._context.throttle.stop(f"{CLUSTER}: {exc}")
            raise NotSentError(str(exc)) from None

    def _raise_if_refused(self, report: SendReport) -> None:
        if report.storage_failed:
            self._context.throttle.stop(f"{STORAGE}: {report.storage_failed}")
        if report.refused:
            raise NotSentError(report.refused)

    def _note_received(self, attempt: AttemptId, received: _Received) -> None:
        self._received[attempt] = received
        if len(self._received) > _MAX_RECEIVED:
            self._received.popitem(last=False)

    async def _exchange_of(self, attempt: AttemptId, report: SendReport) -> Exchange:
        """Return the exchange of a report, with its response where this machine can read it.

        Raises OSError for the spool of this machine.
        """
        is_complete = report.reach is Reach.COMPLETE
        exchange = Exchange(
            reach=report.reach,
            failure=report.failure,
            detail=report.detail,
            status=report.status,
            headers=report.headers,
            upload_bytes=report.upload_bytes,
            scanned=None if report.text is None else ScannedBody(report.text, report.size),
        )
        if report.file is not None:
            receive = partial(receive_response, cut=not is_complete)
            await in_disk_thread(receive, self._context.spool, attempt, report.file)
        elif is_complete and report.storage_failed:
            return _lost_exchange("its response could not be stored")
        elif is_complete and report.text is None and not await self._bring(attempt):
            return _lost_exchange("its response could not be read from the bucket")
        return exchange

    async def _after_loss(self, attempt: AttemptId, intents: Intents, reason: str) -> Exchange:
        """Return what became of an order whose actor is lost. Raises NotSentError if nothing."""
        end = time.monotonic() + self._parts.grace_s
        with suppress(OSError):
            if await in_store_thread(withdraw, self._store, intents.name):
                raise NotSentError(f"an actor was lost before it sent anything: {reason}")
        while not await self._bring(attempt):
            left_s = end - time.monotonic()
            if left_s <= 0:
                return _lost_exchange(f"an actor was lost: {reason}")
            await anyio.sleep(min(left_s, _LOOK_S))
        return await in_disk_thread(spooled_exchange, self._context.spool, attempt)

    async def _bring(self, attempt: AttemptId) -> bool:
        """Bring a response of this run to the spool of this machine; return whether it is there."""
        name = response_name(self._parts.lease.epoch, attempt)
        spool = self._context.spool
        if await in_disk_thread(spool.find, attempt) is not None:
            return True
        try:
            data = await in_store_thread(self._store.read, name)
        except OSError:
            return False
        await in_disk_thread(receive_response, spool, attempt, data)
        return True

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
        image = order.image
        origin = None
        if order.job.metadata:
            origin = await self._context.ledger.run(read_provenance, image.attempt_id)
        message = FetchMessage(
            job=order.job,
            image=image,
            url=None if image.url is None else self._source.url_of(image),
            response=response_name(self._parts.lease.epoch, image.attempt_id),
            origin=origin,
        )
        received = self._received.get(image.attempt_id)
        try:
            channel = await self._actors.pick(None if received is None else received.channel)
            report, _ = await channel.give(message)
        except (OrderLostError, NoActorError):
            return None
        match report:
            case VerifiedImage(saved):
                return await self._place(order, saved, channel)
            case FetchResult() | FetchLater() | FetchSpoiled():
                return report
            case _:
                return None

    async def _bring_inline(self, image: DueImage) -> None:
        if image.url is None and image.copy_of is None:
            await self._bring(image.attempt_id)

    async def _place(
        self, order: FetchOrder, saved: SavedImage, channel: Channel
    ) -> Fetched | None:
        """Have a verified image put under its final name and record it; None as in `_fetch`.

        The actor puts it only after the ledger has its placement, and only if nothing is there.
        """
        if not self._parts.lease.is_held:
            return FetchLater(self._parts.lease.reason or "the lease of the batch is lost")
        job, image = order.job, order.image
        if saved.bytes > MULTIPART_BYTES:
            final = partial(self._put_large, channel, image, saved)
        else:
            final = partial(self._put, channel, image, saved.path, create=True)
        with anyio.CancelScope(shield=True):
            try:
                if not await self._placer.place_by(job, image, saved, final):
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
            received = self._received.pop(attempt, None)
            if received is not None and not self._parts.keeps_intents:
                self._finished.append(response_name(self._parts.lease.epoch, attempt))
                received.intents.left -= 1
                if not received.intents.left:
                    self._finished.append(received.intents.name)
        if len(self._finished) >= _REMOVE_AT_ONCE:
            names, self._finished = self._finished, []
            with suppress(OSError):  # the end of the run removes what is left
                await self._remove(names)

    async def _remove(self, names: Sequence[str]) -> None:
        if names:
            await in_store_thread(self._store.delete_all, names)

    def _notice(self, text: str) -> None:
        self._context.notice(text, text)


def _lost_exchange(detail: str) -> Exchange:
    return Exchange(reach=Reach.SENT, failure=Failure.INTERRUPTED, detail=detail)


def _download(store: Store, name: str, part: PartFile) -> None:
    for chunk in store.chunks(name):
        part.write_blocking(chunk)
