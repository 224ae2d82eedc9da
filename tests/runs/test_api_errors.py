"""Tests of the Python API where a run fails, is cancelled, or has no event loop of asyncio."""

from __future__ import annotations

import asyncio
import errno
import itertools
import math
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from batchgen import Batch, BatchLockedError, ExitCode, LedgerError, Result, SettingsError
from batchgen.engine.pool import Pool
from batchgen.ledger.writer import LedgerWriter
from batchgen.session import run_engine as drive_module
from batchgen.session.plan_and_enroll import begin
from batchgen.spool.spool import Spool
from tests.support import rig

pytestmark = pytest.mark.anyio

CANCELLED = ("cancelled by its program", ExitCode.INTERRUPTED)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rig.Endpoint]:
    state = tmp_path_factory.mktemp("slow")
    with rig.endpoint(state, "--fast-images", "--latency", "1") as endpoint:
        yield endpoint


def break_pool(monkeypatch: pytest.MonkeyPatch, *errors: Exception) -> None:
    """Have the engine raise at its end, inside of its task groups."""

    async def broken(pool: Pool) -> None:
        raise errors[0] if len(errors) == 1 else ExceptionGroup("workers", errors)

    monkeypatch.setattr(Pool, "_sweep_spool", broken)


def runs(directory: Path) -> list[tuple[str | None, int | None]]:
    """How the runs of a ledger ended; all of them have."""
    rows = rig.query(directory / "batchgen.db", "SELECT ended_at, stopped, exit_code FROM runs")
    assert all(row["ended_at"] for row in rows)
    return [(row["stopped"], row["exit_code"]) for row in rows]


async def collect(batch: Batch, results: list[Result]) -> None:
    async for result in batch:
        results.append(result)  # noqa: PERF401  # what came before an error counts


async def run_to_end(path: Path, *, later: Callable[[Batch], object] = lambda batch: None) -> None:
    """Run a batch as a program does."""
    async with Batch(path) as batch:
        later(batch)
        async for _ in batch:
            pass


async def in_flight(endpoint: rig.Endpoint, number: int) -> None:
    while endpoint.judge("stats")["in_flight"] < number:
        await anyio.lowlevel.checkpoint()


async def test_a_bug_in_the_engine_is_raised_by_the_iterator(
    served: rig.Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(served.bill())
    break_pool(monkeypatch, RuntimeError("of the engine"))
    results: list[Result] = []
    async with Batch(rig.manifest(tmp_path, served.base_url, ["a", "b"])) as batch:
        with pytest.raises(RuntimeError, match="of the engine"):
            await collect(batch, results)
    assert len(results) == 2
    assert batch.exit_code is ExitCode.BUG
    assert runs(tmp_path) == [(batch.stopped, ExitCode.BUG)]
    assert str(batch.stopped).startswith("bug: RuntimeError('of the engine')")
    rig.judge(tmp_path, served.bill()[before:], finished=False)


async def test_an_error_is_raised_on_leaving_unless_iterated(
    served: rig.Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_pool(monkeypatch, ValueError("second"), LedgerError("first"))
    with pytest.raises(LedgerError) as caught:
        async with Batch(rig.manifest(tmp_path, served.base_url, ["a", "b"])) as batch:
            aiter(batch)
    assert caught.value.__notes__ == ["also raised: ValueError: second"]
    assert caught.value.__context__ is None
    assert runs(tmp_path) == [("first", ExitCode.USAGE)]


async def test_an_error_becomes_a_note_of_the_programs_error(
    served: rig.Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_pool(monkeypatch, LedgerError("the run's own"))

    def fail(batch: Batch) -> None:
        aiter(batch)
        raise KeyError("the program's own")

    with pytest.raises(KeyError) as caught:
        await run_to_end(rig.manifest(tmp_path, served.base_url, ["a"]), later=fail)
    assert caught.value.__notes__ == ["the run failed, too: LedgerError: the run's own"]


async def test_a_damaged_ledger_is_a_ledger_error(served: rig.Endpoint, tmp_path: Path) -> None:
    before = len(served.bill())
    with pytest.raises(LedgerError):
        await run_to_end(
            rig.manifest(tmp_path, served.base_url, ["a"]),
            later=lambda batch: (tmp_path / "batchgen.db").write_bytes(b"no ledger" * 999),
        )
    assert len(served.bill()) == before


async def test_a_full_disk_is_an_os_error_with_exit_code_3(
    served: rig.Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(spool: Spool) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(Spool, "prepare", full)
    async with Batch(rig.manifest(tmp_path, served.base_url, ["a"])) as batch:
        with pytest.raises(OSError, match="no space left"):
            await collect(batch, [])
        with pytest.raises(RuntimeError, match="has run already"):
            aiter(batch)
    assert batch.exit_code is ExitCode.STOPPED


async def test_no_run_is_left_open_where_tls_fails(
    served: rig.Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_certificates(settings: object) -> None:
        raise FileNotFoundError("certificates")

    monkeypatch.setattr(drive_module, "open_network", no_certificates)
    with pytest.raises(FileNotFoundError, match="certificates"):
        await run_to_end(rig.manifest(tmp_path, served.base_url, ["a"]))
    assert runs(tmp_path) == []


async def test_a_batch_that_is_not_open_is_not_iterated(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="async with"):
        aiter(Batch(tmp_path / "none.yaml"))


def test_the_command_line_raises_one_error(served: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["a"])
    change = """
from batchgen.errors import StoppedError
from batchgen.ledger.writer import LedgerWriter
from batchgen.engine.pool import Pool
async def broken(pool):
    raise ExceptionGroup("workers", [ValueError("second"), StoppedError("disk: first")])
Pool._sweep_spool = broken
"""
    shown = rig.run_changed(change, path, code=ExitCode.STOPPED)
    assert "disk: first\nalso raised: ValueError: second" in shown
    assert "Group" not in shown
    assert runs(tmp_path) == [("disk: first", ExitCode.STOPPED)]


async def cancel_task(path: Path, endpoint: rig.Endpoint, batches: list[Batch]) -> None:
    task = asyncio.create_task(run_to_end(path, later=batches.append))
    await in_flight(endpoint, 4)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def cancel_by_timeout(path: Path, endpoint: rig.Endpoint, batches: list[Batch]) -> None:
    async def run(scope: anyio.CancelScope) -> None:
        async with Batch(path) as batch:
            batches.append(batch)
            results = aiter(batch)
            await in_flight(endpoint, 4)
            scope.deadline = -math.inf
            await anext(results)

    with pytest.raises(TimeoutError), anyio.fail_after(math.inf) as scope:
        await run(scope)


@pytest.mark.parametrize("cancel", [cancel_task, cancel_by_timeout])
@pytest.mark.fault("XD2")
async def test_a_cancelled_run_is_ended_in_the_ledger(
    slow: rig.Endpoint, tmp_path: Path, cancel: Callable[..., Any]
) -> None:
    before = len(slow.bill())
    path = rig.manifest(tmp_path, slow.base_url, [*"abcdef"], limits="{concurrency: 4}")
    batches: list[Batch] = []
    await cancel(path, slow, batches)
    assert (batches[0].stopped, batches[0].exit_code) == CANCELLED
    assert runs(tmp_path) == [CANCELLED]
    slow.wait_until_idle()
    rig.judge(tmp_path, slow.bill()[before:], finished=False)
    shown = rig.batchgen("status", "batch", "--db", tmp_path / "batchgen.db", cwd=tmp_path).stdout
    assert "stopped: cancelled by its program" in shown
    assert "has not ended" not in shown


async def time_out_inside(path: Path, endpoint: rig.Endpoint, batches: list[Batch]) -> None:
    async with Batch(path) as batch:
        batches.append(batch)
        with anyio.fail_after(math.inf) as scope:
            results = aiter(batch)
            await in_flight(endpoint, 1)
            scope.deadline = -math.inf
            await anext(results)


async def test_a_program_that_fails_ends_its_run(slow: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, slow.base_url, ["a"])
    batches: list[Batch] = []
    with pytest.raises(TimeoutError):
        await time_out_inside(path, slow, batches)
    assert runs(tmp_path) == [("left by its program", ExitCode.STOPPED)]
    assert batches[0].status().charged == rig.PRICE


@pytest.mark.parametrize("number", range(1, 13))
async def test_a_run_cancelled_at_any_ledger_step_is_ended(
    served: rig.Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    before, steps = len(served.bill()), itertools.count(1)

    def cancelling(write: Callable[..., Any]) -> Callable[..., Any]:
        async def write_and_cancel(*args: Any, **kwargs: Any) -> Any:
            if next(steps) == number:
                task.cancel()
            return await write(*args, **kwargs)

        return write_and_cancel

    for name in ("run", "run_one_of_many"):
        monkeypatch.setattr(LedgerWriter, name, cancelling(getattr(LedgerWriter, name)))
    path = rig.manifest(tmp_path, served.base_url, [*"abc"], limits="{concurrency: 2}")
    task = asyncio.create_task(run_to_end(path))
    await asyncio.wait([task])
    assert task.cancelled()
    # The first step reads the pace of the key; the second one writes the run.
    assert runs(tmp_path) == ([] if number == 1 else [CANCELLED])
    served.wait_until_idle()
    rig.judge(tmp_path, served.bill()[before:], finished=False)


async def test_a_batch_cancelled_on_entering_is_unlocked(
    served: rig.Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["a"])
    begun, go_on = threading.Event(), threading.Event()

    def waiting(*args: Any, **options: Any) -> Any:
        begun.set()
        assert go_on.wait(rig.TIMEOUT_S)
        return begin(*args, **options)

    monkeypatch.setattr("batchgen.api.begin", waiting)
    task = asyncio.create_task(run_to_end(path))
    await anyio.to_thread.run_sync(begun.wait)
    try:
        for _ in range(3):
            task.cancel()
            await asyncio.wait([task], timeout=0)
        with pytest.raises(BatchLockedError):
            await run_to_end(path)
    finally:
        go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await run_to_end(path)
    assert runs(tmp_path) == [(None, ExitCode.DONE)]


@pytest.mark.fault("XD2")
def test_entering_without_asyncio_is_refused(tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, "http://127.0.0.1:9/v1", ["a"])
    entering = Batch(path).__aenter__()
    with pytest.raises(SettingsError, match=r'anyio\.run\(main, backend="asyncio"\)'):
        entering.send(None)
    assert list(tmp_path.iterdir()) == [path]


def test_entering_under_trio_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("trio")
    path = rig.manifest(tmp_path, "http://127.0.0.1:9/v1", ["a"])
    script = (
        "import sys, anyio\nfrom batchgen import Batch, SettingsError\n"
        "async def main():\n"
        "    try:\n        await Batch(sys.argv[1]).__aenter__()\n"
        "    except SettingsError as exc:\n        print(exc)\n"
        "anyio.run(main, backend='trio')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        env=rig.environment(),
        capture_output=True,
        text=True,
        timeout=rig.TIMEOUT_S,
        check=True,
    )
    assert "asyncio.run(main())" in done.stdout
    assert list(tmp_path.iterdir()) == [path]
