"""The orders that a driver gives to one actor, and the reports that come back.

Orders of the same moment travel in one call, and so do reports, many of them in the reply to a call
that gives orders. One call for reports is always open. Nothing is given twice: what became of an
order whose actor is lost is unknown, unless the order had not left this machine.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

from batchgen.cluster.gathering import Gathering
from batchgen.cluster.intents import MAX_TOGETHER, intent_name
from batchgen.cluster.messages import (
    URGENT,
    ActorSettings,
    AnyReport,
    Beat,
    Failed,
    FetchReport,
    ImageReport,
    NotFetched,
    Order,
    Orders,
    Report,
    SendOrder,
    SendReport,
)
from batchgen.cluster.ray_nodes import RayNodes

_FIRST_AHEAD_S: Final = 0.03
_MAX_AHEAD_S: Final = 0.5
_AHEAD_MARGIN: Final = 1.25
_CLOCK_SAMPLES: Final = 12


class OrderLostError(Exception):
    """What became of an order is unknown: its actor is lost, or failed while it had it."""

    def __init__(self, reason: str, given: Given, *, bug: bool = False) -> None:
        super().__init__(reason)
        self.is_given = given.is_given
        """Whether the order may have left this machine."""
        self.intents = given.intents
        self.bug = RuntimeError(reason) if bug else None
        """What the actor raised; None if it is lost."""


@dataclass(slots=True)
class Intents:
    """An object with the intents of requests that were given together."""

    name: str
    left: int
    """Attempts that still need it."""


@dataclass(slots=True, eq=False)
class Given:
    """An order and its report."""

    number: int
    order: Order
    done: asyncio.Future[Report] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    is_given: bool = False
    intents: Intents | None = None
    """With its intent, once it is given; None for other orders."""
    images: dict[int, Fetching] = field(default_factory=dict)
    """By position, those that the actor fetches without an order."""
    early: dict[int, FetchReport] = field(default_factory=dict)
    """By position, what became of images whose report came before that of their request."""


@dataclass(slots=True)
class Fetching:
    """An image that an actor fetches."""

    url: str | None
    done: asyncio.Future[FetchReport]


class ActorClock:
    """The clock of an actor, as this process sees it."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque(maxlen=_CLOCK_SAMPLES)
        self.ahead_s = _FIRST_AHEAD_S
        """How long before its time an order to depart should be given."""

    def note(self, asked: float, theirs: float, heard: float) -> None:
        """Take a sample: the clock of the actor at some time between two of this process."""
        self._samples.append((heard - asked, theirs - (asked + heard) / 2))

    def theirs(self, ours: float) -> float:
        """Return the time of the actor's clock at a time of ours, by the fastest sample."""
        return ours + min(self._samples)[1]

    def note_late(self, late_s: float) -> None:
        """Give orders earlier from now on if one came too late."""
        if late_s > 0.002:
            self.ahead_s = min(_MAX_AHEAD_S, (self.ahead_s + late_s) * _AHEAD_MARGIN)


class Channel:
    """The orders in progress on one actor. Use it inside one event loop."""

    def __init__(self, nodes: RayNodes, handle: Any, settings: ActorSettings) -> None:
        self._nodes = nodes
        self._handle = handle
        self._settings = settings
        self._numbers = count()
        self._waiting: dict[int, Given] = {}
        self._fetching: dict[tuple[int, int], Fetching] = {}
        """By the number of the order and the position of the image."""
        self._outbox = Gathering[Given](self._flush)
        self._requests = 0
        """Orders without a report that a request waits for."""
        self.gathered = 0
        """Requests that wait to be given together."""
        self._tasks = set[asyncio.Task[None]]()
        self._on_lost: Callable[[str], None] = lambda reason: None
        self.clock = ActorClock()
        self.lost: str | None = None
        """Why the actor is lost; None while it is not."""
        self.is_leaving = False
        """Whether its node is being drained, so that it should get no more requests."""

    @property
    def held(self) -> int:
        """The number of orders without a report."""
        return len(self._waiting)

    def open(self, on_lost: Callable[[str], None]) -> None:
        """Collect reports from now on; ``on_lost`` is called once with the reason."""
        self._on_lost = on_lost
        self._spawn(self._collect())

    def close(self) -> None:
        """Collect no more reports."""
        for task in self._tasks:
            task.cancel()

    async def give(self, order: Order, *, at_once: bool = False) -> tuple[Report, Given]:
        """Give an order and return its report, and what else is known of it.

        Raises OrderLostError.
        """
        given = Given(next(self._numbers), order)
        if self.lost is not None:
            raise OrderLostError(self.lost, given)
        self._waiting[given.number] = given
        is_send, is_urgent = isinstance(order, SendOrder), isinstance(order, URGENT)
        self._outbox.add(given, is_urgent=is_urgent or not self._requests)
        self._requests += is_urgent
        self.gathered += is_send
        if at_once or self.gathered == MAX_TOGETHER:
            self._flush()
        try:
            report = await given.done
        finally:
            self._waiting.pop(given.number, None)
            self._requests -= is_urgent
            if not given.is_given and self._outbox.remove(given):
                self.gathered -= is_send
        if isinstance(report, Failed):
            raise OrderLostError(report.error, given, bug=True)
        return report, given

    async def beat(self) -> None:
        """Send a sign of life and note what the actor replies. Raises what Ray does."""
        asked = time.monotonic()
        reply: Beat = await self._nodes.call(self._handle, "beat")
        self.clock.note(asked, reply.clock_s, time.monotonic())
        self.is_leaving = reply.is_leaving

    def lose(self, reason: str) -> None:
        """Count the actor as lost, with its orders."""
        if self.lost is not None:
            return
        self.lost = reason
        self._outbox.take()  # what the waiting ones hear is that it was not given
        for given in self._waiting.values():
            if not given.done.done():
                given.done.set_exception(OrderLostError(reason, given))
        for fetching in self._fetching.values():
            if not fetching.done.done():
                fetching.done.set_result(NotFetched(reason))
        self._fetching.clear()
        self._on_lost(reason)

    def _flush(self) -> None:
        """Give what is in the outbox, with few requests in each call."""
        outbox, self.gathered = self._outbox.take(), 0
        sends = [one for one in outbox if isinstance(one.order, SendOrder)]
        others = [one for one in outbox if not isinstance(one.order, SendOrder)]
        for start in range(0, max(1, len(sends)), MAX_TOGETHER):
            together = sends[start : start + MAX_TOGETHER]
            if parts := [*together, *others]:
                self._spawn(self._deliver(parts, self._message(together, parts)))
            others = []

    def _message(self, sends: list[Given], parts: list[Given]) -> Orders:
        epoch = self._settings.epoch
        attempts = [one.order.attempt for one in sends if isinstance(one.order, SendOrder)]
        name = intent_name(epoch, *attempts) if attempts else ""
        for one in parts:
            one.is_given = True
        shared = Intents(name, len(sends))
        for one in sends:
            one.intents = shared
        return Orders(
            epoch=epoch,
            key_variable=self._settings.key_variable,
            intents=name,
            numbered=tuple((one.number, one.order) for one in parts),
        )

    async def _deliver(self, parts: list[Given], message: Orders) -> None:
        try:
            reports = await self._nodes.call(self._handle, "take", message)
        except Exception as exc:  # the orders may have arrived all the same
            if self._nodes.is_lost(exc):
                self.lose(type(exc).__name__)
                return
            for given in parts:
                if not given.done.done():
                    given.done.set_exception(OrderLostError(said(exc), given, bug=True))
            self.lose(said(exc))  # the reply may have had reports of other orders
        else:
            self._note_all(reports)

    async def _collect(self) -> None:
        while self.lost is None:
            try:
                reports = await self._nodes.call(self._handle, "reports")
            except Exception as exc:  # no report can be trusted to come after that
                self.lose(said(exc))
                return
            self._note_all(reports)

    def _note_all(self, reports: Sequence[tuple[int, AnyReport]]) -> None:
        for number, report in reports:
            self._note(number, report)

    def _note(self, number: int, report: AnyReport) -> None:
        given = self._waiting.get(number)
        is_waiting = given is not None and not given.done.done()
        if isinstance(report, ImageReport):
            fetching = self._fetching.pop((number, report.position), None)
            if fetching is not None and not fetching.done.done():
                fetching.done.set_result(report.report)
            elif given is not None and is_waiting:  # replies to two calls may overtake each other
                given.early[report.position] = report.report
            return
        if given is None or not is_waiting:
            return
        if isinstance(report, SendReport):
            for position, url in report.fetching:
                one = Fetching(url, asyncio.get_running_loop().create_future())
                given.images[position] = one
                if position in given.early:
                    one.done.set_result(given.early[position])
                else:
                    self._fetching[number, position] = one
        given.done.set_result(report)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def said(error: BaseException) -> str:
    """Return the last line of an error and its type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"[:300]
