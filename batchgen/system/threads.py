"""Handing what blocks to other threads, and waiting for it to its end.

A hop to a thread and back is what a run does most: some ten for each image.
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

_DISK_THREADS: Final = 8
"""So many may wait for a sync at once; more would only hold more of the files' bytes."""
AT_ONCE: Final = 16
"""So many who waited go on in one turn of the event loop; what else it has to do comes between."""
_PATIENCE_S: Final = 0.001
"""How long a call waits for a thread that is at work before another one is woken for it."""


class Pending(Generic[T]):
    """What another thread is to answer. Made, told and waited for in the event loop's thread."""

    __slots__ = ("_future", "_told")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._future: asyncio.Future[T] = loop.create_future()
        self._told = False

    def tell(self, result: T, error: BaseException | None) -> None:
        """Here is the response, or why there is none."""
        self._told = True
        if self._future.cancelled():
            return
        if error is not None:
            self._future.set_exception(error)
        else:
            self._future.set_result(result)

    async def settled(self) -> None:
        """Wait until the result is there; a cancellation raises at once and leaves it to come."""
        await asyncio.wait([self._future])

    async def result(self) -> T:
        """Wait for the result. A cancellation is raised once the result exists, and not before.

        A caller that must not lose the result uses a shielded scope, which is not free.
        """
        try:
            return await self._future
        except asyncio.CancelledError:
            while not self._told:
                self._future = self._future.get_loop().create_future()
                # A task that is cancelled once more, not by a scope of AnyIO's, waits all the same.
                with anyio.CancelScope(shield=True), suppress(asyncio.CancelledError):
                    await asyncio.wait([self._future])
            if not self._future.cancelled():
                self._future.exception()  # else asyncio complains that nobody asked for it
            raise


class _Call(Pending[Any]):
    """A call on its way to a thread and back."""

    __slots__ = ("_args", "_error", "_function", "_result", "home", "since")

    def __init__(self, home: _Home, function: Callable[..., Any], args: tuple[object, ...]) -> None:
        super().__init__(home.loop)
        self.home = home
        self.since = time.monotonic()
        self._function: Callable[..., Any] | None = function
        self._args = args
        self._result: Any = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Make the call, in the thread."""
        assert self._function is not None
        try:
            self._result = self._function(*self._args)
        except BaseException as exc:  # the one who waits is told
            self._error = exc
        self._function, self._args = None, ()

    def come_home(self) -> None:
        """Tell what came of it, in the event loop."""
        result, error = self._result, self._error
        self._result = self._error = None
        self.tell(result, error)


class _Home:
    """The event loop that calls come from, told of many answers at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.will_look = False
        """Whether it is going to see if another thread is needed."""
        self._over: deque[_Call] = deque()
        self._rung = False

    def send(self, call: _Call) -> None:
        """Bring a response, from any thread."""
        self._over.append(call)
        if not self._rung:
            self._rung = True
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self.loop.call_soon_threadsafe(self._open)

    def _open(self) -> None:
        # Put down first, so that who finds it up has brought its response before the last look.
        self._rung = False
        for _ in range(AT_ONCE):
            if not self._over:
                return
            self._over.popleft().come_home()
        self._rung = True
        self.loop.call_soon(self._open)


class Threads:
    """So many threads at most, of which as few are awake as keep up.

    Calls are begun in their order. A thread that finds more of them goes on with those; another is
    woken only for a call that has waited a millisecond, as where the disk is slow.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._waiting: deque[_Call] = deque()
        self._lock = threading.Lock()
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._awake = 0
        self._started = 0
        self._homes: dict[asyncio.AbstractEventLoop, _Home] = {}

    async def call(self, function: Callable[..., T], *args: object) -> T:
        """Call in a thread and wait for it to its end, as `Pending.result`."""
        loop = asyncio.get_running_loop()
        home = self._homes.get(loop)
        if home is None:
            self._homes = {old: at for old, at in self._homes.items() if not old.is_closed()}
            home = self._homes[loop] = _Home(loop)
        call = _Call(home, function, args)
        self._waiting.append(call)
        if self._rouse(call.since) and not home.will_look:
            home.will_look = True
            loop.call_later(_PATIENCE_S, self._look, home)
        response: T = await call.result()
        return response

    def _look(self, home: _Home) -> None:
        """Help calls whose thread is held up by the one before."""
        home.will_look = self._rouse(time.monotonic())
        if home.will_look:
            home.loop.call_later(_PATIENCE_S, self._look, home)

    def _rouse(self, now: float) -> bool:
        """Wake a thread, if one is needed; whether one may be needed a little later."""
        with self._lock:
            if not self._waiting or self._awake == self._most:
                return False
            if self._awake and now - self._waiting[0].since < _PATIENCE_S:
                return True
            if self._awake == self._started and not self._start():
                return True
            self._awake += 1
        self._bell.put(None)
        return len(self._waiting) > 1

    def _start(self) -> bool:
        """Make one more thread; a system that gives none may do so later."""
        name = f"{self._name}_{self._started + 1}"
        try:
            threading.Thread(target=self._work, name=name, daemon=True).start()
        except RuntimeError:
            return False
        self._started += 1
        return True

    def _work(self) -> None:
        while True:
            self._bell.get()
            while (call := self._next()) is not None:
                self._rouse(time.monotonic())
                call.run()
                call.home.send(call)

    def _next(self) -> _Call | None:
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._awake -= 1
            return None


_disk: Final = Threads(_DISK_THREADS, "disk")
_turn: Final = Threads(1, "turn")


async def on_disk(function: Callable[..., T], *args: object) -> T:
    """Call what blocks on the disk in a thread. Cancelled, it raises once that is over."""
    return await _disk.call(function, *args)


async def in_turn(function: Callable[..., T], *args: object) -> T:
    """As `on_disk`, for what holds a whole response in memory: one after the other.

    One thread reads and decodes more in a second than any endpoint makes.
    """
    return await _turn.call(function, *args)
