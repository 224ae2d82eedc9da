"""The job queue on a real ledger: each pending job once, and again when due."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from batchgen.engine.context import Requeue
from batchgen.engine.job_queue import JobQueue
from batchgen.engine.throttle.core import ThrottleCore
from batchgen.engine.throttle.limits import DispatchLimits, Signal, Ticket
from batchgen.engine.throttle.throttle import Throttle
from batchgen.job import BatchId, Job
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.writer import LedgerWriter
from tests.support.builders import enroll, planned

pytestmark = pytest.mark.anyio


class Clock:
    """A manual clock."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Fed:
    """A job queue in use."""

    queue: JobQueue
    throttle: ThrottleCore
    clock: Clock
    statements: list[str]
    """The queries sent to the ledger."""
    waiting: asyncio.Future[Job | None] | None = None

    async def next(self) -> Job | None:
        asked, self.waiting = self._asked(), None
        with anyio.fail_after(10):
            return await asked

    async def take(self) -> Job:
        job = await self.next()
        assert job is not None
        return job

    async def nothing_comes(self) -> bool:
        """Return whether the queue waits without a job."""
        asked = self._asked()
        await anyio.wait_all_tasks_blocked()
        return not asked.done()

    async def is_over(self) -> bool:
        return await self.next() is None

    def _asked(self) -> asyncio.Future[Job | None]:
        if self.waiting is None:
            self.waiting = asyncio.ensure_future(self.queue.next())
        return self.waiting

    def end(self, signal: Signal) -> None:
        """End a request with a signal."""
        ticket = self.throttle.try_start(self.clock.now)
        assert isinstance(ticket, Ticket)
        self.throttle.finish(ticket, signal, self.clock.now)

    def wake(self) -> None:
        """End other work that could return a job."""
        self.queue.add()
        self.queue.done(None)


@asynccontextmanager
async def fed(tmp_path: Path, count: int, limit: int | None = None) -> AsyncIterator[Fed]:
    async with LedgerWriter(tmp_path / "batchgen.db") as writer:
        statements: list[str] = []

        def prepare(ledger: Ledger) -> BatchId:
            ledger.conn.execute("COMMIT")
            batch = enroll(ledger, [planned(number) for number in range(count)])
            ledger.conn.set_trace_callback(statements.append)
            ledger.conn.execute("BEGIN IMMEDIATE")
            return batch

        batch = await writer.run(prepare)
        clock = Clock()
        core = ThrottleCore(DispatchLimits())
        queue = JobQueue(writer, batch, Throttle(core, clock), limit=limit, clock=clock)
        run = Fed(queue, core, clock, statements)
        yield run
        if run.waiting is not None:
            run.waiting.cancel()
        await writer.run(lambda ledger: ledger.conn.set_trace_callback(None))


def pages(fed: Fed) -> int:
    return sum("state = 'pending'" in statement for statement in fed.statements)


async def test_pending_jobs_come_once_in_manifest_order(tmp_path: Path) -> None:
    async with fed(tmp_path, 450) as work:
        keys = []
        for _ in range(450):
            keys.append((await work.take()).key)
            work.queue.done(None)
        assert keys == [f"k{number}" for number in range(450)]
        assert await work.is_over()


async def test_jobs_are_read_in_pages_on_demand(tmp_path: Path) -> None:
    async with fed(tmp_path, 450) as work:
        await work.take()
        assert pages(work) == 1
        for _ in range(250):
            await work.take()
        assert pages(work) == 2


@pytest.mark.parametrize(("limit", "given"), [(0, 0), (3, 3), (200, 200), (201, 201), (999, 250)])
async def test_limit_bounds_the_number_of_jobs(limit: int, given: int, tmp_path: Path) -> None:
    async with fed(tmp_path, 250, limit) as work:
        for _ in range(given):
            await work.take()
            work.queue.done(None)
        assert await work.is_over()


async def test_batch_without_pending_jobs_ends_at_once(tmp_path: Path) -> None:
    async with fed(tmp_path, 0) as work:
        assert await work.is_over()


async def test_queue_stays_open_while_a_job_may_return(tmp_path: Path) -> None:
    async with fed(tmp_path, 1) as work:
        job = await work.take()
        assert await work.nothing_comes()
        work.queue.done(Requeue(job=job, wait_s=0.0))
        assert (await work.take()).id == job.id
        work.queue.done(None)
        assert await work.is_over()


async def test_added_work_keeps_the_queue_open(tmp_path: Path) -> None:
    async with fed(tmp_path, 1) as work:
        job = await work.take()
        work.queue.add()
        work.queue.done(None)
        assert await work.nothing_comes()
        work.queue.done(Requeue(job=job, wait_s=0.0))
        assert (await work.take()).id == job.id
        work.queue.done(None)
        assert await work.is_over()


async def test_job_returns_when_it_is_due(tmp_path: Path) -> None:
    async with fed(tmp_path, 2) as work:
        first, second = await work.take(), await work.take()
        work.queue.done(Requeue(job=first, wait_s=60.0))
        work.queue.done(Requeue(job=second, wait_s=30.0))
        work.clock.now += 29.9
        work.wake()
        assert await work.nothing_comes()
        work.clock.now += 0.1
        work.wake()
        assert (await work.take()).id == second.id
        work.clock.now += 30.0
        work.wake()
        assert (await work.take()).id == first.id


async def test_job_returns_without_a_wakeup(tmp_path: Path) -> None:
    async with fed(tmp_path, 1) as work:
        job = await work.take()
        work.queue.done(Requeue(job=job, wait_s=0.05))
        await anyio.wait_all_tasks_blocked()
        work.clock.now += 0.05
        assert (await work.take()).id == job.id


async def test_due_job_precedes_new_ones(tmp_path: Path) -> None:
    async with fed(tmp_path, 5) as work:
        first = await work.take()
        work.queue.done(Requeue(job=first, wait_s=0.0))
        assert [(await work.take()).key for _ in range(3)] == ["k0", "k1", "k2"]


async def test_every_waiting_worker_gets_a_job_or_the_end(tmp_path: Path) -> None:
    async with fed(tmp_path, 2) as work:
        taken: list[Job | None] = []

        async def worker() -> None:
            while (job := await work.queue.next()) is not None:
                taken.append(job)
                work.queue.done(Requeue(job=job, wait_s=0.0) if len(taken) == 1 else None)

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                for _ in range(5):
                    tasks.start_soon(worker)
        assert [job.key for job in taken if job] in (["k0", "k0", "k1"], ["k0", "k1", "k0"])


async def test_outage_prefers_new_jobs_and_spaces_repeats(tmp_path: Path) -> None:
    async with fed(tmp_path, 5) as run:
        tried = [await run.take() for _ in range(3)]
        run.end(Signal.ERRORED)
        for job in tried:
            run.queue.done(Requeue(job=job, wait_s=0.0))
        assert (await run.take()).key == tried[0].key, "one probe at once"
        assert [(await run.take()).key for _ in range(2)] == ["k3", "k4"], "then what is new"
        assert await run.nothing_comes()
        run.clock.now += 59
        run.wake()
        assert await run.nothing_comes()
        run.clock.now += 1
        run.wake()
        assert (await run.take()).key == tried[1].key
        run.end(Signal.OK)
        run.wake()
        assert (await run.take()).key == tried[2].key, "a success ends the outage"


async def test_stop_ends_the_wait_for_returning_jobs(tmp_path: Path) -> None:
    async with fed(tmp_path, 1) as run:
        job = await run.take()
        run.queue.done(Requeue(job=job, wait_s=3600.0))
        assert await run.nothing_comes()
        run.throttle.stop("budget")
        run.wake()
        assert await run.is_over()
