"""A request that is ready to leave, and waits for the time that the driver says."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass
from typing import Final

_OPEN_S: Final = 60.0
"""How long a connection waits. A driver that wants to send says so within a second."""
_TIMER_RESOLUTION_S: Final = 0.001
"""How late an event loop may wake a sleeping task."""


@dataclass(slots=True)
class LastDeparture:
    """When the last of the requests of a process left that had a certain time."""

    at: float = -math.inf


class Gate:
    """Holds back the first byte of a request until its time.

    Intent and connection are ready by then, and the time is on the clock of this process. So no
    message delays a request whose time a rate limit demands. After a late one, the next one waits
    here: the driver hears of it too late.
    """

    def __init__(self, last: LastDeparture) -> None:
        """``last`` is that of all gates of this process."""
        self._last = last
        self._reached = asyncio.Event()
        self._opened = asyncio.Event()
        self._at = 0.0
        self._gap_s = 0.0
        self.late_s = 0.0
        """How long after its time the request left, without a wait for the one before it."""

    async def wait(self) -> None:
        """Wait for the time to leave. Raises OSError after a minute: nothing is sent then."""
        self._reached.set()
        try:
            await asyncio.wait_for(self._opened.wait(), _OPEN_S)
        except TimeoutError:
            raise OSError("the driver did not say when to send") from None
        while (left_s := self._earliest - time.monotonic()) > 0:  # noqa: ASYNC110  # a clock has no event
            await asyncio.sleep(max(0.0, left_s - _TIMER_RESOLUTION_S))
        self.late_s = -left_s
        self._last.at = self._earliest - left_s  # now

    @property
    def _earliest(self) -> float:
        return max(self._at, self._last.at + self._gap_s)

    async def reached(self) -> None:
        """Wait until the request is ready."""
        await self._reached.wait()

    def open(self, at: float, gap_s: float = 0.0) -> None:
        """Let the request leave at a time of the monotonic clock.

        ``gap_s`` is the least time since the one before it.
        """
        self._at, self._gap_s = at, gap_s
        self._opened.set()
