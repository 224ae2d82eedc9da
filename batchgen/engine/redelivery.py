"""Queue jobs whose download failed until they are retried in the same run.

A job waits here and not in a download slot, so that a slow image host does not delay others. The
queue is bounded: while it is full, downloads wait, and with them new requests.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from typing import Final

import anyio

from batchgen.engine.events import DownloadRetried, JobHeld, Observer
from batchgen.job import Job, JobId, JobState

DOWNLOAD_WAIT_S: Final = 60.0
"""How long a run continues to retry downloads after all of its other work is done."""
_MAX_WAITING: Final = 256
_POLL_S: Final = 1.0
"""Interval to check for the end of the run, which does not wake waiting tasks."""


@dataclass(frozen=True, slots=True, order=True)
class _Entry:
    due: float
    order: int
    job: JobId
    key: str
    reason: str


class Redelivery:
    """The queue of downloads to retry in a run.

    ``pause(seconds)`` sleeps, and returns False if the run is ending. After `close`, only jobs due
    within ``patience_s`` are handed out.
    """

    def __init__(
        self,
        observe: Observer,
        pause: Callable[[float], Awaitable[bool]],
        *,
        patience_s: float = DOWNLOAD_WAIT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._observe = observe
        self._pause = pause
        self._patience_s = patience_s
        self._clock = clock
        self._heap: list[_Entry] = []
        self._held: set[JobId] = set()
        """Jobs that wait or are being retried."""
        self._tries: dict[int, int] = {}
        self._order = count()
        self._end = math.inf
        self._changed = anyio.Event()
        self.buying = False
        """Whether the run still sends requests; a full queue then delays them."""

    def count(self, image: int) -> int:
        """Count a download of an image; return the number of downloads in this run."""
        self._tries[image] = self._tries.get(image, 0) + 1
        return self._tries[image]

    async def put(self, job: Job, wait_s: float, reason: str) -> bool:
        """Schedule another try of a job; return False if this run does not retry it."""
        while job.id not in self._held and len(self._held) >= _MAX_WAITING:
            if not self.buying or not await self._pause(_POLL_S):
                return False
        due = self._clock() + wait_s
        if due > self._end:
            return False
        self._held.add(job.id)
        heapq.heappush(self._heap, _Entry(due, next(self._order), job.id, job.key, reason))
        self._changed.set()
        self._observe(DownloadRetried(key=job.key, reason=reason, wait_s=wait_s))
        return True

    def leave(self, job: JobId, images: list[int]) -> None:
        """Forget a job that is not retried."""
        for image in images:
            self._tries.pop(image, None)
        if job in self._held:  # otherwise nothing changes for those that wait in `get`
            self._held.discard(job)
            self._changed.set()

    def close(self, *, waited: bool = False) -> None:
        """Announce that all other work is done; ``waited`` if the run has waited already."""
        self._end = self._clock() + (0.0 if waited else self._patience_s)
        self._changed.set()

    async def get(self) -> JobId | None:
        """Wait for the next job that is due; return None if this run retries no more."""
        while await self._pause(0):
            now = self._clock()
            if self._heap and self._heap[0].due <= now:
                return heapq.heappop(self._heap).job
            left = self._heap[0].due if self._heap else math.inf
            closed = self._end < math.inf
            if closed and left > self._end and not self._being_tried:
                break
            if self._changed.is_set():  # otherwise others wait for this one already
                self._changed = anyio.Event()
            with anyio.move_on_after(min(left - now, _POLL_S)):
                await self._changed.wait()
        self._leave_rest()
        return None

    @property
    def _being_tried(self) -> int:
        return len(self._held) - len(self._heap)

    def _leave_rest(self) -> None:
        self._end = -math.inf
        for entry in sorted(self._heap):
            self._held.discard(entry.job)
            self._observe(JobHeld(key=entry.key, state=JobState.PAID, reason=entry.reason))
        self._heap.clear()
