"""`status` of a batch that another process runs, and of one whose run was killed."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from batchgen.ledger.database import open_for_reading
from batchgen.session import live_status as module
from tests.support import rig

SWITCHES = ("--fast-images", "--latency", "0.3", "--fault-after", "4", "--throttle", "0.2")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


def text_of(directory: Path) -> str:
    return rig.batchgen("status", "batch", cwd=directory).stdout


def test_status_knows_running_from_killed(served: rig.Endpoint, tmp_path: Path) -> None:
    prompts = [f"A mug {number}" for number in range(400)]
    limits = "{concurrency: 4, max_cost: 80.00}"
    manifest = rig.manifest(tmp_path, served.base_url, prompts, limits=limits)
    with rig.start("run", manifest, "--json", cwd=tmp_path, has_command_line=True) as run:
        saved = 0
        for event in rig.events(run):
            saved += event["event"] == "job_done"
            if saved == 4:
                break
        found = rig.status(tmp_path)
        text = text_of(tmp_path)
        run.send_signal(signal.SIGKILL)
        run.communicate()
    running = found["running"]
    assert running["pid"] == run.pid
    assert running["command"].startswith("batchgen run ")
    assert running["images_per_minute"] > 0
    assert running["seconds_left"] > 0
    one_form = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
    assert one_form.fullmatch(running["since"])
    assert one_form.fullmatch(running["last_image_at"])
    assert not found["killed"]
    assert f"running: pid {run.pid}" in text
    assert "last image" in text
    assert "images per minute, about" in text
    assert "in flight" in text
    assert "left of $80.00" in text
    assert "killed" not in text

    found, text = rig.status(tmp_path), text_of(tmp_path)
    assert found["running"] is None
    assert found["killed"]
    assert "run 1 was killed at about " in text
    assert "; batchgen resume batch continues it" in text
    assert "running" not in text


def test_status_of_a_finished_batch_names_no_process(served: rig.Endpoint, tmp_path: Path) -> None:
    manifest = rig.manifest(tmp_path, served.base_url, ["A mug"])
    rig.batchgen("run", manifest, cwd=tmp_path)
    found = rig.status(tmp_path)
    assert found["running"] is None
    assert not found["killed"]
    assert "  1  image on disk" in text_of(tmp_path)
    assert "batch: 1 of 1 job done" in text_of(tmp_path)


def test_forced_colors_reach_a_pipe(served: rig.Endpoint, tmp_path: Path) -> None:
    manifest = rig.manifest(tmp_path, served.base_url, ["A mug"])
    forced = rig.batchgen("run", manifest, cwd=tmp_path, env={"FORCE_COLOR": "1"})
    assert "\x1b[32m1 of 1 job done\x1b[0m" in forced.stdout
    shown = rig.batchgen("status", "batch", "--json", cwd=tmp_path, env={"FORCE_COLOR": "1"})
    assert json.loads(shown.stdout)["batch"] == "batch"
    plain = rig.batchgen("status", cwd=tmp_path, env={"FORCE_COLOR": "1", "NO_COLOR": "1"})
    assert "\x1b" not in plain.stdout


ENDED = "UPDATE runs SET ended_at = '2026-11-28T02:00:00.000Z'"
OPEN = "UPDATE runs SET ended_at = NULL"


@pytest.mark.parametrize(("before", "meanwhile"), [(OPEN, ENDED), (ENDED, OPEN)])
def test_run_that_ends_or_begins_is_not_killed(
    served: rig.Endpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    before: str,
    meanwhile: str,
) -> None:
    manifest = rig.manifest(tmp_path, served.base_url, ["A mug"])
    rig.batchgen("run", manifest, cwd=tmp_path)
    db = tmp_path / "batchgen.db"

    def change(sql: str) -> None:
        with closing(sqlite3.connect(db)) as conn:
            conn.execute(sql)
            conn.commit()

    change(before)
    monkeypatch.setattr(module, "owner_of", lambda *_: change(meanwhile))
    with closing(open_for_reading(db)) as conn:
        assert module.live_status(conn, db, "batch").killed_run is None
