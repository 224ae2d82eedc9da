"""A request slot is free once the response is complete, while the ledger still records it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import anyio
import pytest

from batchgen.engine.context import PaidJob, RunContext
from batchgen.engine.executor import ExchangeOrder
from batchgen.engine.guard_rules import GuardLimits
from batchgen.engine.progress_guard import ProgressGuard
from batchgen.engine.throttle.core import ThrottleCore
from batchgen.engine.throttle.limits import DispatchLimits, DispatchStopped
from batchgen.engine.throttle.throttle import Throttle
from batchgen.engine.worker import Worker, WorkerTools, work
from batchgen.images.base64_scanner import ScannedBody
from batchgen.job import Job, JobId
from batchgen.ledger.attempts import settle_attempt
from batchgen.ledger.database import open_for_writing
from batchgen.ledger.jobs import pending_jobs
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.paid_responses import record_responses
from batchgen.ledger.writer import LedgerWriter
from batchgen.outcomes.exchange import Exchange, Reach
from batchgen.providers.registry import PROFILES
from batchgen.spool.spool import Spool
from batchgen.system.disk_space import DiskSpace
from tests.support.builders import enroll, planned, start

pytestmark = pytest.mark.anyio

TASK = {"id": "task-1", "status": "queued", "polling_url": "/v1/tasks/task-1"}

IMAGE = {"data": [{"url": "https://images.example/1.png"}]}
BAD_KEY = {"error": {"code": "invalid_api_key", "message": "Incorrect API key provided"}}


class SlowLedger(LedgerWriter):
    """A ledger that records no outcome before a test says so."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.go = anyio.Event()

    async def run(self, step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if step is settle_attempt:
            await self.go.wait()
        return await super().run(step, *args, **kwargs)

    async def run_one_of_many(self, step: Callable[..., Any], order: Any) -> Any:
        if step is record_responses:
            await self.go.wait()
        return await super().run_one_of_many(step, order)


@dataclass
class Rig:
    """A run with one request slot and two workers."""

    context: RunContext
    ledger: SlowLedger
    jobs: list[Job]
    status: int = 200
    body: object = field(default_factory=lambda: IMAGE)
    sent: list[str] = field(default_factory=list)
    over: anyio.Event = field(default_factory=anyio.Event)
    """Set when all video tasks are over."""
    delivered: list[str] = field(default_factory=list)
    waiting: anyio.Event = field(default_factory=anyio.Event)
    """Set with the second request or a task, or once no more may be sent."""

    async def exchange(self, order: ExchangeOrder) -> Exchange:
        """Respond at once."""
        self.sent.append(order.job.key)
        if len(self.sent) == 2:
            self.waiting.set()
        text = json.dumps(self.body).encode()
        return Exchange(
            reach=Reach.COMPLETE,
            status=self.status,
            headers={"content-type": "application/json"},
            scanned=ScannedBody(text, len(text)),
        )

    async def poll_until_done(self, task: str) -> None:
        """Generate a video until a test ends it."""
        self.waiting.set()
        await self.over.wait()

    async def find(self, *_: object) -> None:
        """No obstacle is in the way."""

    async def deliver(self, paid: PaidJob) -> None:
        self.delivered.append(paid.job.key)

    async def take(self) -> Job | None:
        if self.context.throttle.stopped:
            self.waiting.set()
            return None
        return self.jobs.pop(0) if self.jobs else None

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Let two workers share the one slot, until they wait for the ledger or each other."""
        tools = WorkerTools(
            executor=cast(Any, self),
            tasks=cast(Any, self),
            obstacles=cast(Any, self),
            slots=anyio.Semaphore(1),
            deliver=self.deliver,
        )
        async with anyio.create_task_group() as workers:
            for _ in range(2):
                worker = Worker(self.context, tools)
                workers.start_soon(work, self.context, worker, self.take, lambda requeue: None)
            try:
                await self.waiting.wait()
                await anyio.wait_all_tasks_blocked()
                yield
            finally:
                self.ledger.go.set()


@asynccontextmanager
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    path = tmp_path / "ledger.db"
    with closing(open_for_writing(path)) as conn:
        ledger = Ledger(conn)
        batch = enroll(ledger, [planned(number) for number in range(2)])
        run = start(ledger, batch)
        jobs = pending_jobs(ledger, batch, after=JobId(0), limit=2)
    throttle = Throttle(ThrottleCore(DispatchLimits(concurrency=1)))
    profile = PROFILES["local"]
    spool = Spool(tmp_path / "spool")
    spool.prepare()
    async with SlowLedger(path) as writer:
        context = RunContext(
            batch=batch,
            run=run,
            ledger=writer,
            spool=spool,
            profile=profile,
            base_url="http://127.0.0.1:1",
            throttle=throttle,
            guard=ProgressGuard(GuardLimits(concurrency=1), throttle, profile, proven=set()),
            disk_space=DiskSpace(tmp_path),
            observe=lambda event: None,
            base=tmp_path,
        )
        yield Rig(context, writer, jobs)


async def test_slot_is_free_while_a_response_is_recorded(tmp_path: Path) -> None:
    async with rig(tmp_path) as run:
        async with run.working():
            assert len(run.sent) == 2, "the second request waited for the commit of the first"
            assert run.context.throttle.status().in_flight == 0
            assert run.delivered == []
        assert sorted(run.delivered) == sorted(run.sent)


async def test_video_task_keeps_its_slot(tmp_path: Path) -> None:
    async with rig(tmp_path) as run:
        run.body = TASK
        run.ledger.go.set()
        async with run.working():
            assert len(run.sent) == 1, "more tasks are generated at a time than requests allowed"
            assert run.delivered == []
            run.over.set()
        assert sorted(run.delivered) == sorted(run.sent)


async def test_fatal_response_stops_before_its_slot_is_free(tmp_path: Path) -> None:
    async with rig(tmp_path) as run:
        run.status, run.body = 401, BAD_KEY
        async with run.working():
            assert run.context.throttle.stopped
            assert run.context.throttle.status().in_flight == 0
        assert len(run.sent) == 1
        with pytest.raises(DispatchStopped, match="Incorrect API key"):
            await run.context.throttle.start()
