"""Cancel requests after their deadline, by a clock that includes time asleep."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Final

import anyio

_WATCH_EVERY_S: Final = 1.0


def time_awake_or_asleep() -> float:
    """Return monotonic seconds that include time asleep.

    Linux stops its monotonic clock during suspend: after a night asleep, a laptop would wait for
    the rest of a deadline that passed long ago.
    """
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class Deadlines:
    """Cancel requests after their deadline, even if the machine slept through it.

    ``with deadlines.scope(300) as scope`` is cancelled after 300 s awake, or by ``watch`` after
    300 s awake or asleep.
    """

    def __init__(self, clock: Callable[[], float] = time_awake_or_asleep) -> None:
        self._clock = clock
        self._scopes: dict[anyio.CancelScope, float] = {}

    def scope(self, seconds: float) -> Deadline:
        """Return a context manager that yields a cancel scope with this time limit."""
        return Deadline(self._scopes, seconds, self._clock)

    def expire(self) -> None:
        """Cancel every scope whose deadline has passed, including time asleep."""
        now = self._clock()
        for scope, end in self._scopes.items():
            if end <= now:
                scope.cancel()

    async def watch(self) -> None:
        """Check all scopes once a second, until cancelled."""
        while True:
            await anyio.sleep(_WATCH_EVERY_S)
            self.expire()


class Deadline:
    """The deadline of one request, watched while the request runs."""

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
