"""Decides when the next request may start: one throttle for all workers of a run.

`ThrottleCore` holds the rules and takes the time as an argument; `Throttle` lets tasks wait for it.
Neither knows what a request is, nor whether one should be sent again.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from typing import Final, TypeAlias

import anyio

UNREACHABLE: Final = "unreachable"
"""Stop reason: nothing was reached for `Limits.unreachable_s`."""
BREAKER: Final = "breaker"
"""Stop reason: the breaker's probes stayed without a trustworthy answer."""
OUTAGE: Final = "outage"
"""Stop reason: the provider answered every probe of half an hour with an error of its own."""
RETRY_AFTER: Final = "retry_after"
"""Stop reason: the provider asked for a longer wait than `Limits.max_retry_after_s`."""

HEADROOM: Final = 0.99
"""Share of a rate that is used, so that jitter on the way does not make two requests too close."""
_GRAIN_S: Final = 1e-6
"""Clocks and sums of floats are not finer than this; less is no reason to wait."""
LEAD_S: Final = 0.05
"""How long before its moment a request with a rate is let go, to be written down meanwhile."""
_TIMER_S: Final = 0.001
"""So much later than asked for an event loop may wake."""
_GROW_EVERY_S: Final = 30.0
_COOL_DOWN_FLOOR_S: Final = 1.0
_COOL_DOWN_MAX_S: Final = 60.0
_JITTER_S: Final = 0.5
_UNREACHABLE_ROW: Final = 5
_UNREACHABLE_MAX_S: Final = 30.0
_BREAKER_ROW: Final = 3
_BREAKER_EVERY_S: Final = 60.0
_MAX_FREE_PROBES: Final = 30
"""Errors of the provider's own cost nothing, so it is given longer than where answers are lost."""
_REPEATS_PERCENT: Final = 10
_REPEAT_EVERY_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a run may ask of its provider."""

    concurrency: int = 8
    """Requests in flight, at least 1."""
    requests_per_minute: float | None = None
    images_per_minute: float | None = None
    burst: int = 1
    """What the provider takes at once on top of the even rate, in requests and in images alike."""
    max_probes: int = 3
    """Requests that an open breaker risks before it stops the run."""
    unreachable_s: float = 300.0
    max_retry_after_s: float = 3600.0
    """The longest wait asked by the provider that is sat out; a longer one stops the run."""


class Signal(Enum):
    """What the end of a request says about the provider."""

    OK = "ok"
    THROTTLED = "throttled"
    """Answered: too many requests, or overloaded."""
    UNREACHABLE = "unreachable"
    """Not connected: refused, no such host."""
    ERRORED = "errored"
    """Answered: an error of the provider's own, for no fault of the request."""
    AMBIGUOUS = "ambiguous"
    """Handed over, but without a trustworthy answer."""
    NEUTRAL = "neutral"
    """Answered in any other way, as by refusing this one request."""
    CANCELLED = "cancelled"
    """Never sent."""


class Hold(StrEnum):
    """What a start waits for; the value is the sentence's beginning in a status."""

    SLOT = "requests in flight"
    RATE = "rate limit"
    COOL_DOWN = "cool-down after 429 or 503"
    UNREACHABLE = "provider unreachable"
    BREAKER = "breaker"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """Permission for one request, to be handed back with what became of it."""

    id: int
    """Counts up from 0 in the order of starts."""
    images: int
    probe: bool
    """The only request let through to see whether the provider is back."""
    leaves_at: float | None = None
    """On the throttle's clock, where a rate is to be kept to the millisecond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Not yet."""

    seconds: float | None
    """Until asking again can succeed; None: not before a request in flight ends."""
    why: Hold


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """Never again in this run."""

    reason: str


Decision: TypeAlias = Ticket | Wait | Stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The throttle at one moment, for a person."""

    in_flight: int
    width: int
    """How many may be in flight now; less than asked for after the provider throttled."""
    waiting_for: str | None
    """Why nothing starts just now, as `rate limit: 12 s`; None where only slots may be short."""
    stopped: str | None


class DispatchStopped(Exception):
    """No request may start any more; `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"dispatch has stopped: {reason}")
        self.reason: Final = reason


class _Rate:
    """Even spacing slightly under a rate, with a burst (GCRA: the bucket as one due time).

    A start of more units than the burst waits until everything before it is worked off.
    """

    def __init__(self, per_minute: float, burst: int) -> None:
        self._interval_s = 60.0 / (per_minute * HEADROOM)
        self._burst = burst
        self._due = -math.inf
        self._due_before = -math.inf

    def earliest(self, units: int) -> float:
        return self._due - max(0, self._burst - units) * self._interval_s

    def take(self, units: int, now: float) -> None:
        self._due_before = self._due
        self._due = max(now, self._due) + units * self._interval_s

    def undo_last(self) -> None:
        self._due = self._due_before


class _Pressure:
    """Cool-down and width: how throttled answers slow everybody down, and how that passes.

    Throttled answers to requests that started before the last slowing down belong to the same
    episode; they may prolong its cool-down, but they neither halve again nor double again.
    """

    def __init__(self, limit: int, rng: random.Random) -> None:
        self.width = limit
        self.cool_until = -math.inf
        self.grow_at = math.inf
        self._limit = limit
        self._rng = rng
        self._doublings = 0
        self._next_episode = 0

    def regrow(self, now: float) -> None:
        """Give one slot back for each 30 s without pressure."""
        while self.grow_at <= now:
            self.width += 1
            self.grow_at += _GROW_EVERY_S
            if self.width >= self._limit:
                self.grow_at = math.inf

    def throttled(
        self, ticket: Ticket, now: float, next_id: int, retry_after_s: float | None
    ) -> None:
        self.regrow(now)
        wait_s = retry_after_s or 0.0
        if ticket.id >= self._next_episode:
            self._next_episode = next_id
            self.width = max(1, self.width // 2)
            wait_s = retry_after_s or self._backoff_s()
            self._doublings += 1
        if wait_s:
            until = now + wait_s + self._rng.uniform(0.0, _JITTER_S)
            self.cool_until = max(self.cool_until, until)
        if self.width < self._limit:
            self.grow_at = max(now, self.cool_until) + _GROW_EVERY_S

    def succeeded(self, ticket: Ticket) -> None:
        """Note a success; one that was under way before the last slowing down proves nothing."""
        if ticket.id >= self._next_episode:
            self._doublings = 0

    def _backoff_s(self) -> float:
        ceiling = min(_COOL_DOWN_MAX_S, 2.0 ** min(self._doublings, 10))
        return self._rng.uniform(_COOL_DOWN_FLOOR_S, ceiling)


class _Reach:
    """Pauses while the provider cannot be connected to, with one probe at a time."""

    def __init__(self, unreachable_s: float) -> None:
        self.probe_at: float | None = None
        """When the next probe may start; None while not paused."""
        self._unreachable_s = unreachable_s
        self._row = 0
        self._dark_since = 0.0
        self._after_dark = 0
        self._after_pause = 0
        self._backoff_s = 1.0

    def answered(self) -> None:
        self._row = 0
        self.probe_at = None

    def handed_over(self, ticket: Ticket) -> None:
        """Note a request that was connected; before the row of failures, this proves nothing."""
        if ticket.id >= self._after_dark:
            self.answered()

    def failed(self, ticket: Ticket, now: float, next_id: int) -> bool:
        """Note a failed connection; True where the provider has been out of reach too long."""
        if self._row == 0:
            self._dark_since, self._after_dark = now, next_id
        self._row += 1
        if self._row < _UNREACHABLE_ROW:
            return False
        if self.probe_at is None:
            self._after_pause, self._backoff_s = next_id, 1.0
        elif ticket.id < self._after_pause:
            return False
        else:
            self._backoff_s = min(_UNREACHABLE_MAX_S, self._backoff_s * 2)
        deadline = self._dark_since + self._unreachable_s
        self.probe_at = min(now + self._backoff_s, deadline)
        return now >= deadline


class _Breaker:
    """Pauses when request after request fails, so that a dead but charging gateway costs little."""

    def __init__(self, trip_after: int, max_probes: int) -> None:
        self.probe_at: float | None = None
        """When the next probe may start; None while closed."""
        self._trip_after = trip_after
        self._max_probes = max_probes
        self._row = 0
        self._failed_probes = 0
        self._free_probes = 0
        self._after_opening = 0

    def answered(self) -> None:
        self._row = self._failed_probes = self._free_probes = 0
        self.probe_at = None

    def ambiguous(self, ticket: Ticket, now: float, next_id: int) -> bool:
        """Note a lost answer; True where the last probe is used up.

        What was under way when the breaker opened is part of why it did, and no probe.
        """
        if not self._failed(ticket, now, next_id):
            return False
        self._failed_probes += 1
        return self._failed_probes >= self._max_probes

    def errored(self, ticket: Ticket, now: float, next_id: int) -> bool:
        """Note an error of the provider's own; True where it has lasted too long."""
        if not self._failed(ticket, now, next_id):
            return False
        self._free_probes += 1
        return self._free_probes >= _MAX_FREE_PROBES

    def _failed(self, ticket: Ticket, now: float, next_id: int) -> bool:
        """Count towards opening; True where it is open, and this was a probe."""
        if ticket.id < self._after_opening:
            return False
        if self.probe_at is not None:
            self.probe_at = now + _BREAKER_EVERY_S
            return True
        self._row += 1
        if self._row >= self._trip_after:
            self._after_opening = next_id
            self.probe_at = now + _BREAKER_EVERY_S
        return False

    def probe_missed(self, now: float) -> None:
        """A probe that was not even connected: neither an answer nor a doubt."""
        if self.probe_at is not None:
            self.probe_at = now + _BREAKER_EVERY_S


class _Repeats:
    """How many jobs may be asked for again while nothing succeeds: a share of the first tries, and
    one at once and after each minute.

    A success ends the outage, and with it the account.
    """

    def __init__(self) -> None:
        self._first_tries = 0
        self._repeated = 0
        self._dark_since: float | None = None
        """Since when every request has failed; None while the last one did not."""

    def succeeded(self) -> None:
        self._dark_since = None
        self._repeated = 0

    def failed(self, now: float) -> None:
        if self._dark_since is None:
            self._dark_since = now

    def tried(self, *, repeat: bool) -> None:
        self._repeated += repeat
        self._first_tries += not repeat

    def wait_s(self, now: float) -> float:
        """Seconds until one more request may be repeated."""
        share = self._first_tries * _REPEATS_PERCENT // 100
        if self._dark_since is None or self._repeated < share:
            return 0.0
        due = self._dark_since + (self._repeated - share) * _REPEAT_EVERY_S
        return max(0.0, due - now)


class ThrottleCore:
    """All rules about when a request may start. Times are seconds of one monotonic clock."""

    def __init__(self, limits: Limits, rng: random.Random | None = None) -> None:
        self._limits = limits
        self._requests = _rate(limits.requests_per_minute, limits.burst)
        self._images = _rate(limits.images_per_minute, limits.burst)
        self._pressure = _Pressure(limits.concurrency, rng or random.Random())
        self._reach = _Reach(limits.unreachable_s)
        self._breaker = _Breaker(max(_BREAKER_ROW, limits.concurrency), limits.max_probes)
        self._repeats = _Repeats()
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
        self, ticket: Ticket, signal: Signal, now: float, retry_after_s: float | None = None
    ) -> None:
        """Take a ticket back. A `retry_after_s` that is not a positive number counts as absent.

        Raises KeyError for a ticket that is not in flight.
        """
        self._in_flight.remove(ticket.id)
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
                    self._pressure.succeeded(ticket)
                elif signal is Signal.THROTTLED:
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
        self._pressure.throttled(ticket, now, self._next_id, retry_after_s)

    def _waiting_for(self, now: float) -> str | None:
        at, why = self._earliest(images=1)
        if self._stopped is not None or at <= now + _GRAIN_S:
            return None
        if math.isinf(at):
            return f"{why}: probe under way"
        prefix = "probe in " if why in (Hold.BREAKER, Hold.UNREACHABLE) else ""
        return f"{why}: {prefix}{math.ceil(at - now)} s"


def _rate(per_minute: float | None, burst: int) -> _Rate | None:
    return None if per_minute is None else _Rate(per_minute, burst)


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

    async def start(self, images: int = 1) -> Ticket:
        """Wait until a request for so many images may leave.

        The ticket must come back through `finish`. Raises DispatchStopped, to everyone who waits,
        as soon as the throttle stops.
        """
        ticket = await self._granted(images)
        if self._take_place is None:
            return ticket
        try:
            place = await self._take_place(images)
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

    def finish(self, ticket: Ticket, signal: Signal, retry_after_s: float | None = None) -> None:
        """Take a ticket back with what became of its request; see `ThrottleCore.finish`."""
        self._core.finish(ticket, signal, self._clock(), retry_after_s)
        self._wake()
        if self._core.stopped:
            self._ended.set()

    @property
    def stopped(self) -> bool:
        """Whether nobody may start any more."""
        return self._core.stopped

    def stop(self, reason: str) -> None:
        """Let nobody start any more, those who wait included."""
        self._core.stop(reason)
        self._wake()
        self._ended.set()

    def tried(self, *, repeat: bool) -> None:
        """A job is about to be asked for, for the first time in this run or again."""
        self._core.tried(repeat=repeat)

    def repeat_wait_s(self) -> float:
        """Seconds until one more job may be asked for again; 0.0 but for outages."""
        return self._core.repeat_wait_s(self._clock())

    def status(self) -> Status:
        return self._core.status(self._clock())

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
