"""The actors of a driver: who is alive, who has the fewest orders, and who is lost.

An actor is lost when Ray says so, for any reason, or when it gives no sign of life for the
time after which it would end by itself. A lost actor gets no orders any more, also if it comes
back. Another one may take its place; its orders are never repeated here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from batchgen.cluster.actor import BuildParts
from batchgen.cluster.messages import ActorSettings, Greeting, RunSettings
from batchgen.cluster.ray_nodes import RayNodes

BEATS: Final = 6
"""Signs of life in the time after which an actor counts as lost."""
MAX_REPLACED: Final = 32
"""Actors that are started in place of lost ones, in one run."""
_LATE_S: Final = 1.0
"""How long a driver that was itself stopped waits for replies that arrived meanwhile."""
_NO_ACTOR_S: Final = 120.0


class OrderLostError(Exception):
    """What became of an order is unknown: its actor is lost, or failed while it had it."""

    bug: Exception | None = None
    """What the actor raised; None if it is lost."""


class NoActorError(Exception):
    """No actor is left, and none is being started."""


@dataclass(slots=True, eq=False)
class Slot:
    """An actor, and the number of its orders."""

    handle: Any
    held: int = 0
    lost: asyncio.Future[str] = field(default_factory=lambda: asyncio.Future[str]())
    """Why it is lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """Actors that have greeted, before the run."""

    nodes: RayNodes
    settings: ActorSettings
    build: BuildParts
    handles: list[Any]
    ours: Greeting
    nonce: bytes


class Actors:
    """The actors of one run. Use it inside its event loop."""

    def __init__(self, started: Started, run: RunSettings, notice: Callable[[str], None]) -> None:
        self._started = started
        self._nodes = started.nodes
        self._run = run
        self._notice = notice
        self._slots: list[Slot] = []
        self._replaced = 0
        self._starting = 0
        self._changed = asyncio.Event()
        self._tasks = set[asyncio.Task[None]]()

    async def open(self) -> None:
        """Prepare the actors for the run, and watch them from now on."""
        for handle in self._started.handles:
            await self._add(handle)

    def close(self) -> None:
        """Stop watching."""
        for task in self._tasks:
            task.cancel()

    async def pick(self, preferred: Slot | None = None) -> Slot:
        """Return the preferred actor, else the one with the fewest orders. Raises NoActorError."""
        while True:
            if preferred is not None and not preferred.lost.done():
                return preferred
            live = [slot for slot in self._slots if not slot.lost.done()]
            if live:
                return min(live, key=lambda slot: slot.held)
            if not self._starting:
                raise NoActorError("no actor of the cluster is left")
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), _NO_ACTOR_S)
            except TimeoutError:
                raise NoActorError("no actor of the cluster could be started") from None

    async def call(self, slot: Slot, method: str, message: object) -> Any:
        """Give an order and return the report. Raises OrderLostError."""
        slot.held += 1
        try:
            reply = asyncio.ensure_future(self._nodes.call(slot.handle, method, message))
            await asyncio.wait({reply, slot.lost}, return_when=asyncio.FIRST_COMPLETED)
            if not reply.done():
                reply.add_done_callback(_retrieved)
                raise OrderLostError(slot.lost.result())
            error = reply.exception()
            if error is None:
                return reply.result()
            lost = OrderLostError(_said(error))
            if self._nodes.is_lost(error):
                self._lose(slot, type(error).__name__)
            elif isinstance(error, Exception):
                lost.bug = error
            raise lost from None
        finally:
            slot.held -= 1

    async def _add(self, handle: Any) -> None:
        slot = Slot(handle)
        try:
            await self._nodes.call(handle, "prepare", self._run)
        except Exception as exc:
            self._lose(slot, _said(exc))
            return
        self._slots.append(slot)
        self._changed.set()
        self._spawn(self._watch(slot))

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch(self, slot: Slot) -> None:
        """Send a sign of life at intervals; an actor without a reply is lost."""
        silent_s = self._started.settings.silent_s
        while not slot.lost.done():
            reply = asyncio.ensure_future(self._nodes.call(slot.handle, "beat"))
            await asyncio.wait({reply}, timeout=silent_s)
            if not reply.done():
                await asyncio.wait({reply}, timeout=_LATE_S)
            if not reply.done():
                reply.add_done_callback(_retrieved)
                self._lose(slot, f"no sign of life for {silent_s:g} s")
            elif (error := reply.exception()) is not None:
                self._lose(slot, _said(error))
            await asyncio.sleep(silent_s / BEATS)

    def _lose(self, slot: Slot, reason: str) -> None:
        if slot.lost.done():
            return
        slot.lost.set_result(reason)
        if slot in self._slots:
            self._slots.remove(slot)
        is_replaced = self._replaced < MAX_REPLACED
        then = "another one is started" if is_replaced else "it is not replaced"
        self._notice(f"an actor of the cluster is lost ({reason}); {then}")
        if is_replaced:
            self._replaced += 1
            self._starting += 1
            self._spawn(self._replace())

    async def _replace(self) -> None:
        started = self._started
        try:
            handle = self._nodes.start(started.settings, started.build)
            found: Greeting = await self._nodes.call(handle, "greet", started.nonce)
            difference = found.difference(started.ours)
            if difference:
                self._notice(f"an actor on {found.node} gets no orders: {difference}")
            else:
                await self._add(handle)
        except Exception as exc:  # the cluster may be gone; the actors that are left go on
            self._notice(f"an actor could not be started: {_said(exc)}")
        finally:
            self._starting -= 1
            self._changed.set()


def _retrieved(reply: asyncio.Future[Any]) -> None:
    """Mark a late error as retrieved, or asyncio logs a warning."""
    if not reply.cancelled():
        reply.exception()


def _said(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"[:300]
