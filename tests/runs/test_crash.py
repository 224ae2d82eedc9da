"""A real run is killed at seeded moments and finished: nothing is lost, bought twice or stuck."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from tests.support import rig

JOBS = 40
KILLS = 25
"""In every run of the suite; a sweep makes them a thousand."""
UNCERTAIN = 12
"""Attempts that a kill may leave open: eight requests in flight, four responses being recorded."""
EVENTS = 110
"""A whole run of 40 jobs writes about 120 lines: started, ended and done for each."""


SWITCHES = ("--latency", "0.05", "--latency-jitter", "0.1", "--response", "mixed", "--fast-images")


@pytest.mark.fault("D17", "P06", "Q03")
@pytest.mark.parametrize(
    "seed",
    [
        *range(KILLS),
        *(pytest.param(seed, marks=pytest.mark.sweep) for seed in range(KILLS, 1_000)),
    ],
)
def test_a_killed_run_loses_nothing_and_buys_nothing_twice(
    seed: int, served: rig.Endpoint, tmp_path: Path
) -> None:
    dice = random.Random(seed)
    waste = dice.choice(["0", "100%"])
    path = rig.manifest(
        tmp_path,
        served.base_url,
        [f"image {number} of trial {seed}" for number in range(JOBS)],
        limits=f'{{concurrency: 8, max_waste: "{waste}"}}',
    )
    before = len(served.bill())
    _kill_after(dice.randrange(1, EVENTS), path)
    served.wait_until_idle()
    rig.judge(tmp_path, served.bill()[before:], finished=False)
    in_flight = _in_flight(tmp_path)
    assert in_flight <= UNCERTAIN

    done = rig.batchgen("run", path, cwd=tmp_path, code=None)
    rig.judge(tmp_path, served.bill()[before:], finished=True)
    found = rig.status(tmp_path)
    # A response that was complete in the spool is not uncertain.
    assert done.returncode == bool(found["jobs"]["uncertain"]), done.stdout + done.stderr
    assert found["jobs"]["done"] + found["jobs"]["uncertain"] == JOBS
    assert found["jobs"]["uncertain"] <= (in_flight if waste == "0" else 0)
    assert found["attempts"]["maybe"] <= in_flight

    posts = served.judge("stats")["posts"]
    rig.batchgen("run", path, cwd=tmp_path, code=None)
    assert served.judge("stats")["posts"] == posts, "a run with nothing to do sent something"


@pytest.mark.fault("P07")
@pytest.mark.parametrize(
    "seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.sweep) for seed in range(3, 60))]
)
def test_runs_killed_three_times_lose_nothing(
    seed: int, served: rig.Endpoint, tmp_path: Path
) -> None:
    """The second and third are killed while they recover, or soon after."""
    dice = random.Random(seed)
    path = rig.manifest(
        tmp_path,
        served.base_url,
        [f"image {number} of row {seed}" for number in range(JOBS)],
        limits='{concurrency: 8, max_waste: "100%"}',
    )
    before = len(served.bill())
    in_flight = 0
    for most in (EVENTS // 2, 12, 12):
        _kill_after(dice.randrange(1, most), path)
        served.wait_until_idle()
        rig.judge(tmp_path, served.bill()[before:], finished=False)
        assert _in_flight(tmp_path) <= UNCERTAIN
        in_flight += _in_flight(tmp_path)

    rig.batchgen("run", path, cwd=tmp_path, code=None)
    rig.judge(tmp_path, served.bill()[before:], finished=True)
    found = rig.status(tmp_path)
    assert found["attempts"]["maybe"] <= in_flight
    held = "SELECT key FROM jobs WHERE state = 'uncertain' AND doubts < 1"
    assert rig.query(tmp_path / "batchgen.db", held) == [], (
        "only a second uncertain attempt is held"
    )
    assert found["jobs"]["done"] + found["jobs"]["uncertain"] == JOBS


def _kill_after(lines: int, path: Path) -> None:
    """Run a manifest, and kill it after this many lines of its output."""
    process = rig.start("run", path, "--json", cwd=path.parent)
    with process:
        for number, _ in enumerate(rig.events(process), start=1):
            if number == lines:
                process.send_signal(signal.SIGKILL)
                break
        process.wait()


def _in_flight(directory: Path) -> int:
    """Requests that a run had on their way as it was killed."""
    sending = "SELECT count(*) FROM attempts WHERE outcome = 'sending'"
    return int(rig.query(directory / "batchgen.db", sending)[0][0])
