"""The single rules of the throttle: rate, pressure, reach, breaker, repeats. No clock, no async."""

from __future__ import annotations

import math
import random
from typing import Final

from batchgen.engine.throttle.limits import Ticket

HEADROOM: Final = 0.99
"""Share of a rate that is used, so that jitter on the way does not make two requests too close."""
_GROW_EVERY_S: Final = 30.0
_GROW_BY: Final = 10
"""Each step gives a tenth of the width back: from 500 to 1,000 slots in 4 minutes."""
_COOL_DOWN_FLOOR_S: Final = 1.0
_COOL_DOWN_MAX_S: Final = 60.0
_JITTER_S: Final = 0.5
_UNREACHABLE_ROW: Final = 5
_UNREACHABLE_MAX_S: Final = 30.0
BREAKER_ROW: Final = 3
_BREAKER_EVERY_S: Final = 60.0
_MAX_FREE_PROBES: Final = 30
"""Errors of the provider's own cost nothing, so it is given longer than where answers are lost."""
_REPEATS_PERCENT: Final = 10
_REPEAT_EVERY_S: Final = 60.0


class Rate:
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


class Pressure:
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
        """Give a tenth of the width back, at least one slot, for each 30 s without pressure."""
        while self.grow_at <= now:
            self.width = min(self._limit, self.width + max(1, self.width // _GROW_BY))
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


class Drought:
    """How long throttled responses have come without one success."""

    def __init__(self, max_s: float) -> None:
        self._max_s = max_s
        self._since: float | None = None

    def succeeded(self) -> None:
        self._since = None

    def throttled(self, now: float) -> bool:
        """Note a throttled response; True where it has gone on for too long."""
        if self._since is None:
            self._since = now
        return now >= self._since + self._max_s


class Reach:
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


class Breaker:
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
        """Note a lost response; True where the last probe is used up.

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
        """A probe that was not even connected: neither a response nor a doubt."""
        if self.probe_at is not None:
            self.probe_at = now + _BREAKER_EVERY_S


class Repeats:
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


def rate(per_minute: float | None, burst: int) -> Rate | None:
    return None if per_minute is None else Rate(per_minute, burst)
