"""A throttle core on a manual clock."""

from __future__ import annotations

import random

from batchgen.engine.throttle.core import ThrottleCore
from batchgen.engine.throttle.limits import (
    DispatchLimits,
    DispatchStatus,
    Signal,
    Stopped,
    Ticket,
    Wait,
)
from batchgen.engine.throttle.pace import FIRST_SLACK

GAP = 1 + FIRST_SLACK
"""Seconds between requests at 60 per minute."""


class Run:
    """A core with a manual clock."""

    def __init__(self, limits: DispatchLimits, seed: int = 1) -> None:
        self.core = ThrottleCore(limits, random.Random(seed))
        self.now = 1000.0

    def start(self, images: int = 1) -> Ticket:
        ticket = self.core.try_start(self.now, images)
        assert isinstance(ticket, Ticket), ticket
        return ticket

    def starts(self, count: int) -> list[Ticket]:
        return [self.start() for _ in range(count)]

    def wait(self, images: int = 1) -> Wait:
        wait = self.core.try_start(self.now, images)
        assert isinstance(wait, Wait), wait
        return wait

    def seconds(self, images: int = 1) -> float:
        seconds = self.wait(images).seconds
        assert seconds is not None
        return seconds

    def sleep(self, images: int = 1) -> float:
        """Advance the clock by the required wait."""
        seconds = self.seconds(images)
        self.now += seconds
        return seconds

    def finish(
        self,
        ticket: Ticket,
        signal: Signal,
        *,
        after: float = 0.0,
        retry_after: float | None = None,
    ) -> None:
        self.now += after
        self.core.finish(ticket, signal, self.now, retry_after)

    def once(self, signal: Signal, *, after: float = 0.0, retry_after: float | None = None) -> None:
        self.finish(self.start(), signal, after=after, retry_after=retry_after)

    def status(self) -> DispatchStatus:
        return self.core.status(self.now)

    def stopped(self) -> str:
        stopped = self.core.try_start(self.now)
        assert isinstance(stopped, Stopped), stopped
        return stopped.reason


def open_breaker(run: Run, concurrency: int = 3) -> None:
    """Open the circuit breaker by lost responses in all slots."""
    for _ in range(concurrency):
        run.once(Signal.AMBIGUOUS)
