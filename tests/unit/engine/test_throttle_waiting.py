"""Waiting for the throttle on a real event loop."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import TaskGroup

from batchgen.engine.throttle.core import ThrottleCore
from batchgen.engine.throttle.limits import (
    RETRY_AFTER,
    DispatchLimits,
    DispatchStopped,
    Signal,
    Ticket,
)
from batchgen.engine.throttle.throttle import LEAD_S, Throttle
from batchgen.http.request import BytesBody
from batchgen.http.upload import Upload


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


class Queue:
    """Tasks that request a start, and the order of their starts."""

    def __init__(self, throttle: Throttle, group: TaskGroup) -> None:
        self.throttle = throttle
        self.group = group
        self.started: list[tuple[str, Ticket]] = []
        self.refused: list[str] = []

    async def add(self, name: str, images: int = 1) -> anyio.CancelScope:
        scope = anyio.CancelScope()

        async def want() -> None:
            with scope:
                try:
                    ticket = await self.throttle.start(images)
                except DispatchStopped as stopped:
                    self.refused.append(stopped.reason)
                else:
                    self.started.append((name, ticket))

        self.group.start_soon(want)
        await settle()
        return scope

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.started]


@pytest.mark.anyio
async def test_tasks_start_in_arrival_order() -> None:
    throttle = Throttle(ThrottleCore(DispatchLimits(concurrency=1)))
    async with anyio.create_task_group() as group:
        queue = Queue(throttle, group)
        for name in "abcd":
            await queue.add(name)
        for count in range(1, 5):
            assert queue.names == list("abcd"[:count])
            throttle.finish(queue.started[-1][1], Signal.OK)
            await settle()
    assert throttle.status().in_flight == 0


@pytest.mark.anyio
async def test_one_finish_starts_one_task() -> None:
    throttle = Throttle(ThrottleCore(DispatchLimits(concurrency=2)))
    async with anyio.create_task_group() as group:
        queue = Queue(throttle, group)
        for name in "abcde":
            await queue.add(name)
        throttle.finish(queue.started[0][1], Signal.OK)
        await settle()
        assert queue.names == ["a", "b", "c"]
        throttle.stop("over")


@pytest.mark.anyio
async def test_stop_wakes_every_waiting_task() -> None:
    limits = DispatchLimits(concurrency=4, requests_per_minute=0.01)
    throttle = Throttle(ThrottleCore(limits))
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            queue = Queue(throttle, group)
            for name in "abcdef":
                await queue.add(name)
            throttle.stop("budget")
    assert queue.names == ["a"]
    assert queue.refused == ["budget"] * 5
    with pytest.raises(DispatchStopped, match="budget"):
        await throttle.start()


@pytest.mark.anyio
async def test_stop_by_a_rule_wakes_every_waiting_task() -> None:
    throttle = Throttle(ThrottleCore(DispatchLimits(concurrency=1)))
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            queue = Queue(throttle, group)
            for name in "abc":
                await queue.add(name)
            throttle.finish(queue.started[0][1], Signal.THROTTLED, retry_after_s=1e6)
    assert queue.refused == [RETRY_AFTER] * 2


@pytest.mark.anyio
async def test_task_starts_on_time_without_other_events() -> None:
    throttle = Throttle(ThrottleCore(DispatchLimits(requests_per_minute=600)))
    with anyio.fail_after(5):
        for number in range(4):
            assert (await throttle.start()).id == number


@pytest.mark.anyio
async def test_waiting_for_a_slot_does_not_poll() -> None:
    asked = 0

    def clock() -> float:
        nonlocal asked
        asked += 1
        return time.monotonic()

    throttle = Throttle(ThrottleCore(DispatchLimits(concurrency=1)), clock)
    async with anyio.create_task_group() as group:
        queue = Queue(throttle, group)
        for name in "abc":
            await queue.add(name)
        before = asked
        await anyio.sleep(0.05)
        assert asked == before
        throttle.stop("over")


@pytest.mark.anyio
@pytest.mark.parametrize("cancelled", [1, 2], ids=["first in line", "second in line"])
async def test_cancelled_task_leaves_no_trace(cancelled: int) -> None:
    throttle = Throttle(ThrottleCore(DispatchLimits(concurrency=1)))
    async with anyio.create_task_group() as group:
        queue = Queue(throttle, group)
        scopes = [await queue.add(name) for name in "abcd"]
        scopes[cancelled].cancel()
        await settle()
        assert throttle.status().in_flight == 1
        for _ in range(3):
            throttle.finish(queue.started[-1][1], Signal.OK)
            await settle()
    assert queue.names == [name for name in "abcd" if name != "abcd"[cancelled]]
    assert throttle.status().in_flight == 0


@pytest.mark.anyio
async def test_start_racing_with_cancellation_loses_no_ticket() -> None:
    throttle = Throttle(ThrottleCore(DispatchLimits(concurrency=1)))
    held = await throttle.start()

    def finish_then_cancel(scope: anyio.CancelScope) -> None:
        throttle.finish(held, Signal.OK)
        scope.cancel()

    def cancel_then_finish(scope: anyio.CancelScope) -> None:
        scope.cancel()
        throttle.finish(held, Signal.OK)

    orders: list[Callable[[anyio.CancelScope], None]] = [finish_then_cancel, cancel_then_finish]
    for meet in orders:
        async with anyio.create_task_group() as group:
            queue = Queue(throttle, group)
            meet(await queue.add("a"))
            await settle()
        for _, ticket in queue.started:
            throttle.finish(ticket, Signal.OK)
        assert throttle.status().in_flight == 0
        with anyio.fail_after(5):
            held = await throttle.start()


@pytest.mark.anyio
async def test_hundred_workers_share_all_slots() -> None:
    throttle = Throttle(ThrottleCore(DispatchLimits(concurrency=7)))
    most = done = 0

    async def work(rng: random.Random) -> None:
        nonlocal most, done
        for _ in range(20):
            with anyio.move_on_after(rng.choice([None, 0.0])):
                ticket = await throttle.start()
                try:
                    most = max(most, throttle.status().in_flight)
                    for _ in range(rng.randrange(60)):
                        await anyio.lowlevel.checkpoint()
                finally:
                    throttle.finish(ticket, Signal.OK)
                done += 1

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            for seed in range(100):
                group.start_soon(work, random.Random(seed))
    assert most == 7
    assert done >= 700
    assert throttle.status().in_flight == 0


@pytest.mark.anyio
async def test_upload_waits_before_its_first_byte() -> None:
    opened = anyio.Event()
    pieces = aiter(Upload(BytesBody(b"abc"), opened.wait))
    received: list[bytes] = []

    async def receive() -> None:
        received.extend([piece async for piece in pieces])

    async with anyio.create_task_group() as group:
        group.start_soon(receive)
        await settle()
        assert received == []
        opened.set()
    assert received == [b"abc"]


@pytest.mark.anyio
async def test_slow_preparation_lengthens_the_lead() -> None:
    now = 100.0

    async def place(images: int, gaps: Mapping[str, float], lead_s: float) -> float:
        return now + lead_s

    limits = DispatchLimits(concurrency=3, requests_per_minute=6e5)
    throttle = Throttle(ThrottleCore(limits), lambda: now, reserve_start=place)
    first = await throttle.start()
    assert first.send_at == pytest.approx(now + LEAD_S)
    now += 0.2
    await throttle.wait_to_send(first)
    now += 1
    second = await throttle.start()
    assert second.send_at == pytest.approx(now + 0.25)
    now += 0.3
    await throttle.wait_to_send(second)
    await throttle.wait_to_send(second)


@pytest.mark.anyio
async def test_departure_elsewhere_is_known_before_its_time() -> None:
    now = 100.0

    async def place(images: int, gaps: Mapping[str, float], lead_s: float) -> float:
        return now + lead_s

    limits = DispatchLimits(concurrency=3, requests_per_minute=600)
    throttle = Throttle(ThrottleCore(limits), lambda: now, reserve_start=place)
    first = await throttle.start()
    assert await throttle.wait_to_send(first, 0.05) == pytest.approx(LEAD_S)
    now += 1
    second = await throttle.start()
    now += LEAD_S
    assert await throttle.wait_to_send(second, 0.05) == pytest.approx(0.05), "a late one waits too"
