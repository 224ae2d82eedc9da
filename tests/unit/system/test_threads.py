"""Thread pool: every call runs, few threads wake, and callers wait for the end of a call."""

from __future__ import annotations

import asyncio
import threading
from itertools import count

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.system.threads import ThreadPool

pytestmark = pytest.mark.anyio

_names = count()


@pytest.fixture
def threads() -> ThreadPool:
    return ThreadPool(4, f"test{next(_names)}")


async def test_call_runs_on_worker_thread(threads: ThreadPool) -> None:
    assert await threads.call(threading.current_thread) is not threading.main_thread()
    assert await threads.call(max, 3, 5) == 5
    with pytest.raises(ZeroDivisionError):
        await threads.call(divmod, 1, 0)


@given(burst=st.lists(st.integers(0, 9), min_size=1, max_size=60), max_threads=st.integers(1, 4))
def test_calls_run_once_and_start_in_order(burst: list[int], max_threads: int) -> None:
    begun: list[int] = []
    pool = ThreadPool(max_threads, "order")

    def square(place: int, number: int) -> int:
        begun.append(place)
        return number * number

    async def call_all() -> list[int]:
        calls = (pool.call(square, place, number) for place, number in enumerate(burst))
        return await asyncio.gather(*calls)

    assert asyncio.run(call_all()) == [number * number for number in burst]
    assert sorted(begun) == list(range(len(burst)))
    if max_threads == 1:
        assert begun == sorted(begun)


async def test_fast_calls_use_one_thread(
    threads: ThreadPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchgen.system.threads._WAKE_AFTER_S", 600.0)  # no call is slow
    used = {await threads.call(threading.get_ident) for _ in range(200)}
    assert len(used) == 1


async def test_blocked_call_does_not_block_the_next_ones(threads: ThreadPool) -> None:
    """The fourth call runs while three are blocked, though no call follows it."""
    free = threading.Event()
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(threads.call, free.wait)
        await threads.call(free.set)


async def test_pool_respects_its_thread_limit(threads: ThreadPool) -> None:
    together = 0
    most = 0
    lock = threading.Lock()
    begun = threading.Semaphore(0)
    free = threading.Event()

    def stay() -> None:
        nonlocal together, most
        with lock:
            together += 1
            most = max(most, together)
        begun.release()
        free.wait()
        with lock:
            together -= 1

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(threads.call, stay)
        for _ in range(4):
            await anyio.to_thread.run_sync(begun.acquire)
        free.set()
    assert most == 4


@pytest.mark.parametrize("fails", [False, True])
async def test_cancelled_caller_waits_for_its_call(fails: bool, threads: ThreadPool) -> None:
    began, free = threading.Event(), threading.Event()
    over = False

    def slow() -> None:
        nonlocal over
        began.set()
        free.wait()
        over = True
        if fails:
            raise OSError("disk full")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(threads.call, slow)
        await anyio.to_thread.run_sync(began.wait)
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await anyio.lowlevel.checkpoint()
            assert not over
            free.set()
    assert over


async def test_repeatedly_cancelled_task_waits_for_its_call(
    threads: ThreadPool,
) -> None:
    """A program that runs batchgen in its own event loop may do so."""
    began, free = threading.Event(), threading.Event()

    def slow() -> None:
        began.set()
        free.wait()

    task = asyncio.ensure_future(threads.call(slow))
    await anyio.to_thread.run_sync(began.wait)
    for _ in range(3):
        task.cancel()
        await anyio.wait_all_tasks_blocked()
        assert not task.done()
    free.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_thread_start_is_retried_after_refusal(
    threads: ThreadPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start
    refusals = 3

    def refuse(thread: threading.Thread) -> None:
        nonlocal refusals
        if thread.name.startswith("test") and refusals:
            refusals -= 1
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with anyio.fail_after(20):
        assert await threads.call(abs, -1) == 1
        assert await threads.call(abs, -2) == 2
    assert refusals == 0


async def test_finished_call_releases_its_arguments(threads: ThreadPool) -> None:
    import weakref

    class Block:
        def size(self) -> int:
            return 1

    block = Block()
    gone = weakref.ref(block)
    assert await threads.call(block.size) == 1
    del block
    assert await threads.call(lambda: 2) == 2
    assert gone() is None


def test_pool_serves_several_event_loops(threads: ThreadPool) -> None:
    for number in range(3):
        assert asyncio.run(threads.call(abs, -number)) == number
    assert len(threads._loop_queues) == 1, "closed loops are forgotten"
