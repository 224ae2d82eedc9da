"""The public Python API, as a program uses it, on a real endpoint."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest

import batchgen
from batchgen import Batch, JobState
from batchgen.errors import BatchLockedError, ManifestError, SettingsError, StoppedError
from tests.support import rig

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_program_plans_runs_and_iterates(served: rig.Endpoint, tmp_path: Path) -> None:
    before = len(served.bill())
    path = rig.manifest(tmp_path, served.base_url, ["a mug", "a forbidden-word", "a hat"])
    async with Batch(path, max_cost="1") as batch:
        assert (batch.name, batch.to_do, batch.estimate) == ("batch", 3, 3 * rig.PRICE)
        assert len(served.bill()) == before
        results = {result.key: result async for result in batch}
    assert results["job-000"].state is JobState.DONE
    assert results["job-000"].paths[0].is_file()
    assert results["job-001"].state is JobState.BLOCKED
    assert "content_policy" in results["job-001"].reason or results["job-001"].reason
    assert set(results) == {"job-000", "job-001", "job-002"}
    assert (batch.exit_code, batch.stopped) == (1, None)
    assert batch.status().charged == 2 * rig.PRICE
    rig.judge(tmp_path, served.bill()[before:], finished=True)


async def test_what_is_done_is_not_asked_again(served: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["one"])
    for expected in (1, 0):
        async with Batch(path) as batch:
            assert batch.to_do == expected
            assert len([result async for result in batch]) == expected
    assert batch.exit_code == 0


async def test_leaving_early_lets_what_is_in_flight_finish(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "state", "--fast-images", "--latency", "0.2") as slow:
        path = rig.manifest(tmp_path, slow.base_url, [*"abcdefghijkl"], limits="{concurrency: 2}")
        async with Batch(path) as batch:
            async for _ in batch:
                break
        assert batch.exit_code is not None
        found = batch.status()
        assert 0 < found.jobs[JobState.DONE] < 12
        assert found.jobs[JobState.SENDING] == found.jobs[JobState.UNCERTAIN] == 0
        rig.judge(tmp_path, slow.bill(), finished=False)


async def test_a_run_checks_the_pages_of_its_ledger_once(
    served: rig.Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements: list[str] = []
    connect = sqlite3.connect

    def traced(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        conn: sqlite3.Connection = connect(*args, **kwargs)
        conn.set_trace_callback(statements.append)
        return conn

    path = rig.manifest(tmp_path, served.base_url, ["one"])
    monkeypatch.setattr(sqlite3, "connect", traced)
    for _ in range(2):  # the ledger exists at the second run
        statements.clear()
        async with Batch(path) as batch:
            async for _ in batch:
                pass
        assert [text for text in statements if text.startswith("PRAGMA quick_check")] == [
            "PRAGMA quick_check(3)"
        ]


async def fail(path: Path) -> None:
    """A program with a fault of its own."""
    async with Batch(path) as batch:
        async for _ in batch:
            raise RuntimeError("a fault of the program's own")


async def test_a_program_that_fails_takes_no_paid_image_with_it(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "state", "--fast-images", "--latency", "0.2") as slow:
        path = rig.manifest(tmp_path, slow.base_url, [*"abcdef"], limits="{concurrency: 3}")
        with pytest.raises(RuntimeError, match="of the program's own"):
            await fail(path)
        async with Batch(path) as batch:
            assert {result.state async for result in batch} <= {JobState.DONE, JobState.UNCERTAIN}
        rig.judge(tmp_path, slow.bill(), finished=True)


async def test_a_cancelled_program_leaves_what_was_in_flight_on_record(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "state", "--fast-images", "--latency", "2") as slow:
        path = rig.manifest(tmp_path, slow.base_url, [*"abcd"], limits="{concurrency: 4}")
        with anyio.CancelScope() as scope:
            async with Batch(path) as batch:
                results = aiter(batch)
                while slow.judge("stats")["in_flight"] < 4:  # noqa: ASYNC110  # another process
                    await anyio.sleep(0.01)
                scope.cancel()
                await anext(results)
        assert scope.cancelled_caught
        slow.wait_until_idle()
        rig.judge(tmp_path, slow.bill(), finished=False)
        assert rig.status(tmp_path)["attempts"]["maybe"] == len(slow.bill()) == 4


async def test_entering_without_iterating_sends_nothing(
    served: rig.Endpoint, tmp_path: Path
) -> None:
    before = len(served.bill())
    async with Batch(rig.manifest(tmp_path, served.base_url, ["a"])) as batch:
        assert batch.to_do == 1
    assert len(served.bill()) == before


async def test_errors_are_those_of_the_command_line(served: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["a", "b"])
    with pytest.raises(StoppedError, match="budget"):
        async with Batch(path, max_cost="0.05"):
            pass
    async with Batch(path):
        with pytest.raises(BatchLockedError):
            async with Batch(path):
                pass
    path.write_text("jobs: [{promt: x}]\n", encoding="utf-8")
    with pytest.raises(ManifestError, match="promt"):
        async with Batch(path):
            pass


@pytest.mark.fault("XD3")
async def test_two_batches_of_a_ledger_run_in_one_process(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "state", "--fast-images", "--latency", "0.2") as slow:
        paths = [
            rig.manifest(tmp_path, slow.base_url, ["a", "b", "c"], name=name)
            for name in ("hats", "mugs")
        ]
        done = dict[str, int]()

        async def run(path: Path) -> None:
            async with Batch(path) as batch:
                done[batch.name] = len([result async for result in batch])

        async with anyio.create_task_group() as tasks:
            for path in paths:
                tasks.start_soon(run, path)
        assert done == {"hats": 3, "mugs": 3}
        rig.judge(tmp_path, slow.bill(), finished=True)


async def test_a_batch_is_run_once(served: rig.Endpoint, tmp_path: Path) -> None:
    async with Batch(rig.manifest(tmp_path, served.base_url, ["a"])) as batch:
        assert len([result async for result in batch]) == 1
        with pytest.raises(RuntimeError, match="has run already"):
            batch.__aiter__()


async def test_batch_adopt_continues_a_moved_manifest(served: rig.Endpoint, tmp_path: Path) -> None:
    ledger = tmp_path / "batchgen.db"
    path = rig.manifest(tmp_path / "old", served.base_url, ["one"])
    async with Batch(path, ledger=ledger) as batch:
        assert len([result async for result in batch]) == 1
    moved = rig.manifest(tmp_path / "new", served.base_url, ["one"])
    with pytest.raises(SettingsError, match="belongs to another manifest"):
        async with Batch(moved, ledger=ledger):
            pass
    before = len(served.bill())
    async with Batch(moved, ledger=ledger, adopt=True) as batch:
        assert batch.to_do == 0
        assert f"its manifest was {path}" in batch.notices[0]
        assert [result async for result in batch] == []
    assert len(served.bill()) == before
    async with Batch(moved, ledger=ledger) as batch:
        assert batch.to_do == 0


async def test_batch_take_over_continues_a_run_of_a_dead_host(
    tuned: rig.Endpoint, tmp_path: Path
) -> None:
    tuned.judge("faults", {"response": "b64_json"})
    path = rig.manifest(tmp_path, tuned.base_url, ["one"])
    env = {"BATCHGEN_FAILPOINT": "spooled"}
    killed = rig.batchgen("run", path, cwd=tmp_path, env=env, code=None)
    assert killed.returncode == -signal.SIGKILL
    with closing(sqlite3.connect(tmp_path / "batchgen.db")) as conn, conn:
        ((text,),) = conn.execute("SELECT owner FROM runs").fetchall()
        owner = json.loads(text) | {"host": "shop2", "boot": "another", "pid": 12}
        conn.execute("UPDATE runs SET owner = ?", (json.dumps(owner),))
    before = len(tuned.bill())
    with pytest.raises(BatchLockedError, match="on shop2 since"):
        async with Batch(path):
            pass
    async with Batch(path, take_over=True) as batch:
        results = [result async for result in batch]
    assert [result.state for result in results] == [JobState.DONE]
    assert len(tuned.bill()) == before, "the response was in the spool"


def test_public_names_are_imported_on_first_use() -> None:
    code = "import sys, batchgen; assert 'pydantic' not in sys.modules; batchgen.Batch"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert all(hasattr(batchgen, name) for name in batchgen.__all__)
    assert {"Batch", "BatchgenError", "JobState", "Result"} < set(batchgen.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        batchgen.nonsense  # noqa: B018  # asking for it is the test
