"""An actor: a process of a cluster that carries out orders. It decides nothing.

It has no ledger and never retries. It refuses orders whose intents exist already, and those of an
older driver. If its driver falls silent it finishes what it holds, puts the responses, and ends.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from batchgen.cluster.gathering import Gathering
from batchgen.cluster.messages import (
    URGENT,
    ActorSettings,
    AnyReport,
    Beat,
    DepartOrder,
    Failed,
    FetchMessage,
    Greeting,
    ImageReport,
    NotFetched,
    Order,
    Orders,
    PutOrder,
    PutReport,
    Report,
    RunSettings,
    SendOrder,
    SendReport,
    greeting,
)
from batchgen.cluster.references import ReceivedReferences
from batchgen.cluster.sending import Sender, Sent
from batchgen.cluster.staging import Stager
from batchgen.errors import BatchgenError
from batchgen.http.client import ApiClient
from batchgen.http.deadlines import Deadlines
from batchgen.http.download import Downloader
from batchgen.http.network import Access, Network
from batchgen.spool.spool import Spool
from batchgen.storage.store import Store
from batchgen.system.failpoints import arm
from batchgen.system.process import (
    disable_core_dumps,
    shorten_switch_interval,
    tune_allocator,
    tune_garbage_collector,
)
from batchgen.system.threads import in_store_thread

_WATCH_S: Final = 1.0
_LOOKS: Final = 12
"""Looks at the node in the time after which an actor counts as lost."""


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
        self._sender: Sender
        self._stager: Stager
        self._spool = Spool(Path(tempfile.mkdtemp(prefix="batchgen-actor-")))
        self._open = AsyncExitStack()
        self._heard = time.monotonic()
        self._held = 0
        """Orders in progress."""
        self._requests = 0
        """Those of them that a request waits for."""
        self._has_reports = asyncio.Event()
        self._reports = Gathering[tuple[int, AnyReport]](self._has_reports.set)
        """Reports that the driver does not have."""
        self._is_ending = False
        self._is_leaving = False
        """Whether the node is being drained."""
        self._tasks = set[asyncio.Task[Any]]()

    async def greet(self, nonce: bytes) -> Greeting:
        """Say which versions run here, and whether key and bucket are usable."""
        self._heard = time.monotonic()
        disable_core_dumps()
        node = socket.gethostname()
        try:
            self._parts = await in_store_thread(self._build, self._settings)
        except BatchgenError as exc:
            return greeting(node, None, nonce, problem=str(exc))
        return greeting(node, self._parts.key, nonce)

    async def prepare(self, run: RunSettings) -> None:
        """Open the connections for the orders of a run."""
        arm(self._settings.failpoint)
        # A collection or a thread with the lock would delay a request whose time has come.
        tune_allocator()
        shorten_switch_interval()
        tune_garbage_collector()
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
        await self._open.enter_async_context(client)
        await self._open.enter_async_context(downloader)
        store, spool = parts.store, self._spool
        references = ReceivedReferences(store, spool.directory / "references")
        self._sender = Sender(self._settings.epoch, spool, store, client, references)
        self._stager = Stager(spool, store, downloader)
        self._heard = time.monotonic()
        self._spawn(deadlines.watch())
        self._spawn(self._watch_driver())
        self._spawn(self._watch_node())

    def is_node_leaving(self) -> bool:
        """Return whether the node is being drained; blocks. Raises any error of the cluster."""
        return False

    async def beat(self) -> Beat:
        """Note that the driver lives; say what time it is here, and whether the node leaves."""
        self._heard = time.monotonic()
        return Beat(self._heard, self._is_leaving)

    async def take(self, orders: Orders) -> list[tuple[int, AnyReport]]:
        """Begin to carry out orders, and return reports of others; see `reports`."""
        self._heard = time.monotonic()
        refusal, intents = self._refusal(orders), None
        if orders.intents and not refusal:
            lines = [one.intent for _, one in orders.numbered if isinstance(one, SendOrder)]
            intents = self._spawn(self._sender.put_intents(orders.intents, b"\n".join(lines)))
        for number, order in orders.numbered:
            self._held += 1
            self._requests += isinstance(order, URGENT)
            self._spawn(self._carry_out(number, order, refusal, intents))
        return self._take_reports()

    async def reports(self) -> list[tuple[int, AnyReport]]:
        """Wait for reports and return them, each with the number of its order."""
        self._heard = time.monotonic()
        while True:
            await self._has_reports.wait()
            if found := self._take_reports():
                return found

    def _take_reports(self) -> list[tuple[int, AnyReport]]:
        self._has_reports.clear()
        return self._reports.take()

    def _refusal(self, orders: Orders) -> str:
        ours = self._settings
        if orders.epoch < ours.epoch:
            return f"an order of epoch {orders.epoch}; expected {ours.epoch}"
        if orders.key_variable != ours.key_variable:
            return f"an order for the key in {orders.key_variable}, which this actor lacks"
        return "this actor is ending" if self._is_ending else ""

    async def _carry_out(
        self,
        number: int,
        order: Order,
        refusal: str,
        intents: asyncio.Task[SendReport | None] | None,
    ) -> None:
        images: tuple[FetchMessage, ...] = ()
        try:
            done = _refused(order, refusal) if refusal else await self._report(order, intents)
            report, images = (done.report, done.images) if isinstance(done, Sent) else (done, ())
        except Exception as exc:  # a bug; the driver decides about the order
            report = Failed(repr(exc))
        finally:
            self._held -= 1
            self._requests -= isinstance(order, URGENT)
        self._add(number, report, is_urgent=isinstance(order, URGENT))
        for message in images:
            self._add(number, await self._fetched(message))
        if any(one.url is None for one in images):
            await self._sender.forget(images[0].attempt)

    def _add(self, number: int, report: AnyReport, *, is_urgent: bool = False) -> None:
        self._reports.add((number, report), is_urgent=is_urgent or not self._requests)

    async def _fetched(self, message: FetchMessage) -> ImageReport:
        """Fetch an image before the driver asks for it; after an error it asks."""
        try:
            return ImageReport(message.position, await self._stager.fetch(message))
        except Exception as exc:
            return ImageReport(message.position, NotFetched(repr(exc)))

    async def _report(
        self, order: Order, intents: asyncio.Task[SendReport | None] | None
    ) -> Report | Sent:
        match order:
            case SendOrder():
                assert intents is not None
                refused = await self._sender.refusal(order, intents)
                return await self._sender.send(order) if refused is None else refused
            case DepartOrder():
                return await self._sender.depart(order)
            case PutOrder():
                if self._is_silent:  # this process was stopped, and another one may have put it
                    return PutReport("the driver is silent")
                return await self._stager.put(order)
            case FetchMessage():
                report = await self._stager.fetch(order)
                if order.url is None:
                    await self._sender.forget(order.attempt)
                return report

    @property
    def _is_silent(self) -> bool:
        return time.monotonic() - self._heard > self._settings.silent_s

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _watch_node(self) -> None:
        """Look from time to time whether the node leaves; no reply to a beat waits for that."""
        while not self._is_leaving:
            with suppress(Exception):  # of many kinds; the next look may succeed
                self._is_leaving = await in_store_thread(self.is_node_leaving)
            await asyncio.sleep(self._settings.silent_s / _LOOKS)

    async def _watch_driver(self) -> None:
        """End this process after the driver fell silent and all orders are finished."""
        while True:
            await asyncio.sleep(_WATCH_S)
            if self._is_silent:
                self._is_ending = True
            if self._is_ending and not self._held:
                shutil.rmtree(self._spool.directory, ignore_errors=True)
                os._exit(0)

    async def close(self) -> None:
        """Remove what is left on this machine; the driver ends the process."""
        self._is_ending = True
        shutil.rmtree(self._spool.directory, ignore_errors=True)


def _refused(order: Order, why: str) -> Report:
    match order:
        case FetchMessage():
            return NotFetched(why)
        case PutOrder():
            return PutReport(why)
        case _:
            return SendReport(refused=why)
