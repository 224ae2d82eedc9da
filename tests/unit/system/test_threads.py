"""Calls in other threads: all are made, few threads wake, and none is left before it is over."""

from __future__ import annotations

import asyncio
import threading
from itertools import count

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.system.threads import Threads

pytestmark = pytest.mark.anyio

_names = count()


@pytest.fixture
def threads() -> Threads:
    return Threads(4, f"test{next(_names)}")


async def test_calls_are_made_in_another_thread_and_answered(threads: Threads) -> None:
    assert await threads.call(threading.current_thread) is not threading.main_thread()
    assert await threads.call(max, 3, 5) == 5
    with pytest.raises(ZeroDivisionError):
        await threads.call(divmod, 1, 0)


@given(burst=st.lists(st.integers(0, 9), min_size=1, max_size=60), most=st.integers(1, 4))
def test_every_call_is_made_once_and_begun_in_its_order(burst: list[int], most: int) -> None:
    begun: list[int] = []
    pool = Threads(most, "order")

    def square(place: int, number: int) -> int:
        begun.append(place)
        return number * number

    async def all_of_them() -> list[int]:
        calls = (pool.call(square, place, number) for place, number in enumerate(burst))
        return await asyncio.gather(*calls)

    assert asyncio.run(all_of_them()) == [number * number for number in burst]
    assert sorted(begun) == list(range(len(burst)))
    if most == 1:
        assert begun == sorted(begun)


async def test_one_thread_does_what_it_can_keep_up_with(threads: Threads) -> None:
    used = {await threads.call(threading.get_ident) for _ in range(200)}
    assert len(used) == 1


async def test_calls_behind_one_that_is_stuck_are_taken_by_other_threads(threads: Threads) -> None:
    """The fourth is made while three are stuck, though nothing is called after it."""
    free = threading.Event()
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(threads.call, free.wait)
        await threads.call(free.set)


async def test_no_more_threads_than_allowed(threads: Threads) -> None:
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
async def test_a_cancelled_caller_is_told_when_its_call_is_over(
    fails: bool, threads: Threads
) -> None:
    began, free = threading.Event(), threading.Event()
    over = False

    def slow() -> None:
        nonlocal over
        began.set()
        free.wait()
        over = True
        if fails:
            raise OSError("no room")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(threads.call, slow)
        await anyio.to_thread.run_sync(began.wait)
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await anyio.lowlevel.checkpoint()
            assert not over
            free.set()
    assert over


async def test_a_task_that_is_cancelled_twice_waits_for_its_call_all_the_same(
    threads: Threads,
) -> None:
    """As a program does that runs batchgen in an event loop of its own."""
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


async def test_a_system_that_gives_no_thread_is_asked_again(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
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


async def test_what_a_call_holds_is_let_go_of_when_it_is_over(threads: Threads) -> None:
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


def test_the_threads_serve_one_event_loop_after_another(threads: Threads) -> None:
    for number in range(3):
        assert asyncio.run(threads.call(abs, -number)) == number
    assert len(threads._homes) == 1, "loops that are closed are forgotten"
