"""The log of a night: JSON lines with times, rotated, and never in the way of a run."""

from __future__ import annotations

import json
import os
import select
from datetime import datetime
from pathlib import Path

import pytest

from batchgen.console.log_file import LoggedProgress
from batchgen.engine.events import JobDone, RunEvent
from tests.support import rig


@pytest.mark.parametrize("how", ["flag", "environment"])
def test_a_night_is_written_down_though_nothing_is_shown(
    how: str, served: rig.Endpoint, tmp_path: Path
) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["one", "a forbidden-word"])
    log = tmp_path / "night.log"
    flags = ["--log-file", str(log)] if how == "flag" else []
    env = {} if flags else {"BATCHGEN_LOG": str(log)}
    for _ in range(2):
        rig.batchgen("run", path, "--quiet", *flags, cwd=tmp_path, env=env, code=None)
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert {line["batch"] for line in lines} == {"batch"}
    assert [line["key"] for line in lines if line["event"] == "job_done"] == ["job-000"]
    (blocked,) = [line for line in lines if line.get("state") == "blocked"]
    assert blocked["price"] == "0.037700"
    times = [datetime.fromisoformat(line["time"]) for line in lines]
    assert times == sorted(times)


@pytest.mark.parametrize("log", ["no/directory.log", "file/directory.log", "directory"])
def test_run_with_an_unwritable_log_changes_nothing(
    log: str, served: rig.Endpoint, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
    path = rig.manifest(tmp_path, served.base_url, ["one"])
    before = served.judge("stats")["posts"]
    env = {"BATCHGEN_LOG": str(tmp_path / log)}
    refused = rig.batchgen("run", path, cwd=tmp_path, env=env, code=2)
    assert "can't be written" in refused.stderr
    assert not (tmp_path / "batchgen.db").exists()
    assert served.judge("stats")["posts"] == before

    rig.batchgen("run", path, cwd=tmp_path)
    rig.batchgen("run", path, "--refresh", "always", cwd=tmp_path, env=env, code=2)
    assert rig.status(tmp_path)["jobs"]["done"] == 1, "no later run regenerates the image"
    assert rig.query(tmp_path / "batchgen.db", "SELECT count(*) AS n FROM runs")[0]["n"] == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_as_log_is_refused_unopened(served: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["one"])
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    before = served.judge("stats")["posts"]
    try:
        for log in ("pipe", "/dev/stderr"):  # a pipe too: rig captures it
            refused = rig.batchgen("run", path, "--log-file", log, cwd=tmp_path, code=2)
            assert f"{log}: the log is a pipe; expected a file" in refused.stderr
        assert not select.select([reader], [], [], 0)[0], "its reader would be at the end of input"
    finally:
        os.close(reader)
    assert not (tmp_path / "batchgen.db").exists()
    assert served.judge("stats")["posts"] == before


def test_refused_run_leaves_no_empty_log(served: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["one"])
    log = tmp_path / "night.log"
    flags = ("--log-file", log, "--max-cost", "0.01")
    rig.batchgen("run", path, *flags, cwd=tmp_path, code=3)
    assert not log.exists()


class Shown:
    """A face that takes note of what it is shown."""

    def __init__(self) -> None:
        self.events: list[RunEvent] = []

    def observe(self, event: RunEvent) -> None:
        self.events.append(event)

    async def run(self, throttle: object) -> None:
        raise AssertionError("not requested here")

    def close(self) -> None:
        pass


@pytest.mark.fault("R08")
def test_a_log_grows_to_ten_files_and_no_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchgen.console.log_file._MAX_BYTES", 1000)
    shown = Shown()
    log = LoggedProgress(shown, tmp_path / "run.log", batch="b")
    for number in range(300):
        log.observe(JobDone(key=f"k{number}", paths=("a.png",)))
    log.close()
    assert len(shown.events) == 300
    files = sorted(tmp_path.iterdir())
    assert len(files) == 10
    assert all(file.stat().st_size <= 1000 for file in files)
    last = (tmp_path / "run.log").read_text(encoding="utf-8").splitlines()[-1]
    assert json.loads(last)["key"] == "k299"
