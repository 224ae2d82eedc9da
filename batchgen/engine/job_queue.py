"""Read pending jobs from the ledger, a page at a time, and queue jobs that return after a failure.

During an outage new jobs go first, and returning ones stay within the throttle's repeat budget.
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

from batchgen.engine.context import Requeue
from batchgen.engine.throttle.throttle import Throttle
from batchgen.job import BatchId, Job, JobId
from batchgen.ledger.jobs import pending_jobs
from batchgen.ledger.key_patterns import Only
from batchgen.ledger.writer import LedgerWriter

_PAGE: Final = 200
_POLL_S: Final = 1.0
"""Interval to check whether dispatch has stopped, which does not wake waiting tasks."""


class JobQueue:
    """Hands out each pending job once, and again if its worker returns it.

    It keeps one page and the returned jobs in memory, never all jobs of a batch.
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
        self._jobs_left = limit
        self._only = only
        self._page: deque[Job] = deque()
        self._cursor: JobId | None = JobId(0)
        self._returned: list[tuple[float, int, Job]] = []
        self._order = count()
        self._outstanding = 0
        self._changed = anyio.Event()
        self._waiter = asyncio.Lock()

    async def next(self) -> Job | None:
        """Return the next job; None if no job is left and none may return.

        One caller waits for the next job, the others for that caller. Raises LedgerWriteError.
        """
        job = self._next_available()
        if job is None:
            async with self._waiter:
                job = await self._wait_for_next()
        return job

    def add(self) -> None:
        """Count other work that may return a job, such as a delivery."""
        self._outstanding += 1

    def done(self, requeue: Requeue | None) -> None:
        """End the work on a job that was handed out or added; ``requeue`` puts it back."""
        self._outstanding -= 1
        if requeue is not None:
            due = self._clock() + requeue.wait_s
            heapq.heappush(self._returned, (due, next(self._order), requeue.job))
        self._changed.set()

    def _next_available(self) -> Job | None:
        """Return a job that can start now, if there is one."""
        if self._throttle.stopped:
            return None
        now = self._clock()
        repeat_at = self._repeat_at(now)
        is_repeat = repeat_at is not None and repeat_at <= now
        if not is_repeat and not self._page:
            return None
        self._throttle.count_try(repeat=is_repeat)
        self._outstanding += 1
        return heapq.heappop(self._returned)[2] if is_repeat else self._page.popleft()

    async def _wait_for_next(self) -> Job | None:
        while not self._throttle.stopped:
            if (job := self._next_available()) is not None:
                return job
            if self._cursor is not None:
                await self._load()
                continue
            if not self._returned and not self._outstanding:
                return None
            self._changed = anyio.Event()
            now = self._clock()
            repeat_at = self._repeat_at(now)
            wait_s = _POLL_S if repeat_at is None else min(_POLL_S, repeat_at - now)
            with anyio.move_on_after(wait_s):
                await self._changed.wait()
        return None

    def _repeat_at(self, now: float) -> float | None:
        """Return when the first returned job may be handed out; None if no job was returned."""
        if not self._returned:
            return None
        return max(self._returned[0][0], now + self._throttle.repeat_wait_s())

    async def _load(self) -> None:
        after = self._cursor
        if after is None:
            return
        size = _PAGE if self._jobs_left is None else min(_PAGE, self._jobs_left)
        page = (
            await self._ledger.run(
                pending_jobs, self._batch, after=after, limit=size, only=self._only
            )
            if size
            else []
        )
        self._page.extend(page)
        if self._jobs_left is not None:
            self._jobs_left -= len(page)
        self._cursor = page[-1].id if len(page) == size and size else None
