"""`batchgen.run`: a whole run from a script or a notebook, and its events in `logging`."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import batchgen
from batchgen import Batch, ExitCode, JobState
from batchgen.errors import ManifestError, StoppedError
from batchgen.session.plan_and_enroll import EnrolledRun, begin
from tests.support import rig

PROMPTS = ["a mug", "a forbidden-word <b>", "a hat"]


def test_run_returns_all_results(served: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, served.base_url, PROMPTS)
    found = batchgen.run(path, max_cost="1")
    assert (found.name, found.exit_code, found.stopped) == ("batch", ExitCode.UNFINISHED, None)
    assert {result.key: result.state for result in found} == {
        "job-000": JobState.DONE,
        "job-001": JobState.BLOCKED,
        "job-002": JobState.DONE,
    }
    assert len(found) == 3
    assert found[0] == found.results[0]
    assert sorted(image.name for image in found.paths) == ["job-000.png", "job-002.png"]
    assert found.status.charged == 2 * rig.PRICE
    assert batchgen.run(path).results == ()


def test_results_show_as_images_in_a_notebook(served: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, served.base_url, PROMPTS)
    html = batchgen.run(path)._repr_html_()
    assert html.count('<img src="data:image/webp;base64,') == 2
    assert "batch: 2 of 3 jobs done in this run, charged $0.08" in html
    assert re.search("<b>job-001</b><br>blocked: ", html)
    assert html.count("<b>") == 3, "one for each key"


def test_results_escape_foreign_text(tmp_path: Path) -> None:
    result = batchgen.Result(key="<script>", state=JobState.FAILED, reason="<img src=x>")
    from batchgen.notebook import _cell

    cell = _cell(result)
    assert "<script>" not in cell
    assert "<img" not in cell


async def _inside_a_loop(path: Path) -> batchgen.RunResults:
    return batchgen.run(path)


def test_run_works_inside_an_event_loop(served: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["a mug"])
    assert asyncio.run(_inside_a_loop(path)).exit_code == ExitCode.DONE


def test_run_raises_the_errors_of_a_batch(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("jobs: 1\n", encoding="utf-8")
    with pytest.raises(ManifestError, match="jobs"):
        batchgen.run(tmp_path / "bad.yaml")


def test_stop_lets_requests_in_flight_finish(tmp_path: Path) -> None:
    """How many are sent before the first image is delivered depends on the machine."""

    async def stopped(path: Path, slow: rig.Endpoint) -> tuple[int, int, str | None]:
        number = sent = 0
        async with Batch(path) as batch:
            async for _ in batch:
                number += 1
                batch.stop()
                sent = sent or slow.judge("stats")["posts"]
        return number, sent, batch.stopped

    with rig.endpoint(tmp_path / "state", "--fast-images", "--latency", "0.2") as slow:
        path = rig.manifest(tmp_path, slow.base_url, [*"abcdefghij"], limits="{concurrency: 2}")
        number, sent, reason = asyncio.run(stopped(path, slow))
        assert number == len(slow.bill())
        assert 1 <= number <= sent + 2  # those that are on their way to the endpoint
        assert reason == "stopped by its program"
        rig.judge(tmp_path, slow.bill(), finished=False)


@pytest.mark.parametrize("is_planned", [False, True])
def test_interrupt_while_planning_sends_nothing(
    served: rig.Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_planned: bool
) -> None:
    before, stopped, stop = len(served.bill()), threading.Event(), Batch.stop
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        signal.pthread_kill(main, signal.SIGINT)
        assert stopped.wait(rig.TIMEOUT_S)

    def interrupted(*args: Any, **options: Any) -> EnrolledRun:
        if not is_planned:
            interrupt()
        run = begin(*args, **options)
        interrupt()
        return run

    def stop_and_say(batch: Batch) -> None:
        stop(batch)
        stopped.set()

    monkeypatch.setattr("batchgen.api.begin", interrupted)
    monkeypatch.setattr(Batch, "stop", stop_and_say)
    path = rig.manifest(tmp_path, served.base_url, ["a mug"])
    with pytest.raises(KeyboardInterrupt):
        batchgen.run(path)
    assert len(served.bill()) == before
    assert (tmp_path / "batchgen.db").exists() is is_planned


async def _stopped_at_once(path: Path) -> Batch:
    async with Batch(path) as batch:
        batch.stop()
        assert [result async for result in batch] == []
    return batch


def test_stop_before_iterating_sends_nothing(served: rig.Endpoint, tmp_path: Path) -> None:
    before = len(served.bill())
    batch = asyncio.run(_stopped_at_once(rig.manifest(tmp_path, served.base_url, ["a mug"])))
    assert (batch.stopped, batch.exit_code) == ("stopped by its program", ExitCode.STOPPED)
    assert len(served.bill()) == before


async def _stopped_before_entering(path: Path) -> None:
    batch = Batch(path)
    batch.stop()
    async with batch:
        pass


def test_stop_refuses_the_plan(tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, "http://127.0.0.1:9/v1", ["a mug"])
    with pytest.raises(StoppedError, match=r"yaml: stopped by its program; nothing was sent or"):
        asyncio.run(_stopped_before_entering(path))
    assert not (tmp_path / "batchgen.db").exists()


def test_events_reach_the_logger(
    served: rig.Endpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = rig.manifest(tmp_path, served.base_url, PROMPTS)
    with caplog.at_level(logging.DEBUG, logger="batchgen"):
        batchgen.run(path)
    done = [one for one in caplog.records if one.levelno == logging.INFO]
    trouble = [one for one in caplog.records if one.levelno == logging.WARNING]
    assert sorted(one.getMessage() for one in done) == [
        "batch: job-000: done: out/batch/job-000.png",
        "batch: job-002: done: out/batch/job-002.png",
    ]
    (blocked,) = trouble
    assert blocked.getMessage().startswith("batch: job-001: blocked, now blocked, ")
    assert blocked.__dict__["batch"] == "batch"
    assert blocked.__dict__["event"].key == "job-001"


def test_logger_prints_nothing_by_default(served: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["a forbidden-word"])
    code = f"import batchgen; print(len(batchgen.run({str(path)!r})))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=rig.environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=rig.TIMEOUT_S,
    )
    assert (done.stdout, done.stderr) == ("1\n", "")
