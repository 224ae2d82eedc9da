"""Jobs whose download failed, until they are tried again in the same run.

A job waits here, not in a download slot, so that one slow image host holds up no other. The queue
is bounded: while it is full, downloads wait for room in it, and so do new requests.
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
"""How long a run goes on trying to download when all of its other work is done."""
_MOST_WAITING: Final = 256
_LOOK_EVERY_S: Final = 1.0
"""A signal does not end the wait for a change."""


@dataclass(frozen=True, slots=True, order=True)
class _Entry:
    due: float
    order: int
    job: JobId
    key: str
    reason: str


class Redelivery:
    """The downloads of a run that are to be tried again.

    ``pause`` sleeps for so many seconds and returns whether the run goes on. After `close`, only
    what is due within ``patience_s`` is handed out.
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
        """Jobs that wait or are being tried again."""
        self._tries: dict[int, int] = {}
        self._order = count()
        self._end = math.inf
        self._changed = anyio.Event()
        self.buying = False
        """While new requests are made, a full queue holds them up."""

    def count(self, image: int) -> int:
        """Count a try of an image, and return how many there were in this run."""
        self._tries[image] = self._tries.get(image, 0) + 1
        return self._tries[image]

    async def put(self, job: Job, wait_s: float, reason: str) -> bool:
        """Have the job tried again later; False where this run does not try it again."""
        while job.id not in self._held and len(self._held) >= _MOST_WAITING:
            if not self.buying or not await self._pause(_LOOK_EVERY_S):
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
        """Forget a job that is not to be tried again."""
        self._held.discard(job)
        for image in images:
            self._tries.pop(image, None)
        self._changed.set()

    def close(self, *, waited: bool = False) -> None:
        """All other work of the run is done; ``waited`` if it was held up for downloads already."""
        self._end = self._clock() + (0.0 if waited else self._patience_s)
        self._changed.set()

    async def get(self) -> JobId | None:
        """Wait for the next job that is due; None when this run tries none again any more."""
        while await self._pause(0):
            now = self._clock()
            if self._heap and self._heap[0].due <= now:
                return heapq.heappop(self._heap).job
            left = self._heap[0].due if self._heap else math.inf
            closed = self._end < math.inf
            if closed and left > self._end and not self._being_tried:
                break
            self._changed = anyio.Event()
            with anyio.move_on_after(min(left - now, _LOOK_EVERY_S)):
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
