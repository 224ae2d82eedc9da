"""How far apart requests are sent: slightly more than a declared rate says, or as 429s teach.

A 429 names no rate, so both rules search for it: a refusal widens the gap at once, and quiet time
narrows it slowly. The rules take the time as an argument. Refusals of requests that were sent
before the last change say nothing about the new gap and are ignored.

The values are shared through the ledger by all runs of a key.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final, Protocol

_QUIET_S: Final = 60.0
"""Time without a refusal after which the gap narrows by one step."""

FIRST_SLACK: Final = 0.045
"""Share by which the first gap of a bucket of 1 is longer than declared.

Such a bucket refuses a request that arrives 1 ms early. 4.5 % absorb 4.5 ms of jitter at 600 per
minute and still use 95.7 % of the rate.
"""
LEAST_SLACK: Final = 0.01
_FIRST_STEP: Final = 0.005
_AGAIN_GAPS: Final = 30
"""A refusal within this many gaps of the last one doubles the step."""
_MAX_SLACK: Final = 20.0
_NARROW: Final = 0.9
"""What is left of the slack above the least after each quiet minute."""

_COUNTED_S: Final = 20.0
_MAX_COUNTED: Final = 1000
_DECREASE: Final = 0.5
_RETREAT: Final = 0.9
_GROWTH: Final = 1.1
_SEARCH_GROWTH: Final = 1.25
"""Growth while no rate above the current one is known to be refused."""
_GROW_EVERY_S: Final = 5.0
_GROW_GAPS: Final = 5
_HOLD_S: Final = 600.0
"""How long a rate that was refused is not tried again."""
_SHORTEST_S: Final = 0.005
_LONGEST_S: Final = 60.0


class Pace(Protocol):
    """What the throttle needs of either rule."""

    @property
    def kind(self) -> str:
        """Names the value in the ledger."""

    @property
    def value(self) -> float | None:
        """The current value; None while nothing was learned."""

    @property
    def changed_at(self) -> float:
        """When a refusal last changed the value; minus infinity before the first."""

    def throttled(self, ticket: int, now: float, next_id: int) -> None:
        """Record a refusal of the request with this ticket id."""

    def suggest(self, gap_s: float) -> None:
        """Use the gap that the headers of a refusal state, if nothing was learned yet."""

    def succeeded(self, ticket: int, now: float) -> None:
        """Record an accepted request."""

    def advance(self, now: float) -> None:
        """Apply what quiet time allows."""

    def adopt(self, value: float, changed_at: float) -> None:
        """Take over a value that another run learned at a time of the same clock."""


class DeclaredPace:
    """The slack of a declared rate: its gap is ``interval * (1 + value)``."""

    kind = "slack"

    def __init__(self, interval_s: float, burst: int) -> None:
        self.value: float = FIRST_SLACK if burst == 1 else LEAST_SLACK
        self.changed_at = -math.inf
        self._interval_s = interval_s
        self._narrowed_at = -math.inf
        self._step = _FIRST_STEP
        self._ignore_before_id = 0

    def throttled(self, ticket: int, now: float, next_id: int) -> None:
        """Widen the gap a little, and more if the last widening did not help."""
        if ticket < self._ignore_before_id:
            return
        self.advance(now)
        is_again = now - self.changed_at < _AGAIN_GAPS * self._interval_s * (1 + self.value)
        self._step = self._step * 2 if is_again else _FIRST_STEP
        self.value = min(_MAX_SLACK, self.value + self._step)
        self.changed_at = self._narrowed_at = now
        self._ignore_before_id = next_id

    def suggest(self, gap_s: float) -> None:
        """Do nothing: the manifest declares the rate."""

    def succeeded(self, ticket: int, now: float) -> None:
        """Do nothing: only time without a refusal narrows the gap."""

    def advance(self, now: float) -> None:
        """Narrow the gap for each quiet minute since the last refusal."""
        if math.isinf(self._narrowed_at):
            self._narrowed_at = now
        minutes = int((now - self._narrowed_at) // _QUIET_S)
        if minutes > 0:
            self.value = LEAST_SLACK + (self.value - LEAST_SLACK) * _NARROW**minutes
            self._narrowed_at += minutes * _QUIET_S

    def adopt(self, value: float, changed_at: float) -> None:
        """Take over the slack of another run, narrowed by the time since."""
        self.value = min(_MAX_SLACK, max(LEAST_SLACK, value))
        self.changed_at = self._narrowed_at = changed_at


class LearnedPace:
    """The gap between requests, in seconds, if no rate is declared; None until a 429.

    It begins with the rate of the requests that were accepted lately. Refusals halve it until
    several requests in a row are accepted. Then it grows step by step up to the next refusal, and
    stays slightly below that rate. A limiter lets some requests pass at any rate: refusals of all
    requests since the last change are an outage, which the cool-down handles, and teach nothing.
    """

    kind = "interval"

    def __init__(self) -> None:
        self.value: float | None = None
        self.changed_at = -math.inf
        self._accepted = deque[float](maxlen=_MAX_COUNTED)
        self._grown_at = -math.inf
        self._refused_gap_s = 0.0
        """The longest gap that was refused since the search ended; 0.0 without one."""
        self._accepted_since = 0
        self._refused_since = 0
        self._suggested_s: float | None = None
        self._ignore_before_id = 0

    def throttled(self, ticket: int, now: float, next_id: int) -> None:
        """Lower the rate: by half while searching, slightly once it was accepted for a while."""
        if ticket < self._ignore_before_id:
            return
        self._refused_since += 1
        if self.value is None:
            gap_s = self._first_gap(now)
            if gap_s is None:
                return
            self.value = gap_s
        elif next_id - self._ignore_before_id <= self._refused_since:
            return
        elif self._accepted_since < _GROW_GAPS:
            self.value /= _DECREASE
        else:
            self._refused_gap_s = self.value
            self.value /= _RETREAT
        self.value = min(_LONGEST_S, max(_SHORTEST_S, self.value))
        self._ignore_before_id = next_id
        self._accepted_since = self._refused_since = 0
        self.changed_at = self._grown_at = now

    def suggest(self, gap_s: float) -> None:
        """Begin with the gap that the provider states."""
        if self.value is None:
            self._suggested_s = gap_s

    def succeeded(self, ticket: int, now: float) -> None:
        """Count an accepted request."""
        if self.value is None:
            self._accepted.append(now)
        elif ticket >= self._ignore_before_id:
            self._accepted_since += 1

    def advance(self, now: float) -> None:
        """Raise the rate by a tenth after some seconds and accepted requests without a refusal."""
        if self.value is None or self._accepted_since < _GROW_GAPS:
            return
        if now - self._grown_at < max(_GROW_EVERY_S, _GROW_GAPS * self.value):
            return
        if now - self.changed_at > _HOLD_S:
            self._refused_gap_s = 0.0
        least_s = max(_SHORTEST_S, self._refused_gap_s / _RETREAT)
        growth = _GROWTH if self._refused_gap_s else _SEARCH_GROWTH
        self.value = max(least_s, self.value / growth)
        self._grown_at = now

    def adopt(self, value: float, changed_at: float) -> None:
        """Take over the gap of another run as one that was refused just below."""
        self.value = min(_LONGEST_S, max(_SHORTEST_S, value))
        self._refused_gap_s = self.value * _RETREAT
        self.changed_at = self._grown_at = changed_at
        self._accepted_since = _GROW_GAPS

    def _first_gap(self, now: float) -> float | None:
        """Return the stated gap, or that of the requests accepted lately; None without either."""
        if self._suggested_s is not None:
            return self._suggested_s
        recent = [at for at in self._accepted if at > now - _COUNTED_S]
        return max(now - recent[0], 1.0) / len(recent) if recent else None
