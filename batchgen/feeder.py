"""Brings pending jobs from the ledger to the workers, a page at a time; some come again.

In an outage new jobs go first: repeats stay within the throttle's account of them.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Final

import anyio
from anyio.streams.memory import MemoryObjectSendStream

from batchgen.job import BatchId, Job, JobId
from batchgen.ledger.writer import LedgerWriter
from batchgen.throttle import Throttle
from batchgen.worker import Again

_PAGE: Final = 200
_LOOK_EVERY_S: Final = 1.0
"""A stop of dispatch wakes nobody who waits here."""


class Feeder:
    """Hands out each pending job once, and again when its worker says so.

    Holds one page and the jobs that come again, never all jobs of a batch.
    """

    def __init__(
        self,
        ledger: LedgerWriter,
        batch: BatchId,
        throttle: Throttle,
        *,
        limit: int | None = None,
        only: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._batch = batch
        self._throttle = throttle
        self._clock = clock
        self._left = limit
        self._only = only
        self._page: deque[Job] = deque()
        self._cursor: JobId | None = JobId(0)
        self._again: list[tuple[float, int, Job]] = []
        self._order = count()
        self._out = 0
        self._changed = anyio.Event()

    async def feed(self, send: MemoryObjectSendStream[Job]) -> None:
        """Send jobs until none is left or nobody takes them any more."""
        async with send:
            while (job := await self._next()) is not None:
                self._out += 1
                try:
                    await send.send(job)
                except anyio.BrokenResourceError:
                    return

    def add(self) -> None:
        """Something that may bring a job again is under way, besides the workers."""
        self._out += 1

    def done(self, again: Again | None) -> None:
        """A job that was handed out, or added, is over; it may have to come again."""
        self._out -= 1
        if again is not None:
            due = self._clock() + again.wait_s
            heapq.heappush(self._again, (due, next(self._order), again.job))
        self._changed.set()

    async def _next(self) -> Job | None:
        while not self._throttle.stopped:
            now = self._clock()
            again_at = self._again_at(now)
            if again_at is not None and again_at <= now:
                self._throttle.tried(repeat=True)
                return heapq.heappop(self._again)[2]
            if not self._page and self._cursor is not None:
                await self._load()
            if self._page:
                self._throttle.tried(repeat=False)
                return self._page.popleft()
            if not self._again and not self._out:
                return None
            self._changed = anyio.Event()
            wait_s = _LOOK_EVERY_S if again_at is None else min(_LOOK_EVERY_S, again_at - now)
            with anyio.move_on_after(wait_s):
                await self._changed.wait()
        return None

    def _again_at(self, now: float) -> float | None:
        """When the first of the jobs that come again may be handed out; outages make it late."""
        if not self._again:
            return None
        return max(self._again[0][0], now + self._throttle.repeat_wait_s())

    async def _load(self) -> None:
        after = self._cursor
        if after is None:
            return
        size = _PAGE if self._left is None else min(_PAGE, self._left)
        page = (
            await self._ledger(
                lambda ledger: ledger.pending(self._batch, after=after, limit=size, only=self._only)
            )
            if size
            else []
        )
        self._page.extend(page)
        if self._left is not None:
            self._left -= len(page)
        self._cursor = page[-1].id if len(page) == size and size else None
