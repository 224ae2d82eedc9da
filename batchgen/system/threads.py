"""Run blocking calls on worker threads and await their completion.

A run makes up to ten such calls for each image, so this pool is built for a cheap round trip:
results cross back to the event loop in groups, and few threads are awake at a time.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Generic, TypeVar

import anyio

T = TypeVar("T")

_DISK_THREADS: Final = 16
"""Concurrent fsync calls; 8 limited a disk with 5 ms per sync to 500 images a second."""
_STORE_THREADS: Final = 32
"""Concurrent operations on buckets, which wait for the network and not for a disk."""
RESULTS_PER_TURN: Final = 16
"""Results delivered in one turn of the event loop, so that its other work is not delayed."""
_WAKE_AFTER_S: Final = 0.002
"""How long a call stays queued while a thread is busy before another thread is woken for it."""


class Pending(Generic[T]):
    """The awaitable result of work on another thread.

    Create, resolve and await it on the event loop's thread only.
    """

    __slots__ = ("_future", "_resolved")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._future: asyncio.Future[T] = loop.create_future()
        self._resolved = False

    def resolve(self, result: T, error: BaseException | None) -> None:
        """Deliver the result, or the error if it is not None."""
        self._resolved = True
        if self._future.cancelled():
            return
        if error is not None:
            self._future.set_exception(error)
        else:
            self._future.set_result(result)

    async def wait(self) -> None:
        """Wait until resolved. A cancellation raises at once; the result can still be awaited."""
        await asyncio.wait([self._future])

    async def result(self) -> T:
        """Return the result or raise the error; delay a cancellation until it is resolved.

        The result is lost in that case. A caller that needs it awaits in a shielded scope, which
        costs more.
        """
        try:
            return await self._future
        except asyncio.CancelledError:
            while not self._resolved:
                self._future = self._future.get_loop().create_future()
                # The shield stops AnyIO scopes only; `Task.cancel` may still raise here again.
                with anyio.CancelScope(shield=True), suppress(asyncio.CancelledError):
                    await asyncio.wait([self._future])
            if not self._future.cancelled():
                self._future.exception()  # mark as retrieved, or asyncio logs a warning
            raise


class _Call(Pending[Any]):
    """A queued function call and its result."""

    __slots__ = ("_args", "_error", "_function", "_result", "loop_queue", "queued_at")

    def __init__(
        self, loop_queue: _LoopQueue, function: Callable[..., Any], args: tuple[object, ...]
    ) -> None:
        super().__init__(loop_queue.loop)
        self.loop_queue = loop_queue
        self.queued_at = time.monotonic()
        self._function: Callable[..., Any] | None = function
        self._args = args
        self._result: Any = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Call the function, on a worker thread."""
        assert self._function is not None
        try:
            self._result = self._function(*self._args)
        except BaseException as exc:  # raised again where the call is awaited
            self._error = exc
        self._function, self._args = None, ()

    def deliver(self) -> None:
        """Resolve with the result of `run`, on the event loop's thread."""
        result, error = self._result, self._error
        self._result = self._error = None
        self.resolve(result, error)


class _LoopQueue:
    """Completed calls on their way back to one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.has_check = False
        """Whether `ThreadPool` checks at the end of this turn for calls that wait."""
        self.has_timer = False
        """Whether it has a timer on this loop to check for calls that wait too long."""
        self._completed: deque[_Call] = deque()
        self._wakeup_pending = False

    def put(self, call: _Call) -> None:
        """Enqueue a completed call and wake the loop, from any thread."""
        self._completed.append(call)
        if not self._wakeup_pending:
            self._wakeup_pending = True
            with suppress(RuntimeError):  # the loop is closed, so no task awaits the result
                self.loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        # Clear the flag before draining: a thread that still sees it set has already enqueued its
        # call, so the loop below finds it.
        self._wakeup_pending = False
        for _ in range(RESULTS_PER_TURN):
            if not self._completed:
                return
            self._completed.popleft().deliver()
        self._wakeup_pending = True
        self.loop.call_soon(self._drain)


class ThreadPool:
    """A pool that keeps as few threads awake as keep up with the calls.

    Calls start in the order they were queued. A thread takes calls until the queue is empty. One is
    woken at the end of a turn of the event loop: at once, it would wait for the interpreter lock,
    which costs two context switches. A second one is woken only after a call has waited two
    milliseconds, for example on a slow disk.
    """

    def __init__(self, max_threads: int, name: str) -> None:
        self._max_threads = max_threads
        self._name = name
        self._queued: deque[_Call] = deque()
        self._lock = threading.Lock()
        """Guards the two counters and `_queued.popleft`."""
        self._wakeups: queue.SimpleQueue[None] = queue.SimpleQueue()
        """A semaphore of the idle threads; `SimpleQueue` is the cheaper one, as it is in C."""
        self._awake = 0
        self._started = 0
        self._loop_queues: dict[asyncio.AbstractEventLoop, _LoopQueue] = {}

    async def call(self, function: Callable[..., T], *args: object) -> T:
        """Call a function on a worker thread and return its result; see `Pending.result`."""
        call = _Call(self._loop_queue(), function, args)
        self._queued.append(call)
        if not call.loop_queue.has_check:
            call.loop_queue.has_check = True
            call.loop_queue.loop.call_soon(self._check_queue, call.loop_queue)
        result: T = await call.result()
        return result

    def _loop_queue(self) -> _LoopQueue:
        loop = asyncio.get_running_loop()
        found = self._loop_queues.get(loop)
        if found is None:
            self._loop_queues = {
                other: one for other, one in self._loop_queues.items() if not other.is_closed()
            }
            found = self._loop_queues[loop] = _LoopQueue(loop)
        return found

    def _check_queue(self, loop_queue: _LoopQueue) -> None:
        """Wake a thread for calls of this turn of the event loop, if none is awake."""
        loop_queue.has_check = False
        if self._wake_thread(time.monotonic()) and not loop_queue.has_timer:
            loop_queue.has_timer = True
            loop_queue.loop.call_later(_WAKE_AFTER_S, self._check_again, loop_queue)

    def _check_again(self, loop_queue: _LoopQueue) -> None:
        """Wake a thread for calls that wait for a slow one."""
        loop_queue.has_timer = False
        self._check_queue(loop_queue)

    def _wake_thread(self, now: float) -> bool:
        """Wake a thread if one is needed; return whether to check again later."""
        with self._lock:
            if not self._queued or self._awake == self._max_threads:
                return False
            if self._awake and now - self._queued[0].queued_at < _WAKE_AFTER_S:
                return True
            if self._awake == self._started and not self._start_thread():
                return True
            self._awake += 1
        self._wakeups.put(None)
        return len(self._queued) > 1

    def _start_thread(self) -> bool:
        """Start one more thread; return False if the system refuses, which may be temporary."""
        name = f"{self._name}_{self._started + 1}"
        try:
            threading.Thread(target=self._work, name=name, daemon=True).start()
        except RuntimeError:
            return False
        self._started += 1
        return True

    def _work(self) -> None:
        while True:
            self._wakeups.get()
            while (call := self._next_call()) is not None:
                self._wake_thread(time.monotonic())
                call.run()
                call.loop_queue.put(call)

    def _next_call(self) -> _Call | None:
        with self._lock:
            if self._queued:
                return self._queued.popleft()
            self._awake -= 1
            return None


_disk: Final = ThreadPool(_DISK_THREADS, "disk")
_stores: Final = ThreadPool(_STORE_THREADS, "store")
_decode: Final = ThreadPool(1, "decode")


async def in_disk_thread(function: Callable[..., T], *args: object) -> T:
    """Call a function that blocks on the disk; delay a cancellation until the call is over."""
    return await _disk.call(function, *args)


async def in_store_thread(function: Callable[..., T], *args: object) -> T:
    """Call a function that waits for a bucket; delay a cancellation until the call is over."""
    return await _stores.call(function, *args)


async def in_decode_thread(function: Callable[..., T], *args: object) -> T:
    """Call a function that holds a whole response in memory, one at a time.

    A single thread decodes more images per second than any endpoint generates.
    """
    return await _decode.call(function, *args)
