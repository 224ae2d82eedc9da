"""Count the events of a run: jobs, money and the rate of images."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from batchgen.engine.events import (
    AttemptEnded,
    AttemptStarted,
    DownloadRetried,
    JobDone,
    JobHeld,
    Noticed,
    Recovered,
    RunEvent,
    Stopping,
)
from batchgen.engine.throttle.limits import DispatchStatus
from batchgen.job import Billed, JobState
from batchgen.money import Micros

_RATE_WINDOW_S: Final = 120.0
_REPORT_EVERY_S: Final = 60.0
_NUMBER: Final = re.compile(r"\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What a display knows about a run before it starts."""

    total: int
    """Jobs to request, to recover or to download."""
    budget: Micros | None = None
    """None for a run without ``max_cost``."""
    concurrency: int
    grace_s: float
    """Seconds that requests in flight get to finish after a signal."""


@dataclass(slots=True)
class Tally:
    """Counts and money of a run so far, in micro-dollars."""

    done: int = 0
    failed: int = 0
    """Jobs that make no further progress in this run."""
    in_flight: int = 0
    reserved: int = 0
    charged: int = 0
    maybe: int = 0


class Counter:
    """Keeps the tally of a run and decides when a log needs a line."""

    def __init__(self, facts: RunFacts, clock: Callable[[], float] = time.monotonic) -> None:
        self.facts = facts
        self.tally = Tally()
        self._clock = clock
        self._finished: deque[float] = deque()
        self._started = self._reported_at = clock()
        self._last_wait = ""
        self._reported_waits: set[str] = set()

    def count(self, event: RunEvent) -> None:
        """Add an event to the tally."""
        tally = self.tally
        match event:
            case AttemptStarted(price=price):
                tally.in_flight += 1
                tally.reserved += price
            case AttemptEnded(price=price, billed=billed, state=state):
                tally.in_flight -= 1
                tally.reserved -= price
                tally.charged += price if billed is Billed.YES else 0
                tally.maybe += price if billed is Billed.MAYBE else 0
                if state in (JobState.FAILED, JobState.BLOCKED, JobState.UNCERTAIN):
                    tally.failed += 1
            case JobDone():
                tally.done += 1
                self._finished.append(self._clock())
            case JobHeld():
                tally.failed += 1
            case DownloadRetried() | Recovered() | Stopping() | Noticed():
                pass

    def is_due(self, throttle: DispatchStatus) -> bool:
        """Return whether to report: once a minute, and once for each kind of longer wait.

        A wait is longer if two calls in a row see it.
        """
        now = self._clock()
        wait = _NUMBER.sub("", throttle.waiting_for or "")
        lasts = bool(wait) and wait == self._last_wait and wait not in self._reported_waits
        self._last_wait = wait
        if now - self._reported_at >= _REPORT_EVERY_S:
            self._reported_at = now
            self._reported_waits = {wait}
            return True
        if lasts:
            self._reported_waits.add(wait)
        return lasts

    def per_minute(self) -> float:
        """Return images per minute over the last two minutes, or since the start if later."""
        now = self._clock()
        while self._finished and self._finished[0] < now - _RATE_WINDOW_S:
            self._finished.popleft()
        span = min(_RATE_WINDOW_S, now - self._started)
        return len(self._finished) / span * 60 if span >= 1 else 0.0

    def left_s(self) -> float | None:
        """Return the seconds left at the measured rate; None without a rate."""
        rate = self.per_minute()
        left = self.facts.total - self.tally.done - self.tally.failed
        return max(0, left) / rate * 60 if rate else None
