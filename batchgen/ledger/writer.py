"""The one writing connection, with group commit.

All steps that wait are written in one transaction, and no caller continues before its own step is
durable: 64 workers cost one sync of the disk, not 64. A thread opens the ledger and commits. The
statements of the usual steps run on the event loop's thread: on another one, each of them would
cost two context switches, as both threads need the interpreter's lock.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Concatenate, Final, ParamSpec, Self, TypeVar

import anyio

from batchgen.ledger.busy import patience
from batchgen.ledger.clock import Clock, utc_now
from batchgen.ledger.database import open_for_writing
from batchgen.ledger.group_commit import (
    Call,
    Group,
    LedgerWriteError,
    Response,
    beat_alone,
    begin,
    finish,
)
from batchgen.ledger.journal import begin_log, end_log, files_of
from batchgen.ledger.ledger import Ledger
from batchgen.system.load import Load
from batchgen.system.mounts import is_local
from batchgen.system.threads import RESULTS_PER_TURN, Pending

P = ParamSpec("P")
T = TypeVar("T")
Order = TypeVar("Order")

_MAX_GROUP: Final = 512
_MAX_QUICK_GROUP: Final = 64
"""Most steps of a group on the event loop's thread. With responses of 64 kB, they take 20 ms and
4 MB."""
_GATHER_S: Final = 0.002
"""How long the first step of a group waits for others, including the commit before it."""
_GATHER_BUSY_S: Final = 0.015
"""The same while this process uses a whole processor: larger groups take less of it. Otherwise a
longer wait would only delay requests."""
_BEAT_S: Final = 15.0
_HURRIED_S: Final = 30.0
"""How long a locked ledger is waited for once the run is ending."""


class LedgerWriter:
    """Takes steps from one event loop and returns their results when they are durable.

    Use as an async context manager. ``await writer.run(read_job, job.id)`` calls
    ``read_job(ledger, job.id)`` in a transaction on the writer's thread, and returns the result
    after the commit. A step of `run_one_of_many` must be quick, as it may run on the event loop's
    thread. A cancellation does not interrupt a step that is queued: `run` waits for its result, and
    raises the cancellation then. For ``checked``, see `open_for_writing`.
    """

    def __init__(self, path: Path, clock: Clock = utc_now, *, checked: bool = False) -> None:
        self._path = path
        self._is_checked = checked
        self._clock = clock
        self._waiting: list[Call] = []
        self._timer: asyncio.TimerHandle | None = None
        self._is_writing = False
        """Whether the thread has a group; the next one gathers until it is durable."""
        self._groups: queue.SimpleQueue[Group | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="ledger", daemon=True)
        self._ledger: Ledger
        self._is_local = False
        """Whether the ledger is on a file system of this machine, so that reading is quick."""
        self._in_use = threading.Lock()
        """Held from a BEGIN on the event loop's thread until its COMMIT, and by a heartbeat."""
        self._load = Load()
        self._beaten = time.monotonic()
        self._patience = patience.copy()
        self._loop: asyncio.AbstractEventLoop
        self._ready: Pending[None]

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._ready = Pending(self._loop)
        self._thread.start()
        try:
            await self._ready.wait()
        except BaseException:
            self._patience.wait_s = 0.0  # the thread may be waiting for a locked ledger
            self._groups.put(None)
            with anyio.CancelScope(shield=True), suppress(Exception):
                await self._ready.result()
            raise
        try:
            await self._ready.result()
        except BaseException:
            self._groups.put(None)
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        while self._waiting:
            self._groups.put(self._next_group())
        self._groups.put(None)
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._thread.join)

    async def run(
        self, step: Callable[Concatenate[Ledger, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run one step durably. Raises LedgerWriteError if nothing can be written."""
        done: Pending[T] = Pending(self._loop)
        self._add(Call(lambda ledger: step(ledger, *args, **kwargs), done))
        return await done.result()

    async def run_one_of_many(
        self, step: Callable[[Ledger, list[Order]], list[T]], order: Order
    ) -> T:
        """Run a step that takes the orders of all callers in a group, and return this one's result.

        The result is the same as that of the step for this order alone.
        """
        done: Pending[T] = Pending(self._loop)
        self._add(Call(lambda ledger: step(ledger, [order])[0], done, step, order))
        return await done.result()

    def hurry(self) -> None:
        """Wait for a locked ledger only for a short time from now on: the run is ending."""
        self._patience.wait_s = min(self._patience.wait_s, _HURRIED_S)

    def _add(self, call: Call) -> None:
        self._waiting.append(call)
        if not self._is_writing and self._timer is None:
            self._timer = self._loop.call_later(self._gather_s(), self._start_group)

    def _gather_s(self) -> float:
        return _GATHER_BUSY_S if self._load.is_busy() else _GATHER_S

    def _start_group(self) -> None:
        """Hand the calls that wait to the thread, after their statements if these are quick."""
        self._timer = None
        self._is_writing = True
        group = self._next_group()
        try:
            if self._is_local and all(call.for_many is not None for call in group.calls):
                group = self._begun(group)
        finally:
            self._groups.put(group)

    def _next_group(self) -> Group:
        calls = self._waiting[:_MAX_GROUP]
        del self._waiting[:_MAX_GROUP]
        return Group(calls, with_beat=self._beat_is_due())

    def _begun(self, group: Group) -> Group:
        """Return a group with its statements run, or unchanged if that is not possible here."""
        if len(group.calls) > _MAX_QUICK_GROUP or not self._in_use.acquire(blocking=False):
            return group
        begun = None
        try:
            with suppress(Exception):  # the thread meets it again, and reports it
                begun = replace(group, results=begin(self._ledger, group))
        finally:
            if begun is None:
                self._in_use.release()
        return begun or group

    def _end_group(self, responses: Sequence[Response]) -> None:
        self._is_writing = False
        if self._waiting:
            left_s = self._waiting[0].queued_at_s + self._gather_s() - time.monotonic()
            self._timer = self._loop.call_later(max(0, left_s), self._start_group)
        _deliver(responses)

    def _serve(self) -> None:
        try:
            conn = open_for_writing(self._path, self._patience, checked=self._is_checked)
            begin_log(conn)
            files = [(path, path.stat()) for path in files_of(conn, self._path)]
            self._is_local = is_local(self._path.resolve().parent)
            self._ledger = Ledger(conn, self._clock)
        except BaseException as exc:  # handed to the one who waits for the start
            self._loop.call_soon_threadsafe(_deliver, [(self._ready, None, exc)])
            return
        self._loop.call_soon_threadsafe(_deliver, [(self._ready, None, None)])
        try:
            while (group := self._wait_for_group()) is not None:
                responses = finish(self._ledger, group)
                if group.results is not None:
                    self._in_use.release()
                if _is_replaced(files):
                    text = f"{self._path} was removed or replaced during the run"
                    responses = [(call.done, None, LedgerWriteError(text)) for call in group.calls]
                self._loop.call_soon_threadsafe(self._end_group, responses)
        finally:
            end_log(conn)
            conn.close()

    def _beat_is_due(self) -> bool:
        """Return whether the run should record that it is alive; if so, not again for a while."""
        now = time.monotonic()
        if now < self._beaten + _BEAT_S:
            return False
        self._beaten = now
        return True

    def _wait_for_group(self) -> Group | None:
        """Return the next group, with heartbeats while none comes; None at the end."""
        while True:
            try:
                return self._groups.get(timeout=_BEAT_S)
            except queue.Empty:
                if not self._in_use.acquire(blocking=False):
                    continue  # a group is about to come
                try:
                    if self._beat_is_due():
                        beat_alone(self._ledger)
                finally:
                    self._in_use.release()


def _is_replaced(files: Sequence[tuple[Path, os.stat_result]]) -> bool:
    """Return whether a path names another file than the open one, which loses what is written."""
    try:
        return not all(os.path.samestat(path.stat(), file) for path, file in files)
    except OSError:
        return True


def _deliver(responses: Sequence[Response]) -> None:
    for done, result, exc in responses[:RESULTS_PER_TURN]:
        done.resolve(result, exc)
    if len(responses) > RESULTS_PER_TURN:
        asyncio.get_running_loop().call_soon(_deliver, responses[RESULTS_PER_TURN:])
