"""Group commit: one transaction for all who wait; nobody goes on before theirs is durable."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from batchgen.errors import LedgerError
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.writer import LedgerWriteError, LedgerWriter

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


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
        await writer(lambda ledger: ledger.conn.set_trace_callback(statements.append))
        async with anyio.create_task_group() as tasks:
            for number in range(200):
                tasks.start_soon(writer, note(number))
        await writer(lambda ledger: ledger.conn.set_trace_callback(None))
    assert count(path) == 200
    assert statements.count("COMMIT") < 20


async def test_a_step_is_durable_when_its_caller_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "batchgen.db"
    async with LedgerWriter(path) as writer:
        for number in range(5):
            await writer(note(number))
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
                await writer(broken)
            except ValueError as exc:
                failures.append(str(exc))

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(writer, note(number))
                if number % 5 == 0:
                    tasks.start_soon(fail)
    assert failures == ["mine"] * 4
    assert count(path) == 20, "half of a failed step was written"


async def test_a_cancelled_caller_still_waits_for_its_step(tmp_path: Path) -> None:
    path = tmp_path / "batchgen.db"
    async with LedgerWriter(path) as writer:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await writer(note(1))
        assert count(path) == 1


async def test_a_ledger_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    path = tmp_path / "batchgen.db"
    async with LedgerWriter(path) as writer:
        pages = await writer(lambda ledger: ledger.conn.execute("PRAGMA page_count").fetchone()[0])
        await writer(lambda ledger: ledger.conn.execute(f"PRAGMA max_page_count = {pages}"))
        big = "x" * 100_000

        def fill(ledger: Ledger) -> None:
            ledger.conn.execute("INSERT INTO prices VALUES (1, ?, 'm', 1, 's', 't')", (big,))

        with pytest.raises(LedgerWriteError, match="full"):
            await writer(fill)
        await writer(lambda ledger: ledger.conn.execute("SELECT 1"))


async def test_a_ledger_that_cannot_be_opened_fails_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "batchgen.db"
    path.write_bytes(b"garbage" * 1000)
    with pytest.raises(LedgerError):
        async with LedgerWriter(path):
            pass
