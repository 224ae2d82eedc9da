"""The individual rules of the throttle. They take the time as an argument and are not async.

Ticket ids order requests by start. A rule compares them with the id at which its current episode
began: the outcome of an earlier request says nothing about the state after the change.
"""

from __future__ import annotations

import math
import random
from typing import Final

from batchgen.engine.throttle.limits import Ticket

_GROW_EVERY_S: Final = 10.0
_GROW_BY: Final = 10
"""Each step restores a tenth of the limit: half the width is back in 50 s."""
_COOL_DOWN_FLOOR_S: Final = 1.0
_COOL_DOWN_MAX_S: Final = 60.0
_JITTER_S: Final = 0.5
_PAUSE_AFTER_FAILURES: Final = 5
_UNREACHABLE_MAX_S: Final = 30.0
MIN_TRIP_AFTER: Final = 3
_BREAKER_EVERY_S: Final = 60.0
_MAX_FREE_PROBES: Final = 30
"""Provider-side errors cost nothing, so they get more probes than lost responses."""
_REPEATS_PERCENT: Final = 10
_REPEAT_EVERY_S: Final = 60.0


class Rate:
    """Even spacing with a burst.

    It is a GCRA, a token bucket stored as one due time. A start of more units than the burst waits
    until all earlier units are paid off.
    """

    def __init__(self, interval_s: float, burst: int) -> None:
        self.interval_s = interval_s
        """Gap between two units, in seconds; may change at any time."""
        self._burst = burst
        self._credit_s = interval_s
        """What a unit of the burst is worth: the least gap of the units that are not paid off.

        The current gap would move the earliest start while nothing starts.
        """
        self._due = -math.inf
        self._before = (self._due, self._credit_s)

    def earliest(self, units: int) -> float:
        """Return the earliest time for a start of this many units."""
        return self._due - max(0, self._burst - units) * self._credit_s

    def take(self, units: int, now: float) -> None:
        """Record a start."""
        self._before = (self._due, self._credit_s)
        is_paid_off = self._due <= now
        self._credit_s = self.interval_s if is_paid_off else min(self._credit_s, self.interval_s)
        self._due = max(now, self._due) + units * self.interval_s

    def undo_last(self) -> None:
        """Undo the last `take`."""
        self._due, self._credit_s = self._before


class Backpressure:
    """Cool-down and width after throttled responses, and their recovery.

    Throttled responses to requests that started before the last slowdown belong to the same
    episode. They can prolong its cool-down, but they neither halve the width nor double the
    cool-down again.
    """

    def __init__(self, limit: int, rng: random.Random) -> None:
        self.width = limit
        self.cool_until = -math.inf
        self.grow_at = math.inf
        self._limit = limit
        self._rng = rng
        self._doublings = 0
        self._ignore_before_id = 0

    def regrow(self, now: float) -> None:
        """Restore a tenth of the limit, at least one slot, for each 10 s without pressure."""
        while self.grow_at <= now:
            self.width = min(self._limit, self.width + max(1, self._limit // _GROW_BY))
            self.grow_at += _GROW_EVERY_S
            if self.width >= self._limit:
                self.grow_at = math.inf

    def throttled(
        self, ticket: Ticket, now: float, next_id: int, retry_after_s: float | None
    ) -> None:
        """Record a throttled response: fewer requests in flight, after a cool-down."""
        self.regrow(now)
        wait_s = retry_after_s or 0.0
        if ticket.id >= self._ignore_before_id:
            self._ignore_before_id = next_id
            self.width = max(1, self.width // 2)
            wait_s = retry_after_s or self._backoff_s()
            self._doublings += 1
        if wait_s:
            until = now + wait_s + self._rng.uniform(0.0, _JITTER_S)
            self.cool_until = max(self.cool_until, until)
        if self.width < self._limit:
            self.grow_at = max(now, self.cool_until) + _GROW_EVERY_S

    def wait(self, now: float, retry_after_s: float) -> None:
        """Cool down as long as the provider requests, without changing the width."""
        until = now + retry_after_s + self._rng.uniform(0.0, _JITTER_S)
        self.cool_until = max(self.cool_until, until)

    def succeeded(self, ticket: Ticket) -> None:
        """Record a success; it resets the backoff if sent after the last slowdown."""
        if ticket.id >= self._ignore_before_id:
            self._doublings = 0

    def _backoff_s(self) -> float:
        ceiling = min(_COOL_DOWN_MAX_S, 2.0 ** min(self._doublings, 10))
        return self._rng.uniform(_COOL_DOWN_FLOOR_S, ceiling)


class ThrottledPeriod:
    """How long throttled responses have continued without a success."""

    def __init__(self, max_s: float) -> None:
        self._max_s = max_s
        self._since: float | None = None

    def succeeded(self) -> None:
        """Record a success, which ends the period."""
        self._since = None

    def throttled(self, now: float) -> bool:
        """Record a throttled response; return True if the period is too long."""
        if self._since is None:
            self._since = now
        return now >= self._since + self._max_s


class Connectivity:
    """Pause after failed connections, with one probe at a time."""

    def __init__(self, unreachable_s: float) -> None:
        self.probe_at: float | None = None
        """When the next probe may start; None while not paused."""
        self._unreachable_s = unreachable_s
        self._consecutive_failures = 0
        self._unreachable_since = 0.0
        self._ignore_before_id = 0
        """A connection that started before the first of the failures does not end them."""
        self._pause_epoch = 0
        """First ticket id after the pause began; earlier ones are not probes."""
        self._backoff_s = 1.0

    def connected(self) -> None:
        """Record a response, which ends the pause."""
        self._consecutive_failures = 0
        self.probe_at = None

    def sent(self, ticket: Ticket) -> None:
        """Record a request that was sent without a response."""
        if ticket.id >= self._ignore_before_id:
            self.connected()

    def failed(self, ticket: Ticket, now: float, next_id: int) -> bool:
        """Record a failed connection; return True if the provider was unreachable too long."""
        if self._consecutive_failures == 0:
            self._unreachable_since, self._ignore_before_id = now, next_id
        self._consecutive_failures += 1
        if self._consecutive_failures < _PAUSE_AFTER_FAILURES:
            return False
        if self.probe_at is None:
            self._pause_epoch, self._backoff_s = next_id, 1.0
        elif ticket.id < self._pause_epoch:
            return False
        else:
            self._backoff_s = min(_UNREACHABLE_MAX_S, self._backoff_s * 2)
        deadline = self._unreachable_since + self._unreachable_s
        self.probe_at = min(now + self._backoff_s, deadline)
        return now >= deadline


class Breaker:
    """Circuit breaker: limits the cost of a provider that charges without responding."""

    def __init__(self, trip_after: int, max_probes: int) -> None:
        self.probe_at: float | None = None
        """When the next probe may start; None while closed."""
        self._trip_after = trip_after
        self._max_probes = max_probes
        self._consecutive_failures = 0
        self._failed_probes = 0
        self._free_probes = 0
        self._open_epoch = 0
        """First ticket id after the breaker opened; earlier ones are not probes."""

    def responded(self) -> None:
        """Record a trustworthy response, which closes the breaker."""
        self._consecutive_failures = self._failed_probes = self._free_probes = 0
        self.probe_at = None

    def ambiguous(self, ticket: Ticket, now: float, next_id: int) -> bool:
        """Record a lost response; return True if the last probe is used up."""
        if not self._is_failed_probe(ticket, now, next_id):
            return False
        self._failed_probes += 1
        return self._failed_probes >= self._max_probes

    def errored(self, ticket: Ticket, now: float, next_id: int) -> bool:
        """Record a provider-side error; return True if they have lasted too long."""
        if not self._is_failed_probe(ticket, now, next_id):
            return False
        self._free_probes += 1
        return self._free_probes >= _MAX_FREE_PROBES

    def _is_failed_probe(self, ticket: Ticket, now: float, next_id: int) -> bool:
        """Count a failure towards opening; return True if the breaker was open already."""
        if ticket.id < self._open_epoch:
            return False
        if self.probe_at is not None:
            self.probe_at = now + _BREAKER_EVERY_S
            return True
        self._consecutive_failures += 1
        if self._consecutive_failures >= self._trip_after:
            self._open_epoch = next_id
            self.probe_at = now + _BREAKER_EVERY_S
        return False

    def probe_not_sent(self, now: float) -> None:
        """Record a probe that failed to connect; it does not count as a failed one."""
        if self.probe_at is not None:
            self.probe_at = now + _BREAKER_EVERY_S


class RepeatBudget:
    """How many jobs may be repeated during an outage.

    Allowed are a share of the first tries, plus one at once and one after each minute. A success
    ends the outage and clears the count.
    """

    def __init__(self) -> None:
        self._first_tries = 0
        self._repeats = 0
        self._failing_since: float | None = None
        """Start of the current series of failures; None after a success."""

    def succeeded(self) -> None:
        """Record a success, which ends the outage."""
        self._failing_since = None
        self._repeats = 0

    def failed(self, now: float) -> None:
        """Record a failure."""
        if self._failing_since is None:
            self._failing_since = now

    def count(self, *, repeat: bool) -> None:
        """Count a job that is about to be sent."""
        self._repeats += repeat
        self._first_tries += not repeat

    def wait_s(self, now: float) -> float:
        """Return the seconds until one more job may be repeated."""
        share = self._first_tries * _REPEATS_PERCENT // 100
        if self._failing_since is None or self._repeats < share:
            return 0.0
        due = self._failing_since + (self._repeats - share) * _REPEAT_EVERY_S
        return max(0.0, due - now)
