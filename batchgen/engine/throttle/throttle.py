"""Decides when the next request may start: one throttle for all workers of a run.

`ThrottleCore` holds the rules and takes the time as an argument; `Throttle` lets tasks wait for it.
Neither knows what a request is, nor whether one should be sent again.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

import anyio

from batchgen.engine.throttle.limits import (
    BREAKER,
    OUTAGE,
    RETRY_AFTER,
    THROTTLED,
    UNREACHABLE,
    Decision,
    DispatchStopped,
    Hold,
    Limits,
    Signal,
    Status,
    Stopped,
    Ticket,
    Wait,
)
from batchgen.engine.throttle.rules import (
    BREAKER_ROW,
    Breaker,
    Drought,
    Pressure,
    Reach,
    Repeats,
    rate,
)

_GRAIN_S: Final = 1e-6
"""Clocks and sums of floats are not finer than this; less is no reason to wait."""
LEAD_S: Final = 0.05
"""How long before its moment a request with a rate is let go, to be written down meanwhile."""
_SHOWN_WAIT_S: Final = 3.0
"""A shorter wait for a place among all runs is the ordinary pace, and not worth a word."""
_TIMER_S: Final = 0.001
"""So much later than asked for an event loop may wake."""


class ThrottleCore:
    """All rules about when a request may start. Times are seconds of one monotonic clock."""

    def __init__(self, limits: Limits, rng: random.Random | None = None) -> None:
        self._limits = limits
        self._requests = rate(limits.requests_per_minute, limits.burst)
        self._images = rate(limits.images_per_minute, limits.burst)
        self._pressure = Pressure(limits.concurrency, rng or random.Random())
        self._reach = Reach(limits.unreachable_s)
        self._breaker = Breaker(max(BREAKER_ROW, limits.concurrency), limits.max_probes)
        self._repeats = Repeats()
        self._drought = Drought(limits.max_throttled_s)
        self._said = self._throttled_said = ""
        self._in_flight: set[int] = set()
        self._next_id = 0
        self._probe: int | None = None
        self._stopped: str | None = None

    def try_start(self, now: float, images: int = 1) -> Decision:
        """A ticket if a request for so many images may leave now, else how long to wait or why not.

        Every ticket must come back through `finish`.
        """
        if self._stopped is not None:
            return Stopped(reason=self._stopped)
        self._pressure.regrow(now)
        at, why = self._earliest(images)
        if at > now + _GRAIN_S:
            return Wait(seconds=None if math.isinf(at) else at - now, why=why)
        if len(self._in_flight) >= self._pressure.width:
            grow_at = self._pressure.grow_at
            return Wait(seconds=None if math.isinf(grow_at) else grow_at - now, why=Hold.SLOT)
        return self._issue(now, images)

    def finish(
        self,
        ticket: Ticket,
        signal: Signal,
        now: float,
        retry_after_s: float | None = None,
        said: str = "",
    ) -> None:
        """Take a ticket back. A `retry_after_s` that is not a positive number counts as absent.

        ``said`` is the code and message of a response that was no success. Raises KeyError for a
        ticket that is not in flight.
        """
        self._in_flight.remove(ticket.id)
        self._said = said or self._said
        if ticket.id == self._probe:
            self._probe = None
        if signal in (Signal.OK, Signal.NEUTRAL):
            self._repeats.succeeded()
        elif signal is not Signal.CANCELLED:
            self._repeats.failed(now)
        match signal:
            case Signal.CANCELLED:
                self._give_back(ticket)
            case Signal.UNREACHABLE:
                if ticket.probe:
                    self._breaker.probe_missed(now)
                if self._reach.failed(ticket, now, self._next_id):
                    self.stop(UNREACHABLE)
            case Signal.AMBIGUOUS:
                self._reach.handed_over(ticket)
                if self._breaker.ambiguous(ticket, now, self._next_id):
                    self.stop(BREAKER)
            case Signal.ERRORED:
                self._reach.answered()
                if self._breaker.errored(ticket, now, self._next_id):
                    self.stop(OUTAGE)
            case Signal.OK | Signal.NEUTRAL | Signal.THROTTLED:
                self._reach.answered()
                self._breaker.answered()
                if signal is Signal.OK:
                    self._drought.succeeded()
                    self._pressure.succeeded(ticket)
                elif signal is Signal.THROTTLED:
                    self._throttled_said = said
                    self._slow_down(ticket, now, retry_after_s)

    def tried(self, *, repeat: bool) -> None:
        """A job is about to be asked for, for the first time in this run or again."""
        self._repeats.tried(repeat=repeat)

    def repeat_wait_s(self, now: float) -> float:
        """Seconds until one more job may be asked for again; 0.0 but for outages."""
        return self._repeats.wait_s(now)

    @property
    def stopped(self) -> bool:
        """Whether nobody may start any more."""
        return self._stopped is not None

    def stop(self, reason: str) -> None:
        """Let nobody start any more; the first reason stays."""
        if self._stopped is None:
            self._stopped = reason

    def status(self, now: float) -> Status:
        self._pressure.regrow(now)
        return Status(
            in_flight=len(self._in_flight),
            width=self._pressure.width,
            waiting_for=self._waiting_for(now),
            stopped=self._stopped,
            said=self._said,
        )

    def _earliest(self, images: int) -> tuple[float, Hold]:
        """When a start may be, slots aside, and what holds it back the longest."""
        probe_under_way = self._probe is not None
        holds = [(self._pressure.cool_until, Hold.COOL_DOWN)]
        if self._requests:
            holds.append((self._requests.earliest(1), Hold.RATE))
        if self._images:
            holds.append((self._images.earliest(images), Hold.RATE))
        if self._breaker.probe_at is not None:
            at = math.inf if probe_under_way else self._breaker.probe_at
            holds.append((at, Hold.BREAKER))
        if self._reach.probe_at is not None:
            at = math.inf if probe_under_way else self._reach.probe_at
            holds.append((at, Hold.UNREACHABLE))
        return max(holds, key=lambda hold: hold[0])

    def _issue(self, now: float, images: int) -> Ticket:
        probe = self._breaker.probe_at is not None or self._reach.probe_at is not None
        ticket = Ticket(id=self._next_id, images=images, probe=probe)
        self._next_id += 1
        self._in_flight.add(ticket.id)
        if probe:
            self._probe = ticket.id
        if self._requests:
            self._requests.take(1, now)
        if self._images:
            self._images.take(images, now)
        return ticket

    def _give_back(self, ticket: Ticket) -> None:
        """Undo the newest start's use of the rates.

        An older one's share has been waited for by those after it, who keep their distance.
        """
        if ticket.id == self._next_id - 1:
            for rate in (self._requests, self._images):
                if rate:
                    rate.undo_last()

    def _slow_down(self, ticket: Ticket, now: float, retry_after_s: float | None) -> None:
        if retry_after_s is not None and not (math.isfinite(retry_after_s) and retry_after_s > 0):
            retry_after_s = None
        if retry_after_s is not None and retry_after_s > self._limits.max_retry_after_s:
            self.stop(RETRY_AFTER)
        if self._drought.throttled(now):
            self.stop(THROTTLED)
        self._pressure.throttled(ticket, now, self._next_id, retry_after_s)

    def _waiting_for(self, now: float) -> str | None:
        at, why = self._earliest(images=1)
        if self._stopped is not None or at <= now + _GRAIN_S:
            return None
        if math.isinf(at):
            return f"{why}: probe under way"
        if why is Hold.COOL_DOWN:
            said = self._throttled_said or "429 or 503"
            return f"{why} {said}: {math.ceil(at - now)} s"
        prefix = "probe in " if why in (Hold.BREAKER, Hold.UNREACHABLE) else ""
        return f"{why}: {prefix}{math.ceil(at - now)} s"


class Throttle:
    """Lets the tasks of one event loop wait for their start, first come, first served.

    ``take_place`` asks for a place among all runs that share a key's limits, for so many images; it
    gives its moment on this throttle's clock. Requests leave ``least_gap_s`` apart at least.
    """

    def __init__(
        self,
        core: ThrottleCore,
        clock: Callable[[], float] = time.monotonic,
        *,
        take_place: Callable[[int], Awaitable[float]] | None = None,
        least_gap_s: float = 0.0,
    ) -> None:
        self._core = core
        self._clock = clock
        self._take_place = take_place
        self._least_gap_s = least_gap_s
        self._left_at = -math.inf
        self._ended = anyio.Event()
        self._turn = anyio.Lock()
        self._changed: anyio.Event | None = None
        self._then: Callable[[], None] | None = None
        self._place: float | None = None
        """When the last place reserved in the ledger comes, on this throttle's clock."""

    async def start(self, images: int = 1) -> Ticket:
        """Wait until a request for so many images may leave.

        The ticket must come back through `finish`. Raises DispatchStopped, to everyone who waits,
        as soon as the throttle stops.
        """
        ticket = await self._granted(images)
        if self._take_place is None:
            return ticket
        try:
            self._place = place = await self._take_place(images)
            with anyio.move_on_after(place - self._clock()):
                await self._ended.wait()
                raise DispatchStopped(self._core.status(self._clock()).stopped or "")
        except BaseException:
            self.finish(ticket, Signal.CANCELLED)
            raise
        return replace(ticket, leaves_at=place + LEAD_S)

    async def leave(self, ticket: Ticket) -> None:
        """Wait for the moment of the request, which all that is done before it comes after.

        Else what the disk takes longer for one request than for the next would bring the two closer
        together than the provider allows. A cancellation is told by whatever follows.
        """
        if ticket.leaves_at is None:
            return
        with anyio.CancelScope(shield=True):
            while (wait_s := self._leaves_at(ticket.leaves_at) - self._clock()) > 0:  # noqa: ASYNC110  # a clock has no event
                # The last moments by hand: an event loop wakes a millisecond late.
                await anyio.sleep(max(0.0, wait_s - _TIMER_S))
        self._left_at = self._clock()

    def _leaves_at(self, place: float) -> float:
        return max(place, self._left_at + self._least_gap_s)

    async def _granted(self, images: int) -> Ticket:
        if not self._turn.locked():
            at_once = self._core.try_start(self._clock(), images)
            if isinstance(at_once, Ticket):
                return at_once
        async with self._turn:
            while True:
                # Nothing is awaited between a grant and the return, so that a cancelled task
                # never takes a ticket with it.
                match self._core.try_start(self._clock(), images):
                    case Ticket() as ticket:
                        return ticket
                    case Stopped(reason=reason):
                        raise DispatchStopped(reason)
                    case Wait(seconds=seconds):
                        self._changed = anyio.Event()
                        with anyio.move_on_after(seconds):
                            await self._changed.wait()

    def finish(
        self,
        ticket: Ticket,
        signal: Signal,
        retry_after_s: float | None = None,
        said: str = "",
    ) -> None:
        """Take a ticket back with what became of its request; see `ThrottleCore.finish`."""
        self._core.finish(ticket, signal, self._clock(), retry_after_s, said)
        self._wake()
        if self._core.stopped:
            self._end()

    @property
    def stopped(self) -> bool:
        """Whether nobody may start any more."""
        return self._core.stopped

    def stop(self, reason: str) -> None:
        """Let nobody start any more, those who wait included."""
        self._core.stop(reason)
        self._wake()
        self._end()

    def when_stopped(self, then: Callable[[], None]) -> None:
        """Call ``then`` once dispatch stops; it wakes those who wait for something else."""
        self._then = then

    def tried(self, *, repeat: bool) -> None:
        """A job is about to be asked for, for the first time in this run or again."""
        self._core.tried(repeat=repeat)

    def repeat_wait_s(self) -> float:
        """Seconds until one more job may be asked for again; 0.0 but for outages."""
        return self._core.repeat_wait_s(self._clock())

    def status(self) -> Status:
        """The throttle now, for a person."""
        now = self._clock()
        status = self._core.status(now)
        if self._place is None or self._core.stopped or self._place - now <= _SHOWN_WAIT_S:
            return status
        wait = f"{Hold.RATE}, a place among all runs of this key: {math.ceil(self._place - now)} s"
        return replace(status, waiting_for=status.waiting_for or wait)

    def _end(self) -> None:
        self._ended.set()
        if self._then is not None:
            self._then()

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
