"""The one writing connection, on a thread of its own, with group commit.

All steps that wait are written in one transaction, and no caller continues before its own step is
durable: 64 workers cost one sync of the disk, not 64.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeVar

import anyio

from batchgen.errors import BatchgenError, ExitCode
from batchgen.ledger.busy import LedgerConnection, patience
from batchgen.ledger.clock import Clock, utc_now
from batchgen.ledger.database import open_for_writing
from batchgen.ledger.journal import begin_log, end_log, files_of
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.runs import RunTakenOver, record_heartbeat
from batchgen.system.failpoints import Point, hit
from batchgen.system.threads import RESULTS_PER_TURN, Pending

P = ParamSpec("P")
T = TypeVar("T")
Order = TypeVar("Order")
Step = Callable[[Ledger], Any]
StepForMany = Callable[[Ledger, list[Any]], list[Any]]


@dataclass(frozen=True, slots=True)
class _Call:
    """A queued step and the promise of its result."""

    step: Step
    done: Pending[Any]
    for_many: StepForMany | None = None
    """The step as one that takes many orders at once, and this call's order."""
    order: Any = None
    queued_at_s: float = field(default_factory=time.monotonic)


_MAX_GROUP: Final = 512
_GATHER_S: Final = 0.002
"""How long the first of a group waits for others, a commit before it included: nothing next to a
request, and a quarter less work for the disk and the processor where many are in flight."""
_GATHER_BUSY_S: Final = 0.015
_BUSY_GROUP: Final = 4
"""A group of this many says that the next will be large too, and larger for a longer wait."""
_BEAT_S: Final = 15.0
_HURRIED_S: Final = 30.0
"""How long a locked ledger is waited for once the run is ending."""


class LedgerWriteError(BatchgenError):
    """The disk or SQLite refused a write: no request may be sent any more.

    Responses that arrived meanwhile are in the spool, and the next run takes it from there.
    """

    exit_code = ExitCode.STOPPED


class LedgerWriter:
    """Takes steps from one event loop and returns their results when they are durable.

    Use as an async context manager. ``await writer.run(read_job, job.id)`` calls
    ``read_job(ledger, job.id)`` in a transaction on the writer's thread, and returns the result
    after the commit. A cancellation does not interrupt a step that is queued: `run` waits for its
    result, and raises the cancellation then. For ``checked``, see `open_for_writing`.
    """

    def __init__(self, path: Path, clock: Clock = utc_now, *, checked: bool = False) -> None:
        self._path = path
        self._is_checked = checked
        self._clock = clock
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="ledger", daemon=True)
        self._gather_s = _GATHER_S
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
            self._calls.put(None)
            with anyio.CancelScope(shield=True), suppress(Exception):
                await self._ready.result()
            raise
        try:
            await self._ready.result()
        except BaseException:
            self._calls.put(None)
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._calls.put(None)
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._thread.join)

    async def run(
        self, step: Callable[Concatenate[Ledger, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run one step durably. Raises LedgerWriteError if nothing can be written."""
        done: Pending[T] = Pending(self._loop)
        self._calls.put(_Call(lambda ledger: step(ledger, *args, **kwargs), done))
        return await done.result()

    async def run_one_of_many(
        self, step: Callable[[Ledger, list[Order]], list[T]], order: Order
    ) -> T:
        """Run a step that takes the orders of all callers in a group, and return this one's result.

        The result is the same as that of the step for this order alone.
        """
        done: Pending[T] = Pending(self._loop)
        self._calls.put(_Call(lambda ledger: step(ledger, [order])[0], done, step, order))
        return await done.result()

    def hurry(self) -> None:
        """Wait for a locked ledger only for a short time from now on: the run is ending."""
        self._patience.wait_s = min(self._patience.wait_s, _HURRIED_S)

    def _serve(self) -> None:
        try:
            conn = open_for_writing(self._path, self._patience, checked=self._is_checked)
            begin_log(conn)
            files = [(path, path.stat()) for path in files_of(conn, self._path)]
        except BaseException as exc:  # handed to the one who waits for the start
            self._loop.call_soon_threadsafe(_deliver, [(self._ready, None, exc)])
            return
        self._loop.call_soon_threadsafe(_deliver, [(self._ready, None, None)])
        ledger = Ledger(conn, self._clock)
        try:
            while (group := self._next_group(ledger)) is not None:
                responses = _write(ledger, group, beat=self._beat_is_due())
                if _is_replaced(files):
                    text = f"{self._path} was removed or replaced during the run"
                    responses = [(call.done, None, LedgerWriteError(text)) for call in group]
                self._loop.call_soon_threadsafe(_deliver, responses)
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

    def _next_group(self, ledger: Ledger) -> list[_Call] | None:
        """Return all waiting calls, at least one; None when the writer is closed."""
        while True:
            try:
                first = self._calls.get(timeout=_BEAT_S)
                break
            except queue.Empty:
                if self._beat_is_due():
                    _beat_alone(ledger)
        if first is None:
            return None
        left_s = first.queued_at_s + self._gather_s - time.monotonic()
        if left_s > 0:  # otherwise others came during the commit before it
            time.sleep(left_s)
        group = [first]
        while len(group) < _MAX_GROUP:
            try:
                item = self._calls.get_nowait()
            except queue.Empty:
                break
            if item is None:
                self._calls.put(None)
                break
            group.append(item)
        self._gather_s = _GATHER_S if len(group) < _BUSY_GROUP else _GATHER_BUSY_S
        return group


def _is_replaced(files: Sequence[tuple[Path, os.stat_result]]) -> bool:
    """Return whether a path names another file than the open one, which loses what is written."""
    try:
        return not all(os.path.samestat(path.stat(), file) for path, file in files)
    except OSError:
        return True


Response = tuple[Pending[Any], Any, BaseException | None]


def _write(ledger: Ledger, group: list[_Call], *, beat: bool = False) -> list[Response]:
    """Write a group in one transaction; if a step of it fails, each step in one of its own.

    Every step gets a result in any case: its caller waits for that and for nothing else.
    With ``beat``, the run also records that it is alive.
    """
    try:
        ledger.conn.execute("BEGIN IMMEDIATE")
        if beat:
            record_heartbeat(ledger)
        try:
            results = _results(ledger, group)
        except BaseException as exc:
            _roll_back(ledger.conn)
            if len(group) == 1 or _is_write_error(exc):
                raise
            return [response for item in group for response in _write(ledger, [item])]
        hit(Point.GROUPED)
        ledger.conn.execute("COMMIT")
    except BaseException as exc:  # one by one, each would wait as long for the same lock or disk
        _roll_back(ledger.conn)
        return [(call.done, None, _as_write_error(exc)) for call in group]
    return [(call.done, result, None) for call, result in zip(group, results, strict=True)]


def _results(ledger: Ledger, group: Sequence[_Call]) -> list[Any]:
    """Run the steps of a group; those that take many orders run once, after the others.

    No caller waits for two steps at a time, so any order of them is one in which they could have
    come.
    """
    results: list[Any] = [None] * len(group)
    places: dict[StepForMany, list[int]] = {}
    for place, call in enumerate(group):
        if call.for_many is None or len(group) == 1:
            results[place] = call.step(ledger)
        else:
            places.setdefault(call.for_many, []).append(place)
    for step, found in places.items():
        done = step(ledger, [group[place].order for place in found])
        for place, result in zip(found, done, strict=True):
            results[place] = result
    return results


def _beat_alone(ledger: Ledger) -> None:
    """Record that the run is alive while no step does. A step that comes next reports a fault."""
    conn = ledger.conn
    assert isinstance(conn, LedgerConnection)
    waits, conn.patience = conn.patience, None
    try:
        conn.execute("BEGIN IMMEDIATE")
        record_heartbeat(ledger)
        conn.execute("COMMIT")
    except (sqlite3.Error, RunTakenOver):
        _roll_back(conn)
    finally:
        conn.patience = waits


def _roll_back(conn: sqlite3.Connection) -> None:
    if conn.in_transaction:
        with suppress(
            sqlite3.Error
        ):  # what made it necessary is raised, and the next BEGIN will fail
            conn.execute("ROLLBACK")


def _is_write_error(exc: BaseException) -> bool:
    # Of its kinds of DatabaseError only these are the file's or the disk's, not a bug of ours.
    return isinstance(exc, sqlite3.OperationalError) or type(exc) is sqlite3.DatabaseError


def _as_write_error(exc: BaseException) -> BaseException:
    if _is_write_error(exc) or isinstance(exc, RunTakenOver):
        error = LedgerWriteError(f"the ledger can't be written: {exc}")
        error.__cause__ = exc
        return error
    return exc


def _deliver(responses: Sequence[Response]) -> None:
    for done, result, exc in responses[:RESULTS_PER_TURN]:
        done.resolve(result, exc)
    if len(responses) > RESULTS_PER_TURN:
        asyncio.get_running_loop().call_soon(_deliver, responses[RESULTS_PER_TURN:])
