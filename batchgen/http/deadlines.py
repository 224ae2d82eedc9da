"""Ends requests whose time is over, by a clock that goes on while the machine sleeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Final

import anyio

_WATCH_EVERY_S: Final = 1.0


def time_awake_or_asleep() -> float:
    """Seconds that go on while the machine sleeps, and that no change of the clock moves.

    Linux stops its monotonic clock in suspend, so a laptop that slept for a night would wait for
    the rest of a deadline that is long over.
    """
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class Deadlines:
    """Ends requests whose time is over, also when the machine slept through it.

    ``with deadlines.scope(300) as scope`` is cancelled after 300 s awake, and by ``watch`` as soon
    as 300 s awake or asleep are over.
    """

    def __init__(self, clock: Callable[[], float] = time_awake_or_asleep) -> None:
        self._clock = clock
        self._scopes: dict[anyio.CancelScope, float] = {}

    def scope(self, seconds: float) -> Deadline:
        """What ends after ``seconds``; for a ``with`` statement, which gives its cancel scope."""
        return Deadline(self._scopes, seconds, self._clock)

    def expire(self) -> None:
        """Cancel every scope whose time is over by the clock that knows of sleep."""
        now = self._clock()
        for scope, end in self._scopes.items():
            if end <= now:
                scope.cancel()

    async def watch(self) -> None:
        """Look once a second, for as long as the run lasts."""
        while True:
            await anyio.sleep(_WATCH_EVERY_S)
            self.expire()


class Deadline:
    """One request's time, known to the watch as long as it runs."""

    __slots__ = ("_clock", "_scope", "_scopes", "_seconds")

    def __init__(
        self,
        scopes: dict[anyio.CancelScope, float],
        seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._scopes = scopes
        self._seconds = seconds
        self._clock = clock
        self._scope = anyio.CancelScope(deadline=anyio.current_time() + seconds)

    def __enter__(self) -> anyio.CancelScope:
        self._scopes[self._scope] = self._clock() + self._seconds
        return self._scope.__enter__()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        del self._scopes[self._scope]
        return self._scope.__exit__(exc_type, exc, traceback)
