"""Video tasks: accepted at once, done after their latency, and polled until they are done."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

import orjson

from batchgen.simulator.billing import Account, Journal, Purchase
from batchgen.simulator.errors import ApiError
from batchgen.simulator.faults import Behavior, Fault, TaskResponse
from batchgen.simulator.image_generator import Studio
from batchgen.simulator.models.veo import VideoRequest
from batchgen.simulator.orders import Order

QUEUED, PROCESSING, SUCCESS, FAILED = "queued", "processing", "SUCCESS", "failed"
_OLD_WORDS = {QUEUED: "processing", PROCESSING: "processing", SUCCESS: "completed", FAILED: FAILED}
_QUEUED_SHARE = 1 / 3
"""Share of a task's time during which it is queued."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """An accepted task, as in the journal. Times are Unix seconds.

    `fault` is its fault, one of the task faults or `bill-truncated`; None if it succeeds.
    """

    purchase: Purchase
    micros: int
    width: int
    height: int
    seconds: int
    created_at: float
    due_at: float
    fault: str | None

    @property
    def id(self) -> str:
        return f"task_{self.purchase.request_id}"

    @property
    def file_name(self) -> str:
        return f"{self.purchase.request_id}-1.mp4"

    def progress_at(self, now: float) -> tuple[str, float]:
        """Return the state of a task that has not ended, and the time since when it holds."""
        started_at = self.created_at + _QUEUED_SHARE * (self.due_at - self.created_at)
        return (QUEUED, self.created_at) if now < started_at else (PROCESSING, started_at)


@dataclass(frozen=True, slots=True)
class End:
    """How and when a task ended."""

    status: str
    time: float


class Tasks:
    """All tasks of a state directory; they survive the process and continue after a restart.

    Raises ValueError if a line read back is not JSON.
    """

    def __init__(self, state: Path, studio: Studio, account: Account) -> None:
        self._journal = Journal(state / "tasks.jsonl")
        self._studio = studio
        self._account = account
        self._tasks: dict[str, Task] = {}
        self._ends: dict[str, End] = {}
        self._closing = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        for line in self._journal.lines():
            row = orjson.loads(line)
            if "task" in row:
                self._keep(Task(**row["task"] | {"purchase": Purchase(**row["task"]["purchase"])}))
            else:
                self._ends[row["ended"]] = End(row["status"], row["time"])

    @property
    def open(self) -> int:
        """Return the number of unfinished tasks."""
        return len(self._tasks) - len(self._ends)

    def resume(self) -> None:
        """Continue the tasks of an earlier process; call it once, inside the event loop."""
        for task in self._tasks.values():
            if task.id not in self._ends:
                self._start(task)

    async def create(
        self, order: Order[VideoRequest], behavior: Behavior, fault: Fault | None
    ) -> bytes:
        """Accept a task, which is on disk when this returns, and return the response body."""
        if fault is Fault.BILL_EMPTY:
            return b"{}"
        now = time.time()
        wanted = order.wanted
        truncated = fault if fault is Fault.BILL_TRUNCATED else None
        own_fault = behavior.task_fault(order.number) or truncated
        task = Task(
            purchase=order.purchase(own_fault),
            micros=order.micros,
            width=wanted.width,
            height=wanted.height,
            seconds=wanted.seconds,
            created_at=now,
            due_at=now + behavior.task_latency,
            fault=own_fault,
        )
        await self._journal.append({"task": dataclasses.asdict(task)})
        self._keep(task)
        self._start(task)
        if behavior.task_response is TaskResponse.OLD:
            created = {"id": task.id, "status": PROCESSING, "status_update_time": int(now)}
        else:
            created = {"task_id": task.id, "status": PROCESSING}
        return orjson.dumps(created)

    def query(self, task_id: str, behavior: Behavior) -> dict[str, object]:
        """Return a task's current state. Raises ApiError for an unknown task."""
        task = self._tasks.get(task_id)
        if task is None:
            raise ApiError(400, "task_not_exist", code="task_not_exist")
        status, since = self._status(task)
        url = self._studio.url(task.file_name) if status == SUCCESS else ""
        if behavior.task_response is TaskResponse.OLD:
            return {
                "id": task.id,
                "status": _OLD_WORDS[status],
                "status_update_time": int(since),
                "video_url": url,
            }
        data = {"task_id": task.id, "status": status, "url": url, "artifact_url": url}
        if status == FAILED:
            data["fail_reason"] = "The video could not be made."
        return {"code": "success", "message": "", "data": data}

    async def close(self) -> None:
        """End what is due, and leave the rest to the next start."""
        self._closing.set()
        await asyncio.gather(*self._running)
        await self._journal.close()

    def _status(self, task: Task) -> tuple[str, float]:
        """Return the state of a task and the time since when it holds."""
        end = self._ends.get(task.id)
        if end is not None:
            return end.status, end.time
        return task.progress_at(time.time())

    def _keep(self, task: Task) -> None:
        self._tasks[task.id] = task

    def _start(self, task: Task) -> None:
        work = asyncio.create_task(self._end_when_due(task))
        self._running.add(work)
        work.add_done_callback(self._running.discard)

    async def _end_when_due(self, task: Task) -> None:
        try:
            async with asyncio.timeout(max(0.0, task.due_at - time.time())):
                await self._closing.wait()
        except TimeoutError:
            await self._end(task)

    async def _end(self, task: Task) -> None:
        """Make the video or refund the money, and then record the end."""
        failed = task.fault in (Fault.TASK_FAIL, Fault.BILL_TASK_FAIL)
        if not failed:
            await asyncio.to_thread(self._make, task)
        elif task.fault == Fault.TASK_FAIL:
            await self._account.refund(task.purchase, task.micros)
        end = End(FAILED if failed else SUCCESS, time.time())
        await self._journal.append({"ended": task.id, "status": end.status, "time": end.time})
        self._ends[task.id] = end

    def _make(self, task: Task) -> None:
        self._studio.video(
            file_name=task.file_name,
            prompt=task.purchase.prompt,
            model=task.purchase.model,
            size=(task.width, task.height),
            seconds=task.seconds,
            truncated=task.fault == Fault.BILL_TRUNCATED,
        )
