"""Carry out the orders of a run by the actors of a cluster. The driver decides everything.

After an actor is lost, the driver first tries to take the name of the intent. If that succeeds, the
request was never sent and never will be: the actor's own create-only put fails. Otherwise it waits
for the response, by name, and gives the attempt up as ambiguous after a grace period.
"""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from typing import Final

import anyio

from batchgen.cluster.actors import Actors, NoActorError
from batchgen.cluster.channel import Channel, Given, Intents, OrderLostError
from batchgen.cluster.dispatch import intent_of, require_lease
from batchgen.cluster.fetcher import Fetcher
from batchgen.cluster.intents import withdraw
from batchgen.cluster.messages import (
    DepartOrder,
    Reference,
    Report,
    RunSettings,
    SendOrder,
    SendReport,
)
from batchgen.cluster.obstacles import ActorObstacles
from batchgen.cluster.parts import ClusterParts
from batchgen.cluster.received import Known, Received, ReceivedResponses
from batchgen.cluster.references import SharedReferences
from batchgen.engine.context import RunContext
from batchgen.engine.delivery_results import Fetched
from batchgen.engine.executor import ExchangeOrder, FetchOrder, NotSentError
from batchgen.engine.image_source import ImageSource
from batchgen.engine.local_executor import LocalExecutor
from batchgen.engine.recovery import spooled_exchange
from batchgen.engine.stop_reasons import LEDGER, STORAGE
from batchgen.http.request import Body
from batchgen.images.base64_scanner import ScannedBody
from batchgen.job import AttemptId, Job
from batchgen.ledger.group_commit import LedgerWriteError
from batchgen.ledger.path_owners import NOTHING_KNOWN, JobPlace, path_histories
from batchgen.outcomes.exchange import Exchange, Failure, Reach
from batchgen.providers.adapters.multipart import FilePiece, PiecedBody
from batchgen.spool.portable import receive_response
from batchgen.storage.store import StoreError
from batchgen.system.threads import in_disk_thread, in_store_thread

CLUSTER: Final = "cluster"
"""Start of the reason of a stop: no actor is left."""
_LOOK_S: Final = 2.0


class ClusterExecutor:
    """Gives orders to the actors, and brings their images to final names."""

    def __init__(
        self,
        context: RunContext,
        parts: ClusterParts,
        local: LocalExecutor,
        source: ImageSource,
        obstacles: ActorObstacles,
    ) -> None:
        self._context = context
        self._parts = parts
        self._store = parts.store
        self._local = local, source
        self._obstacles = obstacles
        self._actors: Actors
        self._fetcher: Fetcher
        self._references = SharedReferences(parts.store, parts.lease.batch)
        self._received = ReceivedResponses(context.spool, parts.store, parts.lease.epoch)

    async def open(self, run: RunSettings) -> None:
        """Prepare the actors for the orders of this run."""
        self._actors = Actors(self._parts.started, run, self._notice)
        self._fetcher = Fetcher(
            self._context, self._parts, self._actors, self._received, self._local
        )
        await self._actors.open()

    async def close(self) -> None:
        """Give no more orders, and delete objects that are no longer needed."""
        self._actors.close()
        with suppress(OSError):
            await self._fetcher.close()
            if self._parts.lease.is_held:
                await self._references.remove()

    async def exchange(self, order: ExchangeOrder) -> Exchange:
        """Have a request sent once by an actor; see `Executor.exchange`."""
        order.departure.reach = Reach.NOTHING
        known = await self._look_up(order.job)
        message = await self._message(order, known)
        if not order.is_timed:
            await order.wait()
        channel, announced = await self._pick(is_timed=order.is_timed), None
        try:
            if order.is_timed:
                announced = await self._announce(channel, message, order.job)
                report, given = await self._depart(channel, order)
            else:
                order.departure.reach = Reach.SENT
                report, given = await channel.give(message)
        except OrderLostError as exc:
            if exc.bug is not None:
                self._context.record_internal_error(exc.bug)
            if not exc.is_given:
                raise NotSentError(f"an actor was lost before its order: {exc}") from exc
            intents = exc.intents or announced
            assert intents is not None
            return await self._after_loss(order.attempt, intents, str(exc))
        assert isinstance(report, SendReport)
        intents = given.intents or announced
        assert intents is not None
        self._raise_if_refused(report, order.job)
        self._received.note(order.attempt, Received(channel, intents, given.images, known))
        return await self._exchange_of(order.attempt, report)

    async def _announce(self, channel: Channel, message: SendOrder, job: Job) -> Intents | None:
        """Have an actor prepare a request, and return the object with its intent.

        Raises NotSentError: it leaves only after another order.
        """
        try:
            report, given = await channel.give(message, at_once=True)
        except OrderLostError as exc:
            if exc.bug is not None:
                self._context.record_internal_error(exc.bug)
            raise NotSentError(f"an actor was lost before its order to send: {exc}") from exc
        assert isinstance(report, SendReport)
        self._raise_if_refused(report, job)
        return given.intents

    async def _depart(self, channel: Channel, order: ExchangeOrder) -> tuple[Report, Given]:
        """Let a request leave at its time. Raises NotSentError and OrderLostError."""
        clock = channel.clock
        left_s = await order.wait(clock.ahead_s)
        require_lease(self._context, self._parts.lease)
        at = clock.theirs(time.monotonic() + left_s)
        depart = DepartOrder(order.attempt, at, self._context.throttle.least_gap_s)
        order.departure.reach = Reach.SENT
        report, given = await channel.give(depart, at_once=True)
        if isinstance(report, SendReport):
            clock.note_late(report.late_s)
        return report, given

    async def _message(self, order: ExchangeOrder, known: Known) -> SendOrder:
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
            base_url=self._context.base_url,
            verify=order.job.verify,
            free=tuple([path for path, one in known.items() if not one.is_own]),
            is_timed=order.is_timed,
        )

    async def _look_up(self, job: Job) -> Known:
        """Return what the ledger knows of the paths that an actor must look at.

        Raises NotSentError.
        """
        ledger, root = self._context.ledger, job.root
        if not job.has_images:
            return dict.fromkeys(self._obstacles.paths_of(job), NOTHING_KNOWN)
        try:
            return {
                path: await ledger.run_one_of_many(path_histories, JobPlace(job.id, root, path))
                for path in self._obstacles.paths_of(job)
            }
        except LedgerWriteError as exc:
            self._context.throttle.stop(f"{LEDGER}: {exc}")
            raise NotSentError(str(exc)) from exc

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

    async def _pick(self, *, is_timed: bool) -> Channel:
        """Return an actor for a paid order. Raises NotSentError, and stops dispatch then."""
        require_lease(self._context, self._parts.lease)
        keeps_gap = is_timed and self._context.throttle.least_gap_s > 0
        try:
            return await (self._actors.pick_gap_keeper() if keeps_gap else self._actors.pick())
        except NoActorError as exc:
            self._context.throttle.stop(f"{CLUSTER}: {exc}")
            raise NotSentError(str(exc)) from None

    def _raise_if_refused(self, report: SendReport, job: Job) -> None:
        if report.is_taken:
            self._obstacles.note_taken(job)
        if report.storage_failed:
            self._context.throttle.stop(f"{STORAGE}: {report.storage_failed}")
        if report.refused:
            raise NotSentError(report.refused)

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

    async def _bring(self, attempt: AttemptId) -> bool:
        """Bring a response to the spool; return whether it is there.

        A bucket that cannot be read stops dispatch: what it may have must not be rebought.
        """
        try:
            return await self._received.bring(attempt)
        except StoreError as exc:
            self._context.throttle.stop(f"{STORAGE}: {exc}")
            return False

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

    async def fetch(self, order: FetchOrder) -> Fetched:
        """Have an image fetched and verified, and put at its final name; see `Executor.fetch`."""
        return await self._fetcher.fetch(order)

    def _notice(self, text: str) -> None:
        self._context.notice(text, text)


def _lost_exchange(detail: str) -> Exchange:
    return Exchange(reach=Reach.SENT, failure=Failure.INTERRUPTED, detail=detail)
