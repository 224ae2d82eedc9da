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
from typing import Any, Final

import anyio

from batchgen.cluster.actors import Actors, NoActorError, OrderLostError, Slot, Started
from batchgen.cluster.dispatch import intent_of, require_lease
from batchgen.cluster.intents import WITHDRAWN, intent_name, response_name
from batchgen.cluster.lease import Lease
from batchgen.cluster.messages import (
    FetchMessage,
    NotFetched,
    RunSettings,
    SendOrder,
    SendReport,
    StagedImage,
)
from batchgen.engine.bucket_placing import BucketPlacer
from batchgen.engine.context import RunContext
from batchgen.engine.delivery_results import Fetched, Saved
from batchgen.engine.executor import ExchangeOrder, FetchOrder, NotSentError
from batchgen.engine.image_source import ImageSource
from batchgen.engine.local_executor import LocalExecutor
from batchgen.engine.recovery import spooled_exchange
from batchgen.engine.saving import record_saved
from batchgen.engine.stop_reasons import STORAGE
from batchgen.images.base64_scanner import ScannedBody
from batchgen.job import AttemptId
from batchgen.ledger.attempts import read_provenance
from batchgen.ledger.records import DueImage
from batchgen.outcomes.download_policy import FetchLater
from batchgen.outcomes.exchange import Exchange, Failure, Reach
from batchgen.spool.portable import receive_response
from batchgen.storage.store import Store
from batchgen.system.atomic_files import PartFile
from batchgen.system.threads import in_disk_thread, in_store_thread

CLUSTER: Final = "cluster"
"""Start of the reason of a stop: no actor is left."""
_LOOK_S: Final = 2.0
_MAX_PREFERRED: Final = 4096
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
        self._preferred: OrderedDict[AttemptId, Slot] = OrderedDict()
        """Who received the response of an attempt."""
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

    async def exchange(self, order: ExchangeOrder) -> Exchange:
        """Have a request sent once by an actor; see `Executor.exchange`."""
        message = await self._message(order)
        if not order.is_timed:
            await order.wait()
        slot = await self._pick()
        if order.is_timed:
            await self._announce(slot, message)
            await order.wait()
            require_lease(self._context, self._parts.lease)
        try:
            report = await self._actors.call(slot, "exchange", message)
        except OrderLostError as exc:
            if exc.bug is not None:
                self._context.record_internal_error(exc.bug)
            return await self._after_loss(order.attempt, str(exc))
        self._raise_if_refused(report)
        self._prefer(order.attempt, slot)
        return await self._received(order.attempt, report)

    async def _announce(self, slot: Slot, message: SendOrder) -> None:
        """Have an actor put the intent of an order that follows. Raises NotSentError."""
        try:
            self._raise_if_refused(await self._actors.call(slot, "announce", message))
        except OrderLostError as exc:
            if exc.bug is not None:
                self._context.record_internal_error(exc.bug)
            raise NotSentError(f"an actor was lost before its order to send: {exc}") from exc

    async def _message(self, order: ExchangeOrder) -> SendOrder:
        """Return the message of an order. Raises NotSentError."""
        request, lease = order.request, self._parts.lease
        try:
            body = b"".join([piece async for piece in request.body.stream()])
        except OSError as exc:
            raise NotSentError(f"a reference image cannot be read: {exc}") from exc
        intent = intent_of(self._context, order, batch=lease.batch, epoch=lease.epoch)
        return SendOrder(
            attempt=order.attempt,
            epoch=lease.epoch,
            intent=intent.as_json(),
            key_variable=self._context.profile.key_variable,
            method=request.method,
            url=request.url,
            headers=dict(request.headers),
            content_type=request.body.headers["Content-Type"],
            body=body,
            route=request.route,
        )

    async def _pick(self) -> Slot:
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

    def _prefer(self, attempt: AttemptId, slot: Slot) -> None:
        self._preferred[attempt] = slot
        if len(self._preferred) > _MAX_PREFERRED:
            self._preferred.popitem(last=False)

    async def _received(self, attempt: AttemptId, report: SendReport) -> Exchange:
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

    async def _after_loss(self, attempt: AttemptId, reason: str) -> Exchange:
        """Return what became of an order whose actor is lost. Raises NotSentError if nothing."""
        end = time.monotonic() + self._parts.grace_s
        with suppress(OSError):
            if await in_store_thread(_withdraw, self._store, self._parts.lease.epoch, attempt):
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
        try:
            report = await self._fetch(order)
        except (OrderLostError, NoActorError) as exc:
            report = NotFetched(str(exc))
        match report:
            case NotFetched():
                await self._bring_inline(image)
                return await self._local.fetch(order)
            case StagedImage():
                return await self._place(order, report)
            case _:
                fetched: Fetched = report
                return fetched

    async def _fetch(self, order: FetchOrder) -> Any:
        job, image, epoch = order.job, order.image, self._parts.lease.epoch
        origin = None
        if job.metadata:
            origin = await self._context.ledger.run(read_provenance, image.attempt_id)
        message = FetchMessage(
            job=job,
            image=image,
            epoch=epoch,
            url=None if image.url is None else self._source.url_of(image),
            response=response_name(epoch, image.attempt_id),
            origin=origin,
        )
        slot = await self._actors.pick(self._preferred.pop(image.attempt_id, None))
        return await self._actors.call(slot, "fetch", message)

    async def _bring_inline(self, image: DueImage) -> None:
        if image.url is None and image.copy_of is None:
            await self._bring(image.attempt_id)

    async def _place(self, order: FetchOrder, staged: StagedImage) -> Fetched:
        """Copy a staged image to its final name and record it; only the driver does that."""
        if not self._parts.lease.is_held:
            return FetchLater(self._parts.lease.reason or "the lease of the batch is lost")
        with anyio.CancelScope(shield=True):
            if not await self._placer.place_copy(order.job, order.image, staged.saved, staged.name):
                await self._place_bytes(order, staged)
            placed = await record_saved(self._context, self._placer, order, staged.saved)
            await self._remove_later(order.image.attempt_id, staged.name, placed)
        return placed

    async def _place_bytes(self, order: FetchOrder, staged: StagedImage) -> None:
        """Place a staged image where another object is, with all checks and versions."""
        job, image = order.job, order.image
        directory = await self._placer.make_directory(job.root, "")
        name = f".{image.attempt_id}.{image.position}.staged"
        async with PartFile(directory / name) as part:
            await in_store_thread(_download, self._store, staged.name, part)
            await part.seal(lambda path: None)
            await self._placer.place(job, image, part, staged.saved, taken=False)

    async def _remove_later(self, attempt: AttemptId, staged: str, placed: Saved) -> None:
        self._finished.append(staged)
        if placed.finished is not None and not self._parts.keeps_intents:
            epoch = self._parts.lease.epoch
            self._finished += [response_name(epoch, attempt), intent_name(epoch, attempt)]
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


def _withdraw(store: Store, epoch: int, attempt: AttemptId) -> bool:
    """Take the name of an intent; return False if the intent was put before. Raises OSError."""
    name = intent_name(epoch, attempt)
    try:
        store.put(name, WITHDRAWN, create=True)
    except FileExistsError:
        return store.read(name) == WITHDRAWN
    return True


def _download(store: Store, name: str, part: PartFile) -> None:
    for chunk in store.chunks(name):
        part.write_blocking(chunk)
