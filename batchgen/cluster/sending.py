"""Send paid requests on an actor: intents first, and each response into the bucket."""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from batchgen.cluster.gate import Gate, LastDeparture
from batchgen.cluster.intents import put_once, response_name
from batchgen.cluster.messages import (
    MAX_REPORTED_BYTES,
    DepartOrder,
    FetchMessage,
    Reference,
    SendOrder,
    SendReport,
)
from batchgen.cluster.references import ReceivedReferences
from batchgen.http.client import ApiClient
from batchgen.http.request import ApiRequest
from batchgen.job import AttemptId
from batchgen.outcomes.exchange import Exchange, Failure, Reach
from batchgen.providers.adapters.multipart import FilePiece, PiecedBody
from batchgen.providers.adapters.registry import ADAPTERS, Route
from batchgen.spool.portable import portable_response
from batchgen.spool.response_part import ResponsePart
from batchgen.spool.spool import Spool
from batchgen.storage.store import Store
from batchgen.system.failpoints import Point, hit
from batchgen.system.threads import in_disk_thread, in_store_thread
from batchgen.urls import absolute_url

_KEPT_RESPONSES: Final = 128
"""Responses that stay on this machine too, so that their images need not be read back."""
_MAX_TEXT_BYTES: Final = 64 * 1024
"""Longer body texts are read from the bucket and not from the report."""


@dataclass(frozen=True, slots=True)
class _Ready:
    """A request that waits for its time to leave."""

    gate: Gate
    sending: asyncio.Future[Sent]


@dataclass(frozen=True, slots=True)
class Sent:
    """A request that was sent, or why it was not, and the images to fetch next."""

    report: SendReport
    images: tuple[FetchMessage, ...] = ()


class Sender:
    """Sends the requests of one run. All methods run in one event loop."""

    def __init__(
        self,
        epoch: int,
        spool: Spool,
        store: Store,
        client: ApiClient,
        references: ReceivedReferences,
    ) -> None:
        self._epoch = epoch
        self._spool = spool
        self._store = store
        self._client = client
        self._references = references
        self._kept: OrderedDict[AttemptId, None] = OrderedDict()
        self._ready = dict[AttemptId, _Ready]()
        self._departed = LastDeparture()

    async def put_intents(self, name: str, data: bytes) -> SendReport | None:
        """Put the intents of requests; return why none of them may be sent."""
        try:
            taken = await in_store_thread(put_once, self._store, name, data)
        except OSError as exc:
            return SendReport(refused=f"no intent: {exc}", storage_failed=str(exc))
        hit(Point.INTENT_PUT)
        return None if taken is None else SendReport(refused=taken)

    async def refusal(
        self, order: SendOrder, intents: asyncio.Task[SendReport | None]
    ) -> SendReport | None:
        """Wait until the intents are put; return why a request may not be sent all the same.

        A request whose image could not be saved is refused: it would be paid for to no purpose.
        """
        taken, failed = "", ""
        try:
            if order.free:
                taken = await in_store_thread(_taken, self._store, order.free)
        except OSError as exc:
            failed = str(exc)
        refused = await intents
        if refused is None and failed:
            return SendReport(refused=f"the bucket can't be read: {failed}", storage_failed=failed)
        if refused is None and taken:
            return SendReport(refused=f"an object is at {taken}", is_taken=True)
        return refused

    async def send(self, order: SendOrder) -> Sent:
        """Send a request whose intent is put, and put its response; report how far it got.

        A timed one is connected only, and `depart` follows.
        """
        try:
            body = await self._body(order)
        except OSError as exc:
            return Sent(SendReport(refused=f"a reference image cannot be read: {exc}"))
        if not order.is_timed:
            return await self._exchange(order, body, None)
        gate = Gate(self._departed)
        sending = asyncio.ensure_future(self._exchange(order, body, gate))
        self._ready[order.attempt] = _Ready(gate, sending)
        reached = asyncio.ensure_future(gate.reached())
        await asyncio.wait({sending, reached}, return_when=asyncio.FIRST_COMPLETED)
        reached.cancel()
        return Sent(SendReport())

    async def depart(self, order: DepartOrder) -> Sent:
        """Let a request leave that is connected, and do the rest of `send`."""
        ready = self._ready.pop(order.attempt)
        ready.gate.open(order.at, order.gap_s)
        return await ready.sending

    async def _body(self, order: SendOrder) -> PiecedBody:
        pieces: list[bytes | FilePiece] = []
        for piece in order.pieces:
            if isinstance(piece, Reference):
                path = await self._references.path_of(piece)
                pieces.append(FilePiece(path, piece.size, piece.sha256, piece.base64))
            else:
                pieces.append(piece)
        return PiecedBody(order.content_type, tuple(pieces))

    async def _exchange(self, order: SendOrder, body: PiecedBody, gate: Gate | None) -> Sent:
        request = ApiRequest(
            method=order.method,
            url=order.url,
            body=body,
            headers=order.headers,
            route=order.route,
        )
        part = self._spool.part(order.attempt, may_hold=True)
        try:
            wait = None if gate is None else gate.wait
            exchange = await self._client.exchange(request, part, wait=wait)
            data = part.content()
            if data is None:
                data = await in_disk_thread(self._content, order.attempt, exchange)
                await self._keep(order.attempt)
        except OSError as exc:
            text = f"{socket.gethostname()}: the response can't be written: {exc}"
            report = SendReport(
                storage_failed=text, reach=Reach.SENT, failure=Failure.INTERRUPTED, detail=text
            )
            return Sent(report)
        failed, is_stored = "", False
        if data is not None and exchange.reach is Reach.COMPLETE:
            name = response_name(self._epoch, order.attempt)
            try:
                await in_store_thread(put_once, self._store, name, data)
                is_stored = True
            except OSError as exc:
                failed = str(exc)
        hit(Point.RESPONSE_PUT)
        late_s = 0.0 if gate is None else gate.late_s
        images = await self._images(order, exchange, part) if is_stored else ()
        report = _report(exchange, failed, None if is_stored else data, late_s)
        fetching = tuple([(one.position, one.url) for one in images])
        return Sent(replace(report, fetching=fetching), images)

    async def _images(
        self, order: SendOrder, exchange: Exchange, part: ResponsePart
    ) -> tuple[FetchMessage, ...]:
        """Return the images of a response, which the driver will want next.

        To fetch them before it says so costs nothing, and spares it the orders.
        """
        found = _found_images(order, exchange)
        if any(url is None for _, url in found) and part.is_held:
            try:
                await part.write_held()
            except OSError:
                return ()
            await self._keep(order.attempt)
        return tuple(
            [
                FetchMessage(
                    attempt=order.attempt,
                    position=position,
                    url=url,
                    response=response_name(self._epoch, order.attempt),
                    verify=order.verify,
                    is_video=False,
                )
                for position, url in found
            ]
        )

    def _content(self, attempt: AttemptId, exchange: Exchange) -> bytes | None:
        """Return the response as a spool file; None if nothing arrived. Raises OSError."""
        if exchange.reach < Reach.HEADERS:
            return None
        whole = exchange.reach is Reach.COMPLETE
        found = self._spool.find(attempt) if whole else self._spool.find_cut(attempt)
        return None if found is None else portable_response(found)

    async def _keep(self, attempt: AttemptId) -> None:
        """Keep the files of a response until its images are fetched, of few responses at a time."""
        self._kept[attempt] = None
        if len(self._kept) > _KEPT_RESPONSES:
            await self.forget(next(iter(self._kept)))

    async def forget(self, attempt: AttemptId) -> None:
        """Remove the files of a response from this machine."""
        self._kept.pop(attempt, None)
        with suppress(OSError):
            await in_disk_thread(self._spool.remove, attempt)


def _taken(store: Store, names: tuple[str, ...]) -> str:
    """Return the first of these names that an object has; empty if none has. Raises OSError."""
    return next((name for name in names if store.info(name) is not None), "")


def _found_images(order: SendOrder, exchange: Exchange) -> list[tuple[int, str | None]]:
    """Return the positions and URLs of the images of a response, which may have none."""
    if exchange.scanned is None or exchange.status is None or not 200 <= exchange.status < 300:
        return []
    adapter = ADAPTERS[Route(order.route)]
    response = adapter.read_response(exchange.scanned.text, exchange.headers or {})
    return [
        (ref.index, None if ref.url is None else absolute_url(ref.url, order.base_url))
        for ref in response.images
        if ref.task is None
    ]


def _report(exchange: Exchange, failed: str, file: bytes | None, late_s: float) -> SendReport:
    text = exchange.scanned.text if exchange.scanned is not None else None
    if text is not None and len(text) > _MAX_TEXT_BYTES:
        text = None
    if file is not None and len(file) > MAX_REPORTED_BYTES:
        file = None
    return SendReport(
        storage_failed=failed,
        reach=exchange.reach,
        failure=exchange.failure,
        detail=exchange.detail,
        status=exchange.status,
        headers=dict(exchange.headers) if exchange.headers is not None else None,
        upload_bytes=exchange.upload_bytes,
        text=text,
        size=exchange.scanned.size if exchange.scanned is not None else 0,
        file=file,
        late_s=late_s,
    )
