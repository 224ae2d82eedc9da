"""Run a batch: recover, deliver paid images, then work through the pending jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

import anyio

from batchgen.engine.attempt import recover
from batchgen.engine.context import PaidJob, Requeue, RunContext
from batchgen.engine.delivery import Delivery, DeliveryTools
from batchgen.engine.executor import Executor
from batchgen.engine.image_source import ImageSource
from batchgen.engine.job_queue import JobQueue
from batchgen.engine.local_executor import LocalExecutor
from batchgen.engine.placing import Placer
from batchgen.engine.redelivery import DOWNLOAD_WAIT_S, Redelivery
from batchgen.engine.stop_reasons import LEDGER, prevents_saving
from batchgen.engine.video_tasks import POLL_S, TaskPoller
from batchgen.engine.worker import Worker, WorkerTools, work
from batchgen.http.client import ApiClient
from batchgen.http.deadlines import Deadlines
from batchgen.http.download import Downloader
from batchgen.http.network import Access, Network
from batchgen.job import JobId
from batchgen.ledger.attempts import finished_attempts, open_attempts
from batchgen.ledger.copies import jobs_to_copy, record_copy_waits
from batchgen.ledger.group_commit import LedgerWriteError
from batchgen.ledger.jobs import paid_jobs
from batchgen.ledger.key_patterns import Only
from batchgen.output.obstacles import Obstacles
from batchgen.providers.account import ApiKey
from batchgen.system.shutdown import Shutdown
from batchgen.system.threads import in_disk_thread

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_IMAGES_PER_DOWNLOAD: Final = 4
_DELIVERIES_PER_DOWNLOAD: Final = 12
_MAX_RECORDING: Final = 64
"""Complete responses that are recorded besides the requests in flight. One of up to 64 kB is only
in memory until then, and uncertain after a kill."""
_COPIES_PER_PAGE: Final = 200
_MAX_WAITING_DELIVERIES: Final = 256
"""Paid jobs that may wait for delivery; beyond that, workers wait and send no requests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """How many requests, downloads and jobs a run may have."""

    concurrency: int
    downloads: int
    deadline_s: float
    key: ApiKey | None
    limit: int | None = None
    """Maximum number of pending jobs to process; None means all."""
    only: Only | None = None
    """Selection of the jobs to process; None means all."""
    poll_s: float = POLL_S
    download_wait_s: float = DOWNLOAD_WAIT_S


class LateResponses(Protocol):
    """Responses in buckets whose attempts were given up, or that a killed run left."""

    async def before_recovery(self) -> bool:
        """Bring what recovery reads; return False if it must not begin."""
        ...

    async def at_end(self) -> int:
        """Settle attempts by responses that came late; return how many."""
        ...

    async def remove_spent(self) -> None:
        """Delete what `at_end` found in buckets and nothing needs any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """What a run has besides its own process."""

    late: LateResponses | None = None
    executor: (
        Callable[[LocalExecutor, ImageSource], AbstractAsyncContextManager[Executor]] | None
    ) = None
    """Makes the executor in place of the local one, which it may use."""
    obstacles: Obstacles | None = None
    """Checks output paths in place of the local check."""


class _Source(Protocol[T_co]):
    """A queue of jobs to deliver; None is its end."""

    async def get(self) -> T_co | None: ...


class Pool:
    """Runs one batch until all jobs are processed or dispatch stops."""

    def __init__(
        self,
        context: RunContext,
        settings: PoolSettings,
        shutdown: Shutdown,
        network: Network,
        remote: Remote | None = None,
    ) -> None:
        self._context = context
        self._settings = settings
        self._shutdown = shutdown
        self._network = network
        self._remote = remote or Remote()
        self._deadlines = Deadlines()
        self._queue = JobQueue(
            context.ledger,
            context.batch,
            context.throttle,
            limit=settings.limit,
            only=settings.only,
        )
        self._redelivery = Redelivery(
            context.observe, shutdown.pause, patience_s=settings.download_wait_s
        )
        self._tools: DeliveryTools

    async def run(self) -> None:
        """Recover open attempts, deliver paid images, then process the pending jobs.

        Return when nothing is left or dispatch has stopped. Everything is recorded then.
        """
        async with anyio.create_task_group() as services:
            services.start_soon(self._deadlines.watch)
            services.start_soon(self._shutdown.watch)
            with anyio.CancelScope() as scope:
                self._shutdown.guard(scope)
                try:
                    async with self._make_client() as client, self._make_downloader() as downloader:
                        await self._run_with(client, downloader)
                except LedgerWriteError as exc:
                    self._context.throttle.stop(f"{LEDGER}: {exc}")
            services.cancel_scope.cancel()

    async def _run_with(self, client: ApiClient, downloader: Downloader) -> None:
        context = self._context
        placer = _placer(context)
        source = ImageSource(context, downloader, placer)
        tasks = TaskPoller(
            client, context.base_url, pause=self._shutdown.pause, poll_s=self._settings.poll_s
        )
        local = LocalExecutor(context, client, source, placer, images=self._images)
        make = self._remote.executor
        async with nullcontext(local) if make is None else make(local, source) as executor:
            self._tools = DeliveryTools(
                executor=executor,
                source=source,
                placer=placer,
                tasks=tasks,
                redelivery=self._redelivery,
            )
            try:
                await self._run()
            finally:
                with anyio.CancelScope(shield=True):
                    await placer.close()

    async def _run(self) -> None:
        context, late = self._context, self._remote.late
        if late is not None and not await late.before_recovery():
            return
        for opened in await context.ledger.run(open_attempts, context.batch):
            await recover(context, opened)
        await self._tools.placer.sweep(context.run)
        async with anyio.create_task_group() as retries:
            for _ in range(self._settings.downloads):
                retries.start_soon(
                    self._deliver, self._redelivery, Delivery.deliver_left, lambda requeue: None
                )
            try:
                await self._deliver_backlog()
                await self._copy_shared()
                if not self._shutdown.asked:
                    await self._dispatch()
            except LedgerWriteError as exc:
                context.throttle.stop(f"{LEDGER}: {exc}")
            self._redelivery.close(waited=context.guard.waited)
        if late is not None:
            if await late.at_end():
                await self._deliver_backlog()
            await late.remove_spent()
        await context.guard.settle(context.run, context.ledger)
        await self._copy_shared()
        context.tally.jobs_at_fault += await context.ledger.run(
            record_copy_waits, context.batch, self._settings.only
        )
        await self._sweep_spool()

    async def _deliver_backlog(self) -> None:
        """Deliver jobs that earlier runs left paid, before any request; soonest expiry first.

        A job whose response turns out to be spoiled becomes pending, so the queue finds it.
        """
        context = self._context
        backlog = await context.ledger.run(paid_jobs, context.batch)
        if not backlog:
            return
        waiting = asyncio.Queue[JobId | None](1)
        async with anyio.create_task_group() as tasks:
            for _ in range(self._deliveries):
                tasks.start_soon(
                    self._deliver, waiting, Delivery.deliver_left, lambda requeue: None
                )
            for job in backlog:
                if self._shutdown.asked:
                    break
                await waiting.put(job)
            await self._end(waiting)

    async def _copy_shared(self) -> None:
        """Copy saved images for the jobs that share them, even if dispatch stopped: it is free."""
        last = JobId(0)
        while not (self._shutdown.asked or self._cannot_save):
            page = await self._page_jobs_to_copy(last)
            if not page:
                return
            last = page[-1]
            waiting = asyncio.Queue[JobId | None](1)
            async with anyio.create_task_group() as tasks:
                for _ in range(self._deliveries):
                    tasks.start_soon(self._deliver, waiting, Delivery.copy, lambda requeue: None)
                for job in page:
                    if self._shutdown.asked:
                        break
                    await waiting.put(job)
                await self._end(waiting)

    async def _page_jobs_to_copy(self, after: JobId) -> list[JobId]:
        batch, only = self._context.batch, self._settings.only
        return await self._context.ledger.run(
            jobs_to_copy, batch, after=after, limit=_COPIES_PER_PAGE, only=only
        )

    @property
    def _cannot_save(self) -> bool:
        """Whether the disk, the ledger or a bucket stopped dispatch, and not the provider."""
        return prevents_saving(self._context.throttle.status().stopped)

    async def _dispatch(self) -> None:
        context, jobs = self._context, self._queue
        waiting = asyncio.Queue[PaidJob | None](_MAX_WAITING_DELIVERIES)

        async def hand_over(paid: PaidJob) -> None:
            jobs.add()
            await waiting.put(paid)

        tools = WorkerTools(
            executor=self._tools.executor,
            tasks=self._tools.tasks,
            obstacles=self._remote.obstacles or _obstacles(context),
            slots=anyio.Semaphore(self._settings.concurrency, fast_acquire=True),
            deliver=hand_over,
        )
        async with anyio.create_task_group() as deliveries:
            for _ in range(self._deliveries):
                deliveries.start_soon(self._deliver, waiting, Delivery.deliver, jobs.done)
            self._redelivery.buying = True
            async with anyio.create_task_group() as workers:
                for _ in range(self._workers):
                    workers.start_soon(work, context, Worker(context, tools), jobs.next, jobs.done)
            self._redelivery.buying = False
            await self._end(waiting)

    @property
    def _workers(self) -> int:
        """Workers with a request slot, and those that record a response."""
        width = self._settings.concurrency
        return width + min(width // 2, _MAX_RECORDING)

    @property
    def _deliveries(self) -> int:
        """Concurrent deliveries; most of them wait for the ledger and hold no image."""
        return _DELIVERIES_PER_DOWNLOAD * self._settings.downloads

    @property
    def _images(self) -> int:
        """Images that are fetched or written at a time; most of them wait for the disk."""
        return _IMAGES_PER_DOWNLOAD * self._settings.downloads

    def _make_client(self) -> ApiClient:
        settings = self._settings
        return ApiClient(
            key=settings.key.reveal() if settings.key else None,
            network=self._network,
            deadlines=self._deadlines,
            deadline_s=settings.deadline_s,
        )

    def _make_downloader(self) -> Downloader:
        base_url, key = self._context.base_url, self._settings.key
        access = Access.for_provider(
            base_url,
            key.reveal() if key else None,
            self._context.profile.network.private_host,
        )
        return Downloader(
            network=self._network,
            deadlines=self._deadlines,
            access=access,
            most=self._settings.downloads,
        )

    async def _deliver(
        self,
        waiting: _Source[T],
        deliver: Callable[[Delivery, T], Awaitable[Requeue | None]],
        done: Callable[[Requeue | None], None],
    ) -> None:
        context = self._context
        delivery = Delivery(context, self._tools)
        while (job := await waiting.get()) is not None:
            requeue = None
            try:
                requeue = await deliver(delivery, job)
            except LedgerWriteError as exc:
                context.throttle.stop(f"{LEDGER}: {exc}")
            finally:
                done(requeue)

    async def _end(self, waiting: asyncio.Queue[T | None]) -> None:
        for _ in range(self._deliveries):
            await waiting.put(None)

    async def _sweep_spool(self) -> None:
        """Remove spooled responses of finished jobs, also those finished by another attempt."""
        context = self._context
        spooled = await in_disk_thread(context.spool.attempts)
        finished = await context.ledger.run(finished_attempts, context.batch, spooled)
        for attempt in finished:
            await in_disk_thread(context.spool.remove, attempt)


def _obstacles(context: RunContext) -> Obstacles:
    if context.stores is None:
        return Obstacles(context.base, overwrite=context.overwrite)
    from batchgen.output.bucket_obstacles import BucketObstacles  # most runs use no bucket

    return BucketObstacles(context.base, context.stores, overwrite=context.overwrite)


def _placer(context: RunContext) -> Placer:
    if context.stores is None:
        return Placer(context)
    from batchgen.engine.bucket_placing import BucketPlacer  # most runs use no bucket

    return BucketPlacer(context)
