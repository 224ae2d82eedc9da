"""A run: what is paid first onto disk, then a fixed number of workers over the pending jobs."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar
from urllib.parse import urlsplit

import anyio

from batchgen.engine.delivery import Delivery
from batchgen.engine.job_queue import Feeder
from batchgen.engine.redelivery import DOWNLOAD_WAIT_S, Redelivery
from batchgen.engine.video_tasks import POLL_S, TaskWatch
from batchgen.engine.worker import Again, Paid, RunContext, Worker, recover, work
from batchgen.http.client import ApiClient
from batchgen.http.deadlines import Deadlines
from batchgen.http.download import Downloader
from batchgen.job import JobId
from batchgen.ledger.attempts import finished_attempts, open_attempts
from batchgen.ledger.copies import jobs_to_copy, record_copy_waits
from batchgen.ledger.jobs import paid_jobs
from batchgen.ledger.only import Only
from batchgen.ledger.writer import LedgerWriteError
from batchgen.providers.account import ApiKey
from batchgen.system.shutdown import Shutdown
from batchgen.system.threads import in_disk_thread
from batchgen.urls import is_loopback

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_DELIVERIES_A_DOWNLOAD: Final = 4
_COPIES_A_PAGE: Final = 200
_DELIVERIES_WAITING: Final = 256
"""When downloads lag behind by so many images, no more are bought for the time being."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """How wide a run is."""

    concurrency: int
    downloads: int
    deadline_s: float
    key: ApiKey | None
    limit: int | None = None
    """How many pending jobs are taken up at most."""
    only: Only | None = None
    """Which jobs are; None means all."""
    poll_s: float = POLL_S
    download_wait_s: float = DOWNLOAD_WAIT_S


class _Source(Protocol[T_co]):
    """Where jobs to deliver come from; None ends it."""

    async def get(self) -> T_co | None: ...


class Pool:
    """Runs one batch to its end, or to where it is stopped."""

    def __init__(
        self,
        context: RunContext,
        settings: PoolSettings,
        shutdown: Shutdown,
        verify: ssl.SSLContext,
    ) -> None:
        self._context = context
        self._settings = settings
        self._shutdown = shutdown
        self._verify = verify
        self._deadlines = Deadlines()
        self._feeder = Feeder(
            context.ledger,
            context.batch,
            context.throttle,
            limit=settings.limit,
            only=settings.only,
        )
        self._redelivery = Redelivery(
            context.observe, shutdown.pause, patience_s=settings.download_wait_s
        )
        self._api: ApiClient
        self._loader: Downloader
        self._tasks: TaskWatch

    async def run(self) -> None:
        """Recover, deliver what is paid, then work off what is pending.

        Returns when nothing is left or dispatch has stopped; everything is on record then.
        """
        async with anyio.create_task_group() as services:
            services.start_soon(self._deadlines.watch)
            services.start_soon(self._shutdown.watch)
            with anyio.CancelScope() as scope:
                self._shutdown.guard(scope)
                try:
                    async with self._client() as self._api, self._downloader() as self._loader:
                        self._tasks = TaskWatch(
                            self._api,
                            self._context.base_url,
                            pause=self._shutdown.pause,
                            poll_s=self._settings.poll_s,
                        )
                        await self._run()
                except LedgerWriteError as exc:
                    self._context.throttle.stop(f"ledger: {exc}")
            services.cancel_scope.cancel()

    async def _run(self) -> None:
        context = self._context
        for opened in await context.ledger.run(open_attempts, context.batch):
            await recover(context, opened)
        async with anyio.create_task_group() as retries:
            for _ in range(self._settings.downloads):
                retries.start_soon(
                    self._deliver, self._redelivery, Delivery.deliver_left, lambda again: None
                )
            try:
                await self._deliver_backlog()
                await self._copy_shared()
                if not self._shutdown.asked:
                    await self._dispatch()
            except LedgerWriteError as exc:
                context.throttle.stop(f"ledger: {exc}")
            self._redelivery.close(waited=context.guard.waited)
        await context.guard.settle(context.run, context.ledger)
        await self._copy_shared()
        context.given_back += await context.ledger.run(
            record_copy_waits, context.batch, self._settings.only
        )
        await self._sweep_spool()

    async def _deliver_backlog(self) -> None:
        """Everything that is paid for comes before anything new, soonest expiry first.

        A spoiled image that may be bought again is pending then, and found as such.
        """
        context = self._context
        backlog = await context.ledger.run(paid_jobs, context.batch)
        if not backlog:
            return
        waiting = asyncio.Queue[JobId | None](1)
        async with anyio.create_task_group() as tasks:
            for _ in range(self._deliveries):
                tasks.start_soon(self._deliver, waiting, Delivery.deliver_left, lambda again: None)
            for job in backlog:
                if self._shutdown.asked:
                    break
                await waiting.put(job)
            await self._no_more(waiting)

    async def _copy_shared(self) -> None:
        """Copy saved images for the jobs that share them: free, so a stop of dispatch is no end."""
        last = JobId(0)
        while not (self._shutdown.asked or self._has_trouble_of_its_own):
            page = await self._page_jobs_to_copy(last)
            if not page:
                return
            last = page[-1]
            waiting = asyncio.Queue[JobId | None](1)
            async with anyio.create_task_group() as tasks:
                for _ in range(self._deliveries):
                    tasks.start_soon(self._deliver, waiting, Delivery.copy, lambda again: None)
                for job in page:
                    if self._shutdown.asked:
                        break
                    await waiting.put(job)
                await self._no_more(waiting)

    async def _page_jobs_to_copy(self, after: JobId) -> list[JobId]:
        batch, only = self._context.batch, self._settings.only
        return await self._context.ledger.run(
            jobs_to_copy, batch, after=after, limit=_COPIES_A_PAGE, only=only
        )

    @property
    def _has_trouble_of_its_own(self) -> bool:
        """Whether the disk or the ledger ended the run, and not the provider."""
        stopped = self._context.throttle.status().stopped
        return stopped is not None and stopped.startswith(("disk", "ledger"))

    async def _dispatch(self) -> None:
        context, feeder = self._context, self._feeder
        waiting = asyncio.Queue[Paid | None](_DELIVERIES_WAITING)

        async def hand_over(paid: Paid) -> None:
            feeder.add()
            await waiting.put(paid)

        context.deliver = hand_over
        async with anyio.create_task_group() as deliveries:
            for _ in range(self._deliveries):
                deliveries.start_soon(self._deliver, waiting, Delivery.deliver, feeder.done)
            self._redelivery.buying = True
            async with anyio.create_task_group() as workers:
                for _ in range(self._settings.concurrency):
                    worker = Worker(context, self._api, self._tasks)
                    workers.start_soon(work, worker, feeder.next, feeder.done)
            self._redelivery.buying = False
            await self._no_more(waiting)

    @property
    def _deliveries(self) -> int:
        """Jobs on their way to disk at a time; most wait for the disk or the ledger."""
        return _DELIVERIES_A_DOWNLOAD * self._settings.downloads

    def _client(self) -> ApiClient:
        settings = self._settings
        return ApiClient(
            key=settings.key.reveal() if settings.key else None,
            verify=self._verify,
            deadlines=self._deadlines,
            deadline_s=settings.deadline_s,
        )

    def _downloader(self) -> Downloader:
        host = urlsplit(self._context.base_url).hostname or ""
        return Downloader(
            verify=self._verify,
            deadlines=self._deadlines,
            allow_loopback=is_loopback(host),
            most=self._settings.downloads,
        )

    async def _deliver(
        self,
        waiting: _Source[T],
        deliver: Callable[[Delivery, T], Awaitable[Again | None]],
        done: Callable[[Again | None], None],
    ) -> None:
        context = self._context
        delivery = Delivery(
            context,
            self._loader,
            context.base,
            tasks=self._tasks,
            redelivery=self._redelivery,
            overwrite=context.overwrite,
        )
        while (job := await waiting.get()) is not None:
            again = None
            try:
                again = await deliver(delivery, job)
            except LedgerWriteError as exc:
                context.throttle.stop(f"ledger: {exc}")
            finally:
                done(again)

    async def _no_more(self, waiting: asyncio.Queue[T | None]) -> None:
        for _ in range(self._deliveries):
            await waiting.put(None)

    async def _sweep_spool(self) -> None:
        """Remove what the spool holds of jobs that are done by now, by another attempt too."""
        context = self._context
        held = await in_disk_thread(context.spool.attempts)
        finished = await context.ledger.run(finished_attempts, context.batch, held)
        for attempt in finished:
            await in_disk_thread(context.spool.remove, attempt)
