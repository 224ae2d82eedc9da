"""A real run is killed at seeded moments and finished: nothing is lost, bought twice or stuck."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import rig

JOBS = 40
KILLS = 50
EVENTS = 110
"""A whole run of 40 jobs writes about 120 lines: started, ended and done for each."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rig.Endpoint]:
    state = tmp_path_factory.mktemp("endpoint")
    with rig.endpoint(
        state,
        "--latency",
        "0.05",
        "--latency-jitter",
        "0.1",
        "--answer",
        "mixed",
        "--fast-pictures",
    ) as endpoint:
        yield endpoint


@pytest.mark.fault("D17", "Q03")
@pytest.mark.fault("P06")
@pytest.mark.parametrize("seed", range(KILLS))
def test_a_killed_run_loses_nothing_and_buys_nothing_twice(
    seed: int, served: rig.Endpoint, tmp_path: Path
) -> None:
    dice = random.Random(seed)
    waste = dice.choice(["0", "100%"])
    path = rig.manifest(
        tmp_path,
        served.base_url,
        [f"picture {number} of trial {seed}" for number in range(JOBS)],
        limits=f'{{concurrency: 8, max_waste: "{waste}"}}',
    )
    before = len(served.bill())
    kill_after = dice.randrange(1, EVENTS)

    process = rig.start("run", path, "--json", cwd=tmp_path)
    with process:
        for number, _ in enumerate(rig.events(process), start=1):
            if number == kill_after:
                process.send_signal(signal.SIGKILL)
                break
        process.wait()
    served.wait_until_idle()
    rig.judge(tmp_path, served.bill()[before:], finished=False)
    in_flight = rig.query(
        tmp_path / "batchgen.db", "SELECT count(*) FROM attempts WHERE outcome = 'sending'"
    )[0][0]
    assert in_flight <= 8

    done = rig.batchgen("run", path, cwd=tmp_path, code=None)
    assert done.returncode == (0 if waste != "0" or not in_flight else 1), done.stdout + done.stderr
    rig.judge(tmp_path, served.bill()[before:], finished=True)
    found = rig.status(tmp_path)
    assert found["jobs"]["done"] + found["jobs"]["uncertain"] == JOBS
    assert found["jobs"]["uncertain"] <= (in_flight if waste == "0" else 0)
    assert found["attempts"]["maybe"] <= in_flight

    posts = served.judge("stats")["posts"]
    rig.batchgen("run", path, cwd=tmp_path, code=None)
    assert served.judge("stats")["posts"] == posts, "a run with nothing to do sent something"
