"""Write a group of steps in one transaction. Its COMMIT may run on another thread."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from batchgen.errors import BatchgenError, ExitCode
from batchgen.ledger.busy import LedgerConnection
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.runs import RunTakenOver, record_heartbeat
from batchgen.system.failpoints import Point, hit
from batchgen.system.threads import Pending

Step = Callable[[Ledger], Any]
StepForMany = Callable[[Ledger, list[Any]], list[Any]]
Response = tuple[Pending[Any], Any, BaseException | None]


class LedgerWriteError(BatchgenError):
    """The disk or SQLite refused a write: no request may be sent any more.

    Responses that arrived meanwhile are in the spool, and the next run takes it from there.
    """

    exit_code = ExitCode.STOPPED


@dataclass(frozen=True, slots=True)
class Call:
    """A queued step and the promise of its result."""

    step: Step
    done: Pending[Any]
    for_many: StepForMany | None = None
    """The step as one that takes many orders at once, and this call's order."""
    order: Any = None
    queued_at_s: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class Group:
    """The calls of one transaction."""

    calls: Sequence[Call]
    with_beat: bool
    """Whether the run also records that it is alive."""
    results: list[Any] | None = None
    """Results of steps whose transaction is ready for its COMMIT; None if none of them has run."""


def begin(ledger: Ledger, group: Group) -> list[Any]:
    """Run the steps of a group without waiting, up to the COMMIT, and return their results.

    Raises what prevents that, for example the lock of another program. `finish` then does it all
    for the unchanged group, and reports a fault; it also ends the transaction, as a rollback syncs.
    """
    _connection(ledger).begin_at_once()
    if group.with_beat:
        record_heartbeat(ledger)
    return _run_steps(ledger, group.calls)


def finish(ledger: Ledger, group: Group) -> list[Response]:
    """Commit a group that was begun, or write it in one transaction; return the response of each.

    If a step of it fails, each step is written in a transaction of its own. Every step gets a
    result in any case: its caller waits for that and for nothing else.
    """
    conn = _connection(ledger)
    results = group.results
    try:
        if results is None:
            _roll_back(conn)
            conn.begin()
            if group.with_beat:
                record_heartbeat(ledger)
            try:
                results = _run_steps(ledger, group.calls)
            except BaseException as exc:
                _roll_back(conn)
                if len(group.calls) == 1 or _is_write_error(exc):
                    raise
                alone = (Group([call], with_beat=False) for call in group.calls)
                return [response for one in alone for response in finish(ledger, one)]
        else:
            conn.may_wait()
        hit(Point.GROUPED)
        conn.execute("COMMIT")
    except BaseException as exc:  # one by one, each would wait as long for the same lock or disk
        _roll_back(conn)
        return [(call.done, None, _as_write_error(exc)) for call in group.calls]
    return [(call.done, result, None) for call, result in zip(group.calls, results, strict=True)]


def beat_alone(ledger: Ledger) -> None:
    """Record that the run is alive while no step does. A step that comes next reports a fault."""
    conn = _connection(ledger)
    waits, conn.patience = conn.patience, None
    try:
        conn.begin()
        record_heartbeat(ledger)
        conn.execute("COMMIT")
    except (sqlite3.Error, RunTakenOver):
        _roll_back(conn)
    finally:
        conn.patience = waits


def _run_steps(ledger: Ledger, calls: Sequence[Call]) -> list[Any]:
    """Run the steps of a group; those that take many orders run once, after the others.

    No caller waits for two steps at a time, so any order of them is one in which they could have
    come.
    """
    results: list[Any] = [None] * len(calls)
    places: dict[StepForMany, list[int]] = {}
    for place, call in enumerate(calls):
        if call.for_many is None or len(calls) == 1:
            results[place] = call.step(ledger)
        else:
            places.setdefault(call.for_many, []).append(place)
    for step, found in places.items():
        done = step(ledger, [calls[place].order for place in found])
        for place, result in zip(found, done, strict=True):
            results[place] = result
    return results


def _connection(ledger: Ledger) -> LedgerConnection:
    assert isinstance(ledger.conn, LedgerConnection)
    return ledger.conn


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
