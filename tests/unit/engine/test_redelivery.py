"""The queue of failed downloads: order, bounds, and the end of a run."""

from __future__ import annotations

from dataclasses import replace

import anyio
import pytest

from batchgen.engine import redelivery
from batchgen.engine.events import DownloadRetried, JobHeld, RunEvent
from batchgen.engine.redelivery import Redelivery
from batchgen.job import Job, JobId, JobState
from tests.support.adapters import JOB

pytestmark = pytest.mark.anyio


class Rig:
    """A queue with a manual clock and a run that a test ends."""

    def __init__(self, patience_s: float = 60.0) -> None:
        self.now = 0.0
        self.events: list[RunEvent] = []
        self.continues = True
        self.queue = Redelivery(
            self.events.append, self.pause, patience_s=patience_s, clock=lambda: self.now
        )

    async def pause(self, seconds: float) -> bool:
        await anyio.lowlevel.checkpoint()
        self.now += seconds
        return self.continues

    @property
    def held(self) -> list[str]:
        return [event.key for event in self.events if isinstance(event, JobHeld)]


def job(number: int) -> Job:
    return replace(JOB, id=JobId(number), key=f"k{number}", state=JobState.PAID)


@pytest.mark.fault("XA1")
async def test_jobs_come_in_due_order() -> None:
    rig = Rig()
    for number, wait_s in ((1, 30.0), (2, 1.0), (3, 2.0)):
        assert await rig.queue.put(job(number), wait_s, "HTTP 403")
    rig.now = 2.0
    assert [await rig.queue.get(), await rig.queue.get()] == [2, 3]
    assert all(isinstance(event, DownloadRetried) for event in rig.events)


@pytest.mark.fault("XA1")
async def test_finished_run_waits_for_jobs_due_soon() -> None:
    rig = Rig(patience_s=10)
    await rig.queue.put(job(1), 5, "HTTP 403")
    await rig.queue.put(job(2), 11, "HTTP 404")
    rig.queue.close()
    rig.now = 5.0
    assert await rig.queue.get() == 1
    rig.queue.leave(JobId(1), [])
    assert await rig.queue.get() is None
    assert rig.held == ["k2"]
    assert await rig.queue.get() is None, "each of several consumers ends"
    assert not await rig.queue.put(job(3), 1, "HTTP 403")


async def test_end_of_run_wakes_every_consumer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redelivery, "_POLL_S", 3_600.0)
    rig = Rig()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as consumers:
            for _ in range(3):
                consumers.start_soon(rig.queue.get)
            await anyio.wait_all_tasks_blocked()
            rig.queue.close()


async def test_run_that_waited_tries_only_due_jobs() -> None:
    rig = Rig(patience_s=10)
    await rig.queue.put(job(1), 0, "HTTP 403")
    await rig.queue.put(job(2), 1, "HTTP 403")
    rig.queue.close(waited=True)
    assert await rig.queue.get() == 1
    rig.queue.leave(JobId(1), [])
    assert await rig.queue.get() is None
    assert rig.held == ["k2"]


@pytest.mark.fault("XA1")
async def test_job_in_a_try_may_return() -> None:
    rig = Rig(patience_s=10)
    await rig.queue.put(job(1), 0, "HTTP 403")
    await rig.queue.put(job(2), 99, "HTTP 403")
    rig.queue.close()
    assert await rig.queue.get() == 1
    found: list[JobId | None] = []

    async def consume() -> None:
        found.append(await rig.queue.get())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(consume)
        await anyio.wait_all_tasks_blocked()
        assert found == []
        assert await rig.queue.put(job(1), 0, "HTTP 403")
    assert found == [1]


@pytest.mark.fault("XA1")
async def test_signal_ends_the_wait_and_reports_the_jobs() -> None:
    rig = Rig()
    await rig.queue.put(job(1), 5, "HTTP 403")
    rig.continues = False
    assert await rig.queue.get() is None
    assert rig.held == ["k1"]


@pytest.mark.fault("XA1")
@pytest.mark.parametrize("buying", [True, False])
async def test_full_queue_delays_requests_only(buying: bool) -> None:
    rig = Rig()
    rig.queue.buying = buying
    for number in range(256):
        assert await rig.queue.put(job(number), 1e6, "HTTP 403")
    assert await rig.queue.put(job(7), 1e6, "again"), "a job that is held keeps its place"
    full: list[bool] = []

    async def put_one_more() -> None:
        full.append(await rig.queue.put(job(999), 1, "HTTP 403"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(put_one_more)
        for _ in range(9):
            await anyio.lowlevel.checkpoint()
        assert full == ([] if buying else [False])
        rig.queue.leave(JobId(3), [])
    assert full == [buying]
