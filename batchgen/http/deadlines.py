"""End requests after their deadline, by a clock that includes time asleep."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

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
    """The deadlines of all requests in flight.

    ``with deadlines.limit(300) as deadline`` expires after 300 s awake, or by ``watch`` after
    300 s awake or asleep.
    """

    def __init__(self, clock: Callable[[], float] = time_awake_or_asleep) -> None:
        self._clock = clock
        self._running: dict[Deadline, float] = {}

    def limit(self, seconds: float) -> Deadline:
        """Return a context manager that yields a deadline of ``seconds`` from its start."""
        return Deadline(self._running, seconds, self._clock)

    def expire(self) -> None:
        """Expire every deadline that has passed, including time asleep."""
        now = self._clock()
        for deadline, end in tuple(self._running.items()):
            if end <= now:
                deadline.expire()

    async def watch(self) -> None:
        """Check all deadlines once a second, until cancelled."""
        while True:
            await anyio.sleep(_WATCH_EVERY_S)
            self.expire()


class Deadline:
    """The deadline of one request. It cancels nothing; it calls what waits for the network.

    So a response that has arrived is never lost to a deadline that passes while it is written.
    """

    __slots__ = ("_clock", "_end", "_listener", "_running", "_seconds", "_timer", "is_expired")

    def __init__(
        self, running: dict[Deadline, float], seconds: float, clock: Callable[[], float]
    ) -> None:
        self._running = running
        self._seconds = seconds
        self._clock = clock
        self._end = 0.0
        self._listener: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.is_expired = False

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._end = loop.time() + self._seconds
        self._timer = loop.call_at(self._end, self.expire)
        self._running[self] = self._clock() + self._seconds
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._timer is not None
        self._timer.cancel()
        self._listener = None
        del self._running[self]

    def expire(self) -> None:
        """Call the listener, since the time is over."""
        if not self.is_expired:
            self.is_expired = True
            if self._listener is not None:
                self._listener()

    def listen(self, listener: Callable[[], None] | None) -> None:
        """Call ``listener`` at the end; at once if it has passed. It replaces the previous one."""
        self._listener = listener
        if listener is not None and self.is_expired:
            listener()

    @property
    def has_passed(self) -> bool:
        """Whether the time is over, even if the event loop has not run the timer yet."""
        return self.is_expired or asyncio.get_running_loop().time() >= self._end

    def timeout(self, at_most_s: float) -> asyncio.Timeout:
        """Return a context manager that raises TimeoutError at the deadline, or earlier."""
        now = asyncio.get_running_loop().time()
        end = now if self.is_expired else min(self._end, now + at_most_s)
        return asyncio.timeout_at(end)
