"""Group commit: one transaction for all who wait; no caller continues before its own is durable."""

from __future__ import annotations

import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from batchgen.errors import LedgerError
from batchgen.job import BatchId, RunId
from batchgen.ledger.busy import DEFAULT_WAIT_S, Patience, patience
from batchgen.ledger.database import open_for_writing
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.owners import Claim
from batchgen.ledger.runs import start_run
from batchgen.ledger.writer import LedgerWriteError, LedgerWriter
from batchgen.money import ZERO
from batchgen.system.process_table import this_process
from tests.support.builders import enroll, planned

pytestmark = pytest.mark.anyio


def note(number: int) -> Callable[[Ledger], None]:
    """A step that writes one row."""

    def step(ledger: Ledger) -> None:
        ledger.conn.execute(f"INSERT INTO prices VALUES ({number}, 'p', 'm{number}', 1, 's', 't')")

    return step


def count(path: Path) -> int:
    with closing(sqlite3.connect(path)) as conn:
        return int(conn.execute("SELECT count(*) FROM prices").fetchone()[0])


async def test_many_steps_share_a_few_transactions(tmp_path: Path) -> None:
    path = tmp_path / "batchgen.db"
    statements: list[str] = []
    async with LedgerWriter(path) as writer:
        await writer.run(lambda ledger: ledger.conn.set_trace_callback(statements.append))
        async with anyio.create_task_group() as tasks:
            for number in range(200):
                tasks.start_soon(writer.run, note(number))
        await writer.run(lambda ledger: ledger.conn.set_trace_callback(None))
    assert count(path) == 200
    assert statements.count("COMMIT") < 20


async def test_steps_of_a_slow_commit_wait_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go, slept = threading.Event(), threading.Event(), list[float]()
    monkeypatch.setattr(time, "sleep", slept.append)

    def slow(ledger: Ledger) -> None:
        begun.set()
        go.wait(10)

    async with LedgerWriter(tmp_path / "batchgen.db") as writer, anyio.create_task_group() as tasks:
        tasks.start_soon(writer.run, slow)
        await anyio.to_thread.run_sync(begun.wait)
        before = len(slept)
        tasks.start_soon(writer.run, note(1))
        await anyio.sleep(0.05)  # longer than a group gathers
        go.set()
    assert len(slept) == before, "the second group waited for others again"


async def test_a_step_is_durable_when_its_caller_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "batchgen.db"
    async with LedgerWriter(path) as writer:
        for number in range(5):
            await writer.run(note(number))
            assert count(path) == number + 1


async def test_a_step_that_fails_takes_nobody_with_it(tmp_path: Path) -> None:
    path = tmp_path / "batchgen.db"
    failures: list[str] = []

    def broken(ledger: Ledger) -> None:
        note(999)(ledger)
        raise ValueError("mine")

    async with LedgerWriter(path) as writer:

        async def fail() -> None:
            try:
                await writer.run(broken)
            except ValueError as exc:
                failures.append(str(exc))

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(writer.run, note(number))
                if number % 5 == 0:
                    tasks.start_soon(fail)
    assert failures == ["mine"] * 4
    assert count(path) == 20, "half of a failed step was written"


@pytest.mark.fault("Q09", "Q10")
async def test_a_full_disk_is_not_tried_again_by_the_same_group(
    tmp_path: Path,
) -> None:
    path = tmp_path / "batchgen.db"
    errors: list[str] = []

    def full(ledger: Ledger) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    async with LedgerWriter(path) as writer:

        async def observe(step: Callable[[Ledger], None]) -> None:
            try:
                await writer.run(step)
            except LedgerWriteError as exc:
                errors.append(str(exc))

        async with anyio.create_task_group() as tasks:
            for step in (note(1), full, note(2)):
                tasks.start_soon(observe, step)
    assert len(errors) == 3
    assert count(path) == 0


@pytest.mark.fault("P13")
async def test_a_cancelled_caller_still_waits_for_its_step(tmp_path: Path) -> None:
    path = tmp_path / "batchgen.db"
    async with LedgerWriter(path) as writer:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await writer.run(note(1))
        assert count(path) == 1


async def test_a_caller_is_not_let_go_while_its_step_is_under_way(tmp_path: Path) -> None:
    path = tmp_path / "batchgen.db"
    begun, go = threading.Event(), threading.Event()
    left: list[bool] = []

    def slow(ledger: Ledger) -> None:
        begun.set()
        go.wait(10)
        note(1)(ledger)

    async with LedgerWriter(path) as writer:

        async def ask() -> None:
            try:
                await writer.run(slow)
            finally:
                left.append(go.is_set())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await anyio.to_thread.run_sync(begun.wait)
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await anyio.wait_all_tasks_blocked()
                assert left == []
                go.set()
        assert left == [True]
        assert count(path) == 1


async def test_steps_are_written_in_the_order_they_were_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "batchgen.db"
    order: list[int] = []
    async with LedgerWriter(path) as writer, anyio.create_task_group() as tasks:
        for number in (3, 1, 2):
            tasks.start_soon(writer.run, lambda _, number=number: order.append(number))
    assert order == [3, 1, 2]


async def errors_of(writer: LedgerWriter, steps: int) -> list[str]:
    """Return the errors of several steps at once."""
    errors: list[str] = []

    async def ask(number: int) -> None:
        try:
            await writer.run(note(number))
        except LedgerWriteError as exc:
            errors.append(str(exc))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            for number in range(steps):
                tasks.start_soon(ask, number)
    return errors


@pytest.mark.fault("Q01")
@pytest.mark.parametrize("lock", ["BEGIN IMMEDIATE", "BEGIN; SELECT * FROM prices"])
async def test_a_lock_is_waited_for_once_and_not_by_each_step(lock: str, tmp_path: Path) -> None:
    path = tmp_path / "batchgen.db"
    statements: list[str] = []
    async with LedgerWriter(path) as writer:
        await writer.run(lambda ledger: setattr(ledger.conn, "patience", Patience(wait_s=0.3)))
        await writer.run(lambda ledger: ledger.conn.set_trace_callback(statements.append))
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            for statement in lock.split("; "):
                other.execute(statement).fetchall()
            assert len(await errors_of(writer, 40)) == 40
        waits = statements.count("COMMIT") + statements.count("BEGIN IMMEDIATE")
        assert waits < 10
        assert await errors_of(writer, 40) == []
        await writer.run(lambda ledger: ledger.conn.set_trace_callback(None))
    assert count(path) == 40


async def test_a_ledger_that_is_damaged_under_way_stops_everybody(tmp_path: Path) -> None:
    path = tmp_path / "batchgen.db"
    async with LedgerWriter(path) as writer:
        await writer.run(note(100))
        with path.open("r+b") as file:
            file.write(b"garbage " * 512)
        errors = await errors_of(writer, 10)
    assert len(errors) == 10
    assert "can't be written" in errors[0]


@pytest.mark.fault("Q11")
@pytest.mark.parametrize("replaced", [True, False])
@pytest.mark.skipif(sys.platform == "win32", reason="an open file can't be removed there")
async def test_a_removed_or_replaced_ledger_stops_every_step(
    replaced: bool, tmp_path: Path
) -> None:
    """Its rows would go to a file without a name, and the money with them."""
    path = tmp_path / "batchgen.db"
    async with LedgerWriter(path) as writer:
        await writer.run(note(100))
        if replaced:
            other = tmp_path / "other.db"
            other.write_bytes(path.read_bytes())
            other.replace(path)
        else:
            path.unlink()
        errors = await errors_of(writer, 10)
    assert len(errors) == 10
    assert "removed or replaced" in errors[0]


@pytest.mark.fault("P17")
async def test_what_was_asked_before_the_end_is_written(tmp_path: Path) -> None:
    path = tmp_path / "batchgen.db"
    async with anyio.create_task_group() as tasks, LedgerWriter(path) as writer:
        for number in range(50):
            tasks.start_soon(writer.run, note(number))
        await anyio.lowlevel.checkpoint()
    assert count(path) == 50


@pytest.mark.fault("P17")
async def test_a_writer_cancelled_while_it_opens_leaves_no_thread(
    tmp_path: Path,
) -> None:
    path = tmp_path / "batchgen.db"
    open_for_writing(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with anyio.move_on_after(0.1) as scope:
            async with LedgerWriter(path):
                pytest.fail("the ledger is locked")
        assert scope.cancelled_caught
    for thread in threading.enumerate():
        if thread.name == "ledger":
            await anyio.to_thread.run_sync(thread.join, 10)
            assert not thread.is_alive()


async def test_a_bug_in_a_step_is_not_taken_for_a_bad_disk(tmp_path: Path) -> None:
    path = tmp_path / "batchgen.db"
    async with LedgerWriter(path) as writer:
        await writer.run(note(1))
        with pytest.raises(sqlite3.IntegrityError):
            await writer.run(note(1))
    assert count(path) == 1


async def test_a_ledger_that_may_not_be_written_says_so(tmp_path: Path) -> None:
    path = tmp_path / "batchgen.db"
    async with LedgerWriter(path) as writer:
        await writer.run(lambda ledger: ledger.conn.execute("PRAGMA query_only = ON"))
        with pytest.raises(LedgerWriteError, match="readonly"):
            await writer.run(note(1))


async def test_a_disk_that_is_full_says_so(tmp_path: Path) -> None:
    path = tmp_path / "batchgen.db"
    async with LedgerWriter(path) as writer:
        pages = await writer.run(
            lambda ledger: ledger.conn.execute("PRAGMA page_count").fetchone()[0]
        )
        await writer.run(lambda ledger: ledger.conn.execute(f"PRAGMA max_page_count = {pages}"))
        big = "x" * 100_000

        def fill(ledger: Ledger) -> None:
            ledger.conn.execute("INSERT INTO prices VALUES (1, ?, 'm', 1, 's', 't')", (big,))

        with pytest.raises(LedgerWriteError, match="full"):
            await writer.run(fill)
        await writer.run(lambda ledger: ledger.conn.execute("SELECT 1"))


async def test_a_ledger_that_cannot_be_opened_fails_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "batchgen.db"
    path.write_bytes(b"garbage" * 1000)
    with pytest.raises(LedgerError):
        async with LedgerWriter(path):
            pass


def _forget_heartbeat(ledger: Ledger) -> None:
    ledger.conn.execute("UPDATE runs SET heartbeat_at = ''")


def _heartbeat(path: Path) -> str:
    with closing(sqlite3.connect(path, timeout=20)) as conn:
        return str(conn.execute("SELECT heartbeat_at FROM runs").fetchone()[0])


@pytest.fixture
def run_in(tmp_path: Path) -> Path:
    """A ledger with a run; its heartbeats are due at once."""
    path = tmp_path / "batchgen.db"
    with closing(open_for_writing(path)) as conn:
        enroll(Ledger(conn), [planned(0)])
    return path


async def _start(writer: LedgerWriter) -> RunId:
    claim = Claim(here=this_process("1:1"), spool="s")
    return await writer.run(
        start_run, BatchId(1), estimate=ZERO, max_cost=None, max_waste=ZERO, claim=claim
    )


@pytest.mark.fault("XA12")
async def test_a_group_that_is_due_carries_the_heartbeat(
    run_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with LedgerWriter(run_in) as writer:
        await _start(writer)
        await writer.run(_forget_heartbeat)
        assert _heartbeat(run_in) == "", "a heartbeat before its time"
        monkeypatch.setattr(writer, "_beaten", float("-inf"))
        await writer.run(note(9))
        assert _heartbeat(run_in) > "2020"


@pytest.mark.fault("XA12")
async def test_an_idle_writer_records_that_it_lives(
    run_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchgen.ledger.writer._BEAT_S", 0.05)
    async with LedgerWriter(run_in) as writer:
        await _start(writer)
        began = _heartbeat(run_in)
        while _heartbeat(run_in) == began:
            await anyio.lowlevel.checkpoint()


@pytest.mark.fault("XA12")
async def test_a_run_that_was_taken_over_stops_writing(
    run_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = count(run_in)
    async with LedgerWriter(run_in) as writer:
        run = await _start(writer)
        await writer.run(lambda ledger: ledger.conn.execute("UPDATE runs SET taken_by = ?", (run,)))
        monkeypatch.setattr(writer, "_beaten", float("-inf"))
        with pytest.raises(LedgerWriteError, match="taken over by run 1"):
            await writer.run(note(9))
    assert count(run_in) == before


@pytest.mark.fault("XC12")
async def test_a_writer_in_a_hurry_waits_for_a_short_time(run_in: Path) -> None:
    async with LedgerWriter(run_in) as writer:
        writer.hurry()
        waits = await writer.run(lambda ledger: getattr(ledger.conn, "patience", None))
    assert isinstance(waits, Patience)
    assert (waits.wait_s, patience.wait_s) == (30, DEFAULT_WAIT_S)
