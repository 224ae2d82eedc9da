"""An actor: a process of a cluster that carries out orders. It decides nothing.

It has no ledger and never retries. It refuses an order whose intent exists already, and one of an
older driver. If its driver falls silent it finishes what it holds, puts the responses, and ends.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from batchgen.cluster.gate import Gate
from batchgen.cluster.intents import intent_name, put_once, response_name
from batchgen.cluster.messages import (
    MAX_REPORTED_BYTES,
    ActorSettings,
    FetchMessage,
    FetchReport,
    Greeting,
    NotFetched,
    RunSettings,
    SendOrder,
    SendReport,
    greeting,
)
from batchgen.cluster.staging import Stager
from batchgen.errors import BatchgenError
from batchgen.http.client import ApiClient
from batchgen.http.deadlines import Deadlines
from batchgen.http.download import Downloader
from batchgen.http.network import Access, Network
from batchgen.http.request import ApiRequest, BytesBody, TimedBody
from batchgen.job import AttemptId
from batchgen.outcomes.exchange import Exchange, Failure, Reach
from batchgen.spool.portable import portable_response
from batchgen.spool.response_part import ResponsePart
from batchgen.spool.spool import Spool
from batchgen.storage.store import Store
from batchgen.system.failpoints import Point, arm, hit
from batchgen.system.threads import in_disk_thread, in_store_thread

_KEPT_RESPONSES: Final = 128
"""Responses that stay on this machine too, so that their images need not be read back."""
_MAX_TEXT_BYTES: Final = 64 * 1024
"""Longer body texts are read from the bucket and not from the report."""
_WATCH_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class ActorParts:
    """What an actor gets from its own environment."""

    store: Store
    key: str | None
    network: Network


BuildParts = Callable[[ActorSettings], ActorParts]
"""Builds the parts on the actor's machine. Raises BatchgenError for what is missing there."""


class Actor:
    """Carries out the orders of one driver. All methods run in one event loop."""

    def __init__(self, settings: ActorSettings, build: BuildParts) -> None:
        self._settings = settings
        self._build = build
        self._parts: ActorParts
        self._client: ApiClient
        self._stager: Stager
        self._spool = Spool(Path(tempfile.mkdtemp(prefix="batchgen-actor-")))
        self._kept: OrderedDict[AttemptId, None] = OrderedDict()
        self._ready = dict[AttemptId, tuple[Gate, asyncio.Future[SendReport]]]()
        """Requests that wait for their time to send."""
        self._open = AsyncExitStack()
        self._heard = time.monotonic()
        self._held = 0
        """Orders in progress."""
        self._is_ending = False
        self._tasks = set[asyncio.Task[None]]()

    async def greet(self, nonce: bytes) -> Greeting:
        """Say which versions run here, and whether key and bucket are usable."""
        self._heard = time.monotonic()
        node = socket.gethostname()
        try:
            self._parts = await in_store_thread(self._build, self._settings)
        except BatchgenError as exc:
            return greeting(node, None, nonce, problem=str(exc))
        return greeting(node, self._parts.key, nonce)

    async def prepare(self, run: RunSettings) -> None:
        """Open the connections for the orders of a run."""
        arm(self._settings.failpoint)
        parts, deadlines = self._parts, Deadlines()
        client = ApiClient(
            key=parts.key, network=parts.network, deadlines=deadlines, deadline_s=run.deadline_s
        )
        private = self._settings.network.private_host
        downloader = Downloader(
            network=parts.network,
            deadlines=deadlines,
            access=Access.for_provider(run.base_url, parts.key, private),
            most=run.downloads,
        )
        self._client = await self._open.enter_async_context(client)
        await self._open.enter_async_context(downloader)
        self._stager = Stager(self._spool, parts.store, downloader)
        self._heard = time.monotonic()
        for watch in (deadlines.watch, self._watch_driver):
            self._tasks.add(asyncio.create_task(watch()))

    async def beat(self) -> int:
        """Note that the driver lives; return the number of orders in progress."""
        self._heard = time.monotonic()
        return self._held

    async def announce(self, order: SendOrder) -> SendReport:
        """Put the intent of an order and connect; `exchange` follows at the time to send."""
        report = await self._put_intent(order)
        if report.refused:
            return report
        gate = Gate()
        sending = asyncio.ensure_future(self._held_exchange(order, gate))
        self._ready[order.attempt] = gate, sending
        reached = asyncio.ensure_future(gate.reached())
        await asyncio.wait({sending, reached}, return_when=asyncio.FIRST_COMPLETED)
        reached.cancel()
        return report

    async def exchange(self, order: SendOrder) -> SendReport:
        """Send a request and put its response; report how far the exchange got."""
        ready = self._ready.pop(order.attempt, None)
        if ready is not None:
            gate, sending = ready
            gate.open()
            return await sending
        report = await self._put_intent(order)
        return report if report.refused else await self._held_exchange(order, None)

    async def fetch(self, message: FetchMessage) -> FetchReport:
        """Fetch and verify an image and put it under its staging name. May be repeated."""
        refusal = self._refusal(message.epoch)
        if refusal:
            return NotFetched(refusal)
        self._held += 1
        try:
            return await self._stager.stage(message)
        finally:
            self._held -= 1
            if message.image.url is None:
                await self._forget(message.image.attempt_id)

    def _refusal(self, epoch: int) -> str:
        self._heard = time.monotonic()
        if epoch < self._settings.epoch:
            return f"an order of epoch {epoch}; expected {self._settings.epoch}"
        return "this actor is ending" if self._is_ending else ""

    async def _put_intent(self, order: SendOrder) -> SendReport:
        refusal = self._refusal(order.epoch)
        if not refusal and order.key_variable != self._settings.key_variable:
            refusal = f"an order for the key in {order.key_variable}, which this actor lacks"
        if refusal:
            return SendReport(refused=refusal)
        store, name = self._parts.store, intent_name(order.epoch, order.attempt)
        try:
            taken = await in_store_thread(put_once, store, name, order.intent)
        except OSError as exc:
            return SendReport(refused=f"no intent: {exc}", storage_failed=str(exc))
        hit(Point.INTENT_PUT)
        if taken is not None:
            return SendReport(refused=taken)
        return SendReport()

    async def _held_exchange(self, order: SendOrder, gate: Gate | None) -> SendReport:
        self._held += 1
        try:
            return await self._exchange(order, gate)
        finally:
            self._held -= 1

    async def _exchange(self, order: SendOrder, gate: Gate | None) -> SendReport:
        body = BytesBody(order.body, order.content_type)
        request = ApiRequest(
            method=order.method,
            url=order.url,
            body=body if gate is None else TimedBody(body, gate.wait),
            headers=order.headers,
            route=order.route,
        )
        part = self._spool.part(order.attempt, may_hold=True)
        try:
            exchange = await self._client.exchange(request, part)
            data = await in_disk_thread(self._content, order.attempt, part, exchange)
        except OSError as exc:
            text = f"{socket.gethostname()}: the response can't be written: {exc}"
            return SendReport(
                storage_failed=text, reach=Reach.SENT, failure=Failure.INTERRUPTED, detail=text
            )
        failed, is_stored = "", False
        if data is not None and exchange.reach is Reach.COMPLETE:
            name = response_name(order.epoch, order.attempt)
            try:
                await in_store_thread(put_once, self._parts.store, name, data)
                is_stored = True
            except OSError as exc:
                failed = str(exc)
        hit(Point.RESPONSE_PUT)
        await self._keep(order.attempt)
        return _report(exchange, failed, None if is_stored else data)

    def _content(self, attempt: AttemptId, part: ResponsePart, exchange: Exchange) -> bytes | None:
        """Return the response as a spool file; None if nothing arrived. Raises OSError."""
        if exchange.reach < Reach.HEADERS:
            return None
        if (held := part.content()) is not None:
            return held
        whole = exchange.reach is Reach.COMPLETE
        found = self._spool.find(attempt) if whole else self._spool.find_cut(attempt)
        return None if found is None else portable_response(found)

    async def _keep(self, attempt: AttemptId) -> None:
        """Keep the files of a response until its images are fetched, of few responses at a time."""
        self._kept[attempt] = None
        if len(self._kept) > _KEPT_RESPONSES:
            await self._forget(next(iter(self._kept)))

    async def _forget(self, attempt: AttemptId) -> None:
        self._kept.pop(attempt, None)
        with suppress(OSError):
            await in_disk_thread(self._spool.remove, attempt)

    async def _watch_driver(self) -> None:
        """End this process after the driver fell silent and all orders are finished."""
        while True:
            await asyncio.sleep(_WATCH_S)
            if time.monotonic() - self._heard > self._settings.silent_s:
                self._is_ending = True
            if self._is_ending and not self._held:
                shutil.rmtree(self._spool.directory, ignore_errors=True)
                os._exit(0)

    async def close(self) -> None:
        """Remove what is left on this machine; the driver ends the process."""
        self._is_ending = True
        shutil.rmtree(self._spool.directory, ignore_errors=True)


def _report(exchange: Exchange, failed: str, file: bytes | None) -> SendReport:
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
    )
