"""Group commit: one transaction for all who wait; no caller continues before its own is durable."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from batchgen.errors import LedgerError
from batchgen.job import BatchId, RunId
from batchgen.ledger.busy import DEFAULT_WAIT_S, Patience, patience
from batchgen.ledger.database import open_for_writing
from batchgen.ledger.group_commit import LedgerWriteError
from batchgen.ledger.journal import has_log_fix
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.owners import Claim
from batchgen.ledger.runs import start_run
from batchgen.ledger.writer import LedgerWriter
from batchgen.money import ZERO
from batchgen.system.load import Load
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


def timers_of(writer: LedgerWriter, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return a list that gets the delay of each timer that the writer sets, in seconds."""
    delays = list[float]()
    loop = asyncio.get_running_loop()
    call_later = loop.call_later

    def spy(delay: float, callback: Callable[..., object], *args: object) -> asyncio.TimerHandle:
        if getattr(callback, "__self__", None) is writer:
            delays.append(delay)
        return call_later(delay, callback, *args)

    monkeypatch.setattr(loop, "call_later", spy)
    return delays


@pytest.mark.parametrize(("is_busy", "wait_s"), [(False, 0.002), (True, 0.015)])
async def test_a_busy_process_gathers_larger_groups(
    is_busy: bool, wait_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Load, "is_busy", lambda _: is_busy)
    async with LedgerWriter(tmp_path / "batchgen.db") as writer:
        delays = timers_of(writer, monkeypatch)
        await writer.run(note(1))
    assert delays == [wait_s]


async def test_steps_of_a_slow_commit_wait_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go = threading.Event(), threading.Event()

    def slow(ledger: Ledger) -> None:
        begun.set()
        go.wait(10)

    async with LedgerWriter(tmp_path / "batchgen.db") as writer, anyio.create_task_group() as tasks:
        delays = timers_of(writer, monkeypatch)
        tasks.start_soon(writer.run, slow)
        await anyio.to_thread.run_sync(begun.wait)
        tasks.start_soon(writer.run, note(1))
        await anyio.sleep(0.05)  # longer than a group gathers
        go.set()
    assert delays[0] > 0, "the first group did not gather"
    assert delays[1:] == [0], "the second group waited for others again"


def notes(ledger: Ledger, numbers: list[int]) -> list[str]:
    """A step for many that writes a row for each; returns the names of the threads."""
    for number in numbers:
        note(number)(ledger)
    return [threading.current_thread().name for _ in numbers]


async def test_quick_steps_run_on_the_loop_and_commit_on_a_thread(tmp_path: Path) -> None:
    """A commit waits for the disk; the event loop must not."""
    path = tmp_path / "batchgen.db"
    here = threading.current_thread().name
    commits = list[str]()

    def spy(statement: str) -> None:
        if statement == "COMMIT":
            commits.append(threading.current_thread().name)

    async with LedgerWriter(path) as writer:
        await writer.run(lambda ledger: ledger.conn.set_trace_callback(spy))
        commits.clear()
        threads = await gather(writer, range(10))
        assert commits == ["ledger"]
        await writer.run(lambda ledger: ledger.conn.set_trace_callback(None))
    assert threads == [here] * 10
    assert count(path) == 10


async def gather(writer: LedgerWriter, numbers: Iterable[int]) -> list[str]:
    """Return where steps ran that come at the same time."""
    threads = list[str]()

    async def ask(number: int) -> None:
        threads.append(await writer.run_one_of_many(notes, number))

    async with anyio.create_task_group() as tasks:
        for number in numbers:
            tasks.start_soon(ask, number)
    return threads


async def test_a_group_with_another_step_runs_on_the_thread(tmp_path: Path) -> None:
    async with LedgerWriter(tmp_path / "batchgen.db") as writer, anyio.create_task_group() as tasks:
        tasks.start_soon(writer.run, note(99))
        assert await gather(writer, range(3)) == ["ledger"] * 3


async def test_a_very_large_group_runs_on_the_thread(tmp_path: Path) -> None:
    """The event loop serves its requests meanwhile."""
    async with LedgerWriter(tmp_path / "batchgen.db") as writer:
        assert await gather(writer, range(65)) == ["ledger"] * 65


async def test_a_link_to_another_place_decides_where_steps_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share = tmp_path / "share"
    share.mkdir()
    open_for_writing(share / "batchgen.db").close()
    (tmp_path / "batchgen.db").symlink_to(share / "batchgen.db")
    monkeypatch.setattr("batchgen.ledger.writer.is_local", lambda path: path != share)
    async with LedgerWriter(tmp_path / "batchgen.db") as writer:
        assert await gather(writer, range(3)) == ["ledger"] * 3


async def test_interrupt_in_a_quick_step_leaves_no_caller_waiting(tmp_path: Path) -> None:
    path = tmp_path / "batchgen.db"

    class Interrupt(BaseException):
        """Like KeyboardInterrupt, which would end the test."""

    def interrupted(ledger: Ledger, orders: list[int]) -> list[str]:
        if threading.current_thread().name != "ledger":
            raise Interrupt
        return notes(ledger, orders)

    seen = list[object]()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: seen.append(context["exception"]))
    async with LedgerWriter(path) as writer:
        with anyio.fail_after(20):
            assert await writer.run_one_of_many(interrupted, 1) == "ledger"
            assert await writer.run_one_of_many(notes, 2) == threading.current_thread().name
    assert [type(one) for one in seen] == [Interrupt]
    assert count(path) == 2


async def test_a_network_share_never_blocks_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each page that is read may wait for the network there."""
    monkeypatch.setattr("batchgen.ledger.writer.is_local", lambda _: False)
    async with LedgerWriter(tmp_path / "batchgen.db") as writer:
        assert await gather(writer, range(3)) == ["ledger"] * 3


@pytest.mark.fault("Q01")
async def test_a_lock_is_waited_for_on_the_thread(tmp_path: Path) -> None:
    path = tmp_path / "batchgen.db"
    threads = list[str]()
    async with LedgerWriter(path) as writer:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")

            async def ask() -> None:
                threads.extend(await gather(writer, range(3)))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                await anyio.sleep(0.05)  # the loop runs meanwhile
                assert threads == []
                other.execute("COMMIT")
        assert threads == ["ledger"] * 3
        assert await gather(writer, range(3, 6)) == [threading.current_thread().name] * 3


async def test_a_large_group_reaches_the_file_at_its_commit_only(tmp_path: Path) -> None:
    """What SQLite's cache has no room for would be synced by the event loop's thread."""
    path = tmp_path / "batchgen.db"
    sizes = list[int]()

    def fill(ledger: Ledger, orders: list[int]) -> list[None]:
        before = path.stat().st_size
        for number in orders:
            for part in range(100):
                values = (number * 100 + part, f"{part} {'x' * 64_000}")
                ledger.conn.execute("INSERT INTO prices VALUES (?, ?, 'm', 1, 's', 't')", values)
        sizes.append(path.stat().st_size - before)
        return [None for _ in orders]

    async with LedgerWriter(path) as writer:
        await writer.run_one_of_many(fill, 1)
        assert sizes == [0]
        assert path.stat().st_size > 6_400_000


@pytest.mark.fault("Q09", "Q10")
async def test_a_failed_quick_step_is_reported_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "batchgen.db"
    async with LedgerWriter(path) as writer:
        await gather(writer, [1])
        with pytest.raises(ExceptionGroup) as caught:
            await gather(writer, [1, 2])
        assert caught.group_contains(sqlite3.IntegrityError)
        await writer.run(lambda ledger: ledger.conn.execute("PRAGMA query_only = ON"))
        with pytest.raises(LedgerWriteError, match="readonly"):
            await writer.run_one_of_many(notes, 3)
    assert count(path) == 2, "a step of the same group was lost"


async def test_step_is_durable_when_its_caller_continues(tmp_path: Path) -> None:
    path = tmp_path / "batchgen.db"
    async with LedgerWriter(path) as writer:
        for number in range(5):
            await writer.run(note(number))
            assert count(path) == number + 1


async def test_failing_step_does_not_fail_other_steps(tmp_path: Path) -> None:
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


async def test_steps_are_written_in_the_order_of_their_calls(tmp_path: Path) -> None:
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
@pytest.mark.parametrize(
    "lock",
    [
        "BEGIN IMMEDIATE",
        pytest.param(
            "BEGIN; SELECT * FROM prices",
            marks=pytest.mark.skipif(has_log_fix(), reason="a log lets writers pass readers"),
        ),
    ],
)
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


@pytest.mark.skipif(has_log_fix(), reason="with a log, SQLite has these pages in memory")
async def test_a_ledger_that_is_damaged_under_way_stops_everybody(tmp_path: Path) -> None:
    path = tmp_path / "batchgen.db"
    async with LedgerWriter(path) as writer:
        await writer.run(note(100))
        with path.open("r+b") as file:
            file.write(b"garbage " * 512)
        with anyio.fail_after(20), pytest.raises(LedgerWriteError, match="can't be written"):
            await writer.run_one_of_many(notes, 101)
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
        monkeypatch.setattr(writer, "_beaten", float("-inf"))
        assert len(await errors_of(writer, 3)) == 3
        monkeypatch.setattr(writer, "_beaten", float("-inf"))
        with pytest.raises(ExceptionGroup) as caught:
            await gather(writer, range(3))
        assert caught.value.subgroup(LedgerWriteError)
    assert count(run_in) == before


@pytest.mark.fault("XC12")
async def test_a_writer_in_a_hurry_waits_for_a_short_time(run_in: Path) -> None:
    async with LedgerWriter(run_in) as writer:
        writer.hurry()
        waits = await writer.run(lambda ledger: getattr(ledger.conn, "patience", None))
    assert isinstance(waits, Patience)
    assert (waits.wait_s, patience.wait_s) == (30, DEFAULT_WAIT_S)
