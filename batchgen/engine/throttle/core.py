"""The rules of the throttle combined: when may the next request start?

It takes the time as an argument and never waits; `Throttle` lets tasks wait for it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Final

from batchgen.engine.throttle.limits import (
    BREAKER,
    OUTAGE,
    RETRY_AFTER,
    THROTTLED,
    UNREACHABLE,
    Decision,
    DispatchLimits,
    DispatchStatus,
    Signal,
    Stopped,
    Ticket,
    Wait,
    WaitReason,
)
from batchgen.engine.throttle.pace import DeclaredPace, LearnedPace, Pace
from batchgen.engine.throttle.rules import (
    MIN_TRIP_AFTER,
    Backpressure,
    Breaker,
    Connectivity,
    Rate,
    RepeatBudget,
    ThrottledPeriod,
)

_CLOCK_TOLERANCE_S: Final = 1e-6
"""Precision of clocks and float sums; shorter waits are skipped."""
_KEPT_SLACK: Final = 0.75
_MAX_EPISODES: Final = 5
"""Consecutive 429s, each after a wider gap, after which a wider gap alone is not trusted."""


class ThrottleCore:
    """All rules on when a request may start. Times are seconds of one monotonic clock."""

    def __init__(self, limits: DispatchLimits, rng: random.Random | None = None) -> None:
        self._limits = limits
        self.pace = make_pace(limits)
        self._requests: Rate | None = None
        self._images: Rate | None = None
        self._episodes = 0
        """Episodes of throttled responses since the last success."""
        self._episode_id = 0
        """First ticket id after the last episode began."""
        self._backpressure = Backpressure(limits.concurrency, rng or random.Random())
        self._connectivity = Connectivity(limits.unreachable_s)
        self._breaker = Breaker(max(MIN_TRIP_AFTER, limits.concurrency), limits.max_probes)
        self._repeats = RepeatBudget()
        self._throttled = ThrottledPeriod(limits.max_throttled_s)
        self._last_error = self._throttled_error = ""
        self._in_flight: set[int] = set()
        self._next_id = 0
        self._probe: int | None = None
        self._stopped: str | None = None
        self._too_long_s: float | None = None

    def try_start(self, now: float, images: int = 1) -> Decision:
        """Return a ticket if a request for ``images`` images may start now, else why not.

        Every ticket must be returned through `finish`.
        """
        if self._stopped is not None:
            return Stopped(reason=self._stopped)
        self._backpressure.regrow(now)
        self._set_rates(now)
        at, reason = self._earliest(images)
        if at > now + _CLOCK_TOLERANCE_S:
            return Wait(seconds=None if math.isinf(at) else at - now, reason=reason)
        if len(self._in_flight) >= self._backpressure.width:
            grow_at = self._backpressure.grow_at
            seconds = None if math.isinf(grow_at) else grow_at - now
            return Wait(seconds=seconds, reason=WaitReason.SLOT)
        return self._issue(now, images)

    def finish(
        self,
        ticket: Ticket,
        signal: Signal,
        now: float,
        retry_after_s: float | None = None,
        error: str = "",
    ) -> None:
        """Take a ticket back. A ``retry_after_s`` that is not a positive number is ignored.

        ``error`` is the code and message of an unsuccessful response. Raises KeyError for a ticket
        that is not in flight.
        """
        self._in_flight.remove(ticket.id)
        self._last_error = error or self._last_error
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
                    self._breaker.probe_not_sent(now)
                if self._connectivity.failed(ticket, now, self._next_id):
                    self.stop(UNREACHABLE)
            case Signal.AMBIGUOUS:
                self._connectivity.sent(ticket)
                if self._breaker.ambiguous(ticket, now, self._next_id):
                    self.stop(BREAKER)
            case Signal.ERRORED:
                self._connectivity.connected()
                if self._breaker.errored(ticket, now, self._next_id):
                    self.stop(OUTAGE)
            case Signal.OK | Signal.NEUTRAL | Signal.THROTTLED:
                self._connectivity.connected()
                self._breaker.responded()
                if signal is Signal.OK:
                    self._episodes = 0
                    self._throttled.succeeded()
                    self._backpressure.succeeded(ticket)
                    self.pace.succeeded(ticket.id, now)
                elif signal is Signal.THROTTLED:
                    self._throttled_error = error
                    self._slow_down(ticket, now, retry_after_s)

    def count_try(self, *, repeat: bool) -> None:
        """Count a job that is about to be sent, for the first time in this run or again."""
        self._repeats.count(repeat=repeat)

    def repeat_wait_s(self, now: float) -> float:
        """Return the seconds until one more job may be repeated; 0.0 except in an outage."""
        return self._repeats.wait_s(now)

    @property
    def stopped(self) -> bool:
        """Whether no request may start any more."""
        return self._stopped is not None

    def stop(self, reason: str) -> None:
        """Let no request start any more; the first reason counts."""
        if self._stopped is None:
            self._stopped = reason

    def status(self, now: float) -> DispatchStatus:
        """Return the current state, for display."""
        self._backpressure.regrow(now)
        return DispatchStatus(
            in_flight=len(self._in_flight),
            width=self._backpressure.width,
            per_minute=self._learned_per_minute(),
            waiting_for=self._waiting_for(now),
            stopped=self._stopped,
            last_error=self._last_error,
            too_long_s=self._too_long_s,
        )

    def intervals(self, now: float) -> Mapping[str, float]:
        """Return the current gap of each limited unit, ``requests`` or ``images``, in seconds."""
        self.pace.advance(now)
        value = self.pace.value
        if not is_declared(self._limits):
            return {} if value is None else {"requests": value}
        per_minute = {
            "requests": self._limits.requests_per_minute,
            "images": self._limits.images_per_minute,
        }
        stretch = 1.0 + (value or 0.0)
        return {unit: 60.0 / rate * stretch for unit, rate in per_minute.items() if rate}

    @property
    def least_gap_s(self) -> float:
        """The least time between two departures in seconds; 0.0 if bursts are allowed.

        A late departure delays the next one, except for a quarter of the slack.
        """
        rate, slack = self._limits.requests_per_minute, self.pace.value
        if rate is None or slack is None or self._limits.burst > 1:
            return 0.0
        return 60.0 / rate * (1.0 + slack * _KEPT_SLACK)

    def _set_rates(self, now: float) -> None:
        gaps = self.intervals(now)
        self._requests = _with_gap(self._requests, gaps.get("requests"), self._limits.burst)
        self._images = _with_gap(self._images, gaps.get("images"), self._limits.burst)

    def _learned_per_minute(self) -> float | None:
        value = self.pace.value
        return None if is_declared(self._limits) or value is None else 60.0 / value

    def _earliest(self, images: int) -> tuple[float, WaitReason]:
        """Return the earliest start, slots aside, and the rule that delays it the longest."""
        probe_in_flight = self._probe is not None
        waits = [(self._backpressure.cool_until, WaitReason.COOL_DOWN)]
        if self._requests:
            waits.append((self._requests.earliest(1), WaitReason.RATE))
        if self._images:
            waits.append((self._images.earliest(images), WaitReason.RATE))
        if self._breaker.probe_at is not None:
            at = math.inf if probe_in_flight else self._breaker.probe_at
            waits.append((at, WaitReason.BREAKER))
        if self._connectivity.probe_at is not None:
            at = math.inf if probe_in_flight else self._connectivity.probe_at
            waits.append((at, WaitReason.UNREACHABLE))
        return max(waits, key=lambda wait: wait[0])

    def _issue(self, now: float, images: int) -> Ticket:
        probe = self._breaker.probe_at is not None or self._connectivity.probe_at is not None
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

        Later requests have waited for the share of an older one, and keep their distance.
        """
        if ticket.id == self._next_id - 1:
            for rate in (self._requests, self._images):
                if rate:
                    rate.undo_last()

    def _slow_down(self, ticket: Ticket, now: float, retry_after_s: float | None) -> None:
        if retry_after_s is not None and not (math.isfinite(retry_after_s) and retry_after_s > 0):
            retry_after_s = None
        if retry_after_s is not None and retry_after_s > self._limits.max_retry_after_s:
            self._too_long_s = max(self._too_long_s or 0.0, retry_after_s)
            self.stop(RETRY_AFTER)
        if self._throttled.throttled(now):
            self.stop(THROTTLED)
        if ticket.id >= self._episode_id:
            self._episodes += 1
            self._episode_id = self._next_id
        has_pace = self.pace.value is not None
        self.pace.throttled(ticket.id, now, self._next_id)
        if not has_pace or self._episodes >= _MAX_EPISODES:
            self._backpressure.throttled(ticket, now, self._next_id, retry_after_s)
        elif retry_after_s is not None:
            self._backpressure.wait(now, retry_after_s)

    def _waiting_for(self, now: float) -> str | None:
        at, reason = self._earliest(images=1)
        if self._stopped is not None or at <= now + _CLOCK_TOLERANCE_S:
            return None
        if math.isinf(at):
            return f"{reason}: probe in flight"
        if reason is WaitReason.COOL_DOWN:
            return f"{reason} {self._throttled_error or '429 or 503'}: {math.ceil(at - now)} s"
        is_probe = reason in (WaitReason.BREAKER, WaitReason.UNREACHABLE)
        prefix = "probe in " if is_probe else ""
        return f"{reason}: {prefix}{math.ceil(at - now)} s"


def is_declared(limits: DispatchLimits) -> bool:
    """Return whether the manifest limits the rate."""
    return limits.requests_per_minute is not None or limits.images_per_minute is not None


def make_pace(limits: DispatchLimits) -> Pace:
    """Return the rule for the gap between requests."""
    rates = (limits.requests_per_minute, limits.images_per_minute)
    slowest = min((rate for rate in rates if rate is not None), default=None)
    return LearnedPace() if slowest is None else DeclaredPace(60.0 / slowest, limits.burst)


def _with_gap(rate: Rate | None, interval_s: float | None, burst: int) -> Rate | None:
    """Return the rate with its current gap; None for an unlimited one."""
    if interval_s is None:
        return None
    if rate is None:
        return Rate(interval_s, burst)
    rate.interval_s = interval_s
    return rate
