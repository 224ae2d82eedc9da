"""Brings pending jobs from the ledger to the workers, a page at a time; some come again.

In an outage new jobs go first: repeats stay within the throttle's account of them.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Final

import anyio

from batchgen.engine.throttle.throttle import Throttle
from batchgen.engine.worker import Again
from batchgen.job import BatchId, Job, JobId
from batchgen.ledger.jobs import pending_jobs
from batchgen.ledger.only import Only
from batchgen.ledger.writer import LedgerWriter

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
        only: Only | None = None,
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
        self._turn = asyncio.Lock()

    async def next(self) -> Job | None:
        """The next job to ask for; None when there is none left and none may come again.

        One caller waits for what is to come, the others behind it. Raises LedgerWriteError.
        """
        job = self._at_hand()
        if job is None:
            async with self._turn:
                job = await self._to_come()
        return job

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

    def _at_hand(self) -> Job | None:
        """Hand out a job for which nobody has to wait."""
        if self._throttle.stopped:
            return None
        now = self._clock()
        again_at = self._again_at(now)
        repeat = again_at is not None and again_at <= now
        if not repeat and not self._page:
            return None
        self._throttle.count_try(repeat=repeat)
        self._out += 1
        return heapq.heappop(self._again)[2] if repeat else self._page.popleft()

    async def _to_come(self) -> Job | None:
        while not self._throttle.stopped:
            if (job := self._at_hand()) is not None:
                return job
            if self._cursor is not None:
                await self._load()
                continue
            if not self._again and not self._out:
                return None
            self._changed = anyio.Event()
            now = self._clock()
            again_at = self._again_at(now)
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
            await self._ledger.run(
                pending_jobs, self._batch, after=after, limit=size, only=self._only
            )
            if size
            else []
        )
        self._page.extend(page)
        if self._left is not None:
            self._left -= len(page)
        self._cursor = page[-1].id if len(page) == size and size else None
