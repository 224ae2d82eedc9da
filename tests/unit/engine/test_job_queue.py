"""Pending jobs on their way to the workers, from a real ledger: each once, and again when due."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from batchgen.engine.job_queue import Feeder
from batchgen.engine.throttle.limits import Limits, Signal, Ticket
from batchgen.engine.throttle.throttle import Throttle, ThrottleCore
from batchgen.engine.worker import Again
from batchgen.job import BatchId, Job
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.writer import LedgerWriter
from tests.support.builders import enroll, planned

pytestmark = pytest.mark.anyio


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Fed:
    """A feeder at work."""

    feeder: Feeder
    throttle: ThrottleCore
    clock: Clock
    statements: list[str]
    """What the ledger was asked."""
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
        """Whether the feeder waits with nothing to give."""
        asked = self._asked()
        await anyio.wait_all_tasks_blocked()
        return not asked.done()

    async def is_over(self) -> bool:
        return await self.next() is None

    def _asked(self) -> asyncio.Future[Job | None]:
        if self.waiting is None:
            self.waiting = asyncio.ensure_future(self.feeder.next())
        return self.waiting

    def end(self, signal: Signal) -> None:
        """A request ends with what it says of the provider."""
        ticket = self.throttle.try_start(self.clock.now)
        assert isinstance(ticket, Ticket)
        self.throttle.finish(ticket, signal, self.clock.now)

    def wake(self) -> None:
        """Something else is over."""
        self.feeder.add()
        self.feeder.done(None)


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

        batch = await writer(prepare)
        clock = Clock()
        core = ThrottleCore(Limits())
        feeder = Feeder(writer, batch, Throttle(core, clock), limit=limit, clock=clock)
        run = Fed(feeder, core, clock, statements)
        yield run
        if run.waiting is not None:
            run.waiting.cancel()
        await writer(lambda ledger: ledger.conn.set_trace_callback(None))


def pages(fed: Fed) -> int:
    return sum("state = 'pending'" in statement for statement in fed.statements)


async def test_each_pending_job_comes_once_and_in_the_manifest_s_order(tmp_path: Path) -> None:
    async with fed(tmp_path, 450) as work:
        keys = []
        for _ in range(450):
            keys.append((await work.take()).key)
            work.feeder.done(None)
        assert keys == [f"k{number}" for number in range(450)]
        assert await work.is_over()


async def test_jobs_are_read_a_page_at_a_time_as_they_are_taken(tmp_path: Path) -> None:
    async with fed(tmp_path, 450) as work:
        await work.take()
        assert pages(work) == 1
        for _ in range(250):
            await work.take()
        assert pages(work) == 2


@pytest.mark.parametrize(("limit", "given"), [(0, 0), (3, 3), (200, 200), (201, 201), (999, 250)])
async def test_no_more_jobs_are_taken_up_than_asked_for(
    limit: int, given: int, tmp_path: Path
) -> None:
    async with fed(tmp_path, 250, limit) as work:
        for _ in range(given):
            await work.take()
            work.feeder.done(None)
        assert await work.is_over()


async def test_a_batch_without_pending_jobs_is_over_at_once(tmp_path: Path) -> None:
    async with fed(tmp_path, 0) as work:
        assert await work.is_over()


async def test_the_feeder_stays_while_a_job_may_come_again(tmp_path: Path) -> None:
    async with fed(tmp_path, 1) as work:
        job = await work.take()
        assert await work.nothing_comes()
        work.feeder.done(Again(job=job, wait_s=0.0))
        assert (await work.take()).id == job.id
        work.feeder.done(None)
        assert await work.is_over()


async def test_what_is_under_way_besides_the_workers_keeps_it_open_too(tmp_path: Path) -> None:
    async with fed(tmp_path, 1) as work:
        job = await work.take()
        work.feeder.add()
        work.feeder.done(None)
        assert await work.nothing_comes()
        work.feeder.done(Again(job=job, wait_s=0.0))
        assert (await work.take()).id == job.id
        work.feeder.done(None)
        assert await work.is_over()


async def test_a_job_comes_again_when_its_time_is_up_and_not_before(tmp_path: Path) -> None:
    async with fed(tmp_path, 2) as work:
        first, second = await work.take(), await work.take()
        work.feeder.done(Again(job=first, wait_s=60.0))
        work.feeder.done(Again(job=second, wait_s=30.0))
        work.clock.now += 29.9
        work.wake()
        assert await work.nothing_comes()
        work.clock.now += 0.1
        work.wake()
        assert (await work.take()).id == second.id
        work.clock.now += 30.0
        work.wake()
        assert (await work.take()).id == first.id


async def test_a_job_comes_again_without_anybody_waking_the_feeder(tmp_path: Path) -> None:
    async with fed(tmp_path, 1) as work:
        job = await work.take()
        work.feeder.done(Again(job=job, wait_s=0.05))
        await anyio.wait_all_tasks_blocked()
        work.clock.now += 0.05
        assert (await work.take()).id == job.id


async def test_a_job_that_is_due_again_goes_before_new_ones(tmp_path: Path) -> None:
    async with fed(tmp_path, 5) as work:
        first = await work.take()
        work.feeder.done(Again(job=first, wait_s=0.0))
        assert [(await work.take()).key for _ in range(3)] == ["k0", "k1", "k2"]


async def test_several_who_wait_get_a_job_each_and_all_are_told_of_the_end(tmp_path: Path) -> None:
    async with fed(tmp_path, 2) as work:
        taken: list[Job | None] = []

        async def worker() -> None:
            while (job := await work.feeder.next()) is not None:
                taken.append(job)
                work.feeder.done(Again(job=job, wait_s=0.0) if len(taken) == 1 else None)

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                for _ in range(5):
                    tasks.start_soon(worker)
        assert [job.key for job in taken if job] in (["k0", "k0", "k1"], ["k0", "k1", "k0"])


async def test_in_an_outage_new_jobs_go_first_and_repeats_a_minute_apart(tmp_path: Path) -> None:
    async with fed(tmp_path, 5) as run:
        tried = [await run.take() for _ in range(3)]
        run.end(Signal.ERRORED)
        for job in tried:
            run.feeder.done(Again(job=job, wait_s=0.0))
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


async def test_a_stop_ends_the_wait_for_jobs_that_would_come_again(tmp_path: Path) -> None:
    async with fed(tmp_path, 1) as run:
        job = await run.take()
        run.feeder.done(Again(job=job, wait_s=3600.0))
        assert await run.nothing_comes()
        run.throttle.stop("budget")
        run.wake()
        assert await run.is_over()
