"""The actors of a driver: who is alive, who has the fewest orders, and who is lost.

An actor is lost when Ray says so, for any reason, or when it gives no sign of life for the
time after which it would end by itself. A lost actor gets no orders any more, also if it comes
back. Another one may take its place; its orders are never repeated here. An actor whose node is
being drained ends what it has and gets no more requests, and another one takes its place at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from batchgen.cluster.actor import BuildParts
from batchgen.cluster.channel import Channel, said
from batchgen.cluster.messages import ActorSettings, Greeting, RunSettings
from batchgen.cluster.ray_nodes import RayNodes
from batchgen.text import counted

BEATS: Final = 6
"""Signs of life in the time after which an actor counts as lost."""
MAX_REPLACED: Final = 32
"""Actors that are started in place of lost ones, in one run."""
_EVEN: Final = 3
"""An actor may have this part more orders than the mean has, so that few calls carry them."""
_GAPS_KEPT: Final = 32
"""Successive requests that a rate limit keeps apart and that go to one actor."""
_LATE_S: Final = 1.0
"""How long a driver that was itself stopped waits for replies that arrived meanwhile."""
_NO_ACTOR_S: Final = 120.0
_CLOCK_SAMPLES: Final = 5
"""Of the clock of an actor before its first order; each sign of life is another one."""


class NoActorError(Exception):
    """No actor is left, and none is being started."""


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
        self._channels: list[Channel] = []
        self._leaving: list[Channel] = []
        """Those whose nodes are being drained."""
        self._gap_keeper: Channel | None = None
        self._gaps_left = 0
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
        for channel in (*self._channels, *self._leaving):
            channel.close()

    async def pick(self, preferred: Channel | None = None) -> Channel:
        """Return the preferred actor, else the one with the fewest orders. Raises NoActorError."""
        while True:
            if preferred is not None and preferred.lost is None:
                return preferred
            if self._channels:
                return self._least_busy()
            if not self._starting:
                raise NoActorError("no actor of the cluster is left")
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), _NO_ACTOR_S)
            except TimeoutError:
                raise NoActorError("no actor of the cluster could be started") from None

    async def pick_gap_keeper(self) -> Channel:
        """Return the actor of the last request, for up to 32 in a row. Raises NoActorError.

        Requests that a rate limit keeps apart stay so on one actor, even if one of them is late.
        """
        found = self._gap_keeper
        if found is None or found.lost is not None or found.is_leaving or not self._gaps_left:
            found = self._gap_keeper = await self.pick()
            self._gaps_left = _GAPS_KEPT
        self._gaps_left -= 1
        return found

    def _least_busy(self) -> Channel:
        """Return the actor with the fewest orders, or one about as busy that gathers requests."""
        channels = self._channels
        least = min(channels, key=lambda one: one.held)
        most = least.held + sum(one.held for one in channels) // (_EVEN * len(channels))
        gathering = [one for one in channels if one.gathered and one.held <= most]
        return max(gathering, key=lambda one: one.gathered, default=least)

    async def _add(self, handle: Any) -> None:
        channel = Channel(self._nodes, handle, self._started.settings)
        try:
            await self._nodes.call(handle, "prepare", self._run)
            for _ in range(_CLOCK_SAMPLES):
                await channel.beat()
        except Exception as exc:
            self._lost(channel, said(exc))
            return
        self._channels.append(channel)
        channel.open(partial(self._lost, channel))
        self._changed.set()
        self._spawn(self._watch(channel))

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch(self, channel: Channel) -> None:
        """Send a sign of life at intervals; an actor without a reply is lost."""
        silent_s = self._started.settings.silent_s
        while channel.lost is None:
            reply = asyncio.ensure_future(channel.beat())
            await asyncio.wait({reply}, timeout=silent_s)
            if not reply.done():
                await asyncio.wait({reply}, timeout=_LATE_S)
            if not reply.done():
                reply.add_done_callback(_retrieved)
                channel.lose(f"no sign of life for {silent_s:g} s")
            elif (error := reply.exception()) is not None:
                channel.lose(said(error))
            elif channel.is_leaving and channel in self._channels:
                self._channels.remove(channel)
                self._leaving.append(channel)
                held = counted(channel.held, "order")
                self._replace_actor(f"an actor ends {held} and gets no others, as its node leaves")
            await asyncio.sleep(silent_s / BEATS)

    def _lost(self, channel: Channel, reason: str) -> None:
        if channel in self._leaving:  # it was replaced
            self._notice(f"an actor of the cluster is lost, as its node left ({reason})")
            return
        if channel in self._channels:
            self._channels.remove(channel)
        self._replace_actor(f"an actor of the cluster is lost ({reason})")

    def _replace_actor(self, why: str) -> None:
        is_replaced = self._replaced < MAX_REPLACED
        then = "another one is started" if is_replaced else "it is not replaced"
        self._notice(f"{why}; {then}")
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
            self._notice(f"an actor could not be started: {said(exc)}")
        finally:
            self._starting -= 1
            self._changed.set()


def _retrieved(reply: asyncio.Future[Any]) -> None:
    """Mark a late error as retrieved, or asyncio logs a warning."""
    if not reply.cancelled():
        reply.exception()
