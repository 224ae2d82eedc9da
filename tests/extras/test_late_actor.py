"""An actor that is stopped while the provider responds; its driver lives and gives it up."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import rig
from tests.support.cluster_batch import ClusterBatch
from tests.support.extras import require
from tests.support.ray_cluster import RayCluster, ray_cluster
from tests.support.s3 import S3Server

require("obstore", "moto", "ray")

pytestmark = pytest.mark.timeout(600)

IN_FLIGHT = 4
"""Half of them are lost. More in a row would open the circuit breaker before the rebuys."""
JOBS = IN_FLIGHT + 2
"""The last ones are sent by the other actor, and keep the driver alive."""
QUICK_S = 2.0
LONG_S = 25.0
"""From the last request until the actor is given up, on a slow machine."""
REBOUGHT_S = 40.0
"""Until its jobs are rebought too."""
GIVES_UP = {"BATCHGEN_CLUSTER_GRACE": "1", "BATCHGEN_CLUSTER_SILENT": "3"}
LOST = "SELECT id FROM attempts WHERE outcome = 'ambiguous'"


@pytest.fixture(scope="module")
def cluster(s3: S3Server) -> Iterator[RayCluster]:
    with ray_cluster(s3.env, nodes=2) as found:
        yield found


@pytest.fixture
def batch(s3: S3Server, cluster: RayCluster, tmp_path: Path) -> Iterator[ClusterBatch]:
    with rig.endpoint(tmp_path / "endpoint", "--latency", str(QUICK_S)) as served:
        found = ClusterBatch.of(tmp_path / "batch", served, s3, cluster)
        found.env |= GIVES_UP
        yield found


def _wait(run: rig.Started, until: Callable[[], object], what: str) -> None:
    while not until():
        assert run.poll() is None, f"the run ended before {what}"
        time.sleep(0.05)


def _stop_actor(batch: ClusterBatch, run: rig.Started, long_s: float = LONG_S) -> int:
    """Stop an actor with requests in flight until its driver has given it up; return its process.

    The endpoint responds to them meanwhile, so that the responses lie in its sockets.
    """
    _wait(run, lambda: batch.served.judge("stats")["in_flight"] == IN_FLIGHT, "all were in flight")
    stopped = batch.cluster.actors()[0]
    os.kill(stopped, signal.SIGSTOP)
    batch.served.judge("faults", {"latency": long_s})
    _wait(run, lambda: batch.served.judge("stats")["posts"] == JOBS, "the last ones were sent")
    batch.served.judge("faults", {"latency": QUICK_S})
    _wait(
        run,
        lambda: batch.served.judge("stats")["in_flight"] == JOBS - IN_FLIGHT,
        "the others had responses",
    )
    _wait(run, lambda: _lost(batch), "the actor was given up")
    time.sleep(1)  # all of its attempts are given up at once
    return stopped


def _lost(batch: ClusterBatch) -> set[str]:
    sql = "SELECT id FROM attempts WHERE outcome = 'ambiguous'"
    return {row["id"] for row in rig.query(batch.directory / "batchgen.db", sql)}


def _wake(batch: ClusterBatch, run: rig.Started, stopped: int, lost: set[str]) -> None:
    """Let an actor go on, and wait until it has stored its responses.

    The endpoint is stopped meanwhile, so that the last requests keep the driver alive.
    """
    endpoint = batch.served.process.pid
    os.kill(endpoint, signal.SIGSTOP)
    os.kill(stopped, signal.SIGCONT)

    def stored() -> bool:
        names = batch.stored_responses()
        return lost <= {name.rpartition("/")[2].partition(".")[0] for name in names}

    try:
        _wait(run, stored, "the responses were stored")
        assert run.poll() is None, "the driver lives"
    finally:
        os.kill(endpoint, signal.SIGCONT)


def _images(batch: ClusterBatch) -> dict[str, str]:
    return {one.name: one.e_tag for one in batch.store.list("job-")}


def _outcomes(batch: ClusterBatch, attempts: set[str]) -> set[str]:
    rows = rig.query(batch.directory / "batchgen.db", "SELECT id, outcome FROM attempts")
    return {row["outcome"] for row in rows if row["id"] in attempts}


def _all_is_charged(batch: ClusterBatch) -> None:
    (sums,) = rig.query(
        batch.directory / "batchgen.db", "SELECT sum(charged) AS c, sum(maybe) AS m FROM runs"
    )
    assert sums["c"] == sum(row["micros"] for row in batch.served.bill())
    assert sums["m"] == 0


def test_run_collects_responses_of_an_actor_that_it_gave_up(batch: ClusterBatch) -> None:
    batch.write(JOBS, limits=f"{{concurrency: {IN_FLIGHT}, max_waste: 0}}")
    run = batch.start("--actors", "2")
    stopped = _stop_actor(batch, run)
    lost, images = _lost(batch), _images(batch)
    assert 0 < len(lost) < IN_FLIGHT
    assert batch.states()["uncertain"] == len(lost)
    assert len(images) == IN_FLIGHT - len(lost)
    _wake(batch, run, stopped, lost)
    shown = "".join(run.communicate(timeout=300))
    assert run.returncode == 0, shown
    assert batch.states() == {"done": JOBS}
    assert _outcomes(batch, lost) == {"ok"}
    assert images.items() <= _images(batch).items()
    assert len(batch.served.bill()) == JOBS
    assert batch.left_over() == []
    batch.judge()
    _all_is_charged(batch)


def test_late_response_to_a_rebought_job_replaces_nothing(batch: ClusterBatch) -> None:
    batch.write(JOBS, limits=f"{{concurrency: {IN_FLIGHT}, max_waste: 1.00}}")
    run = batch.start("--actors", "2")
    stopped = _stop_actor(batch, run, REBOUGHT_S)
    lost = _lost(batch)
    _wait(run, lambda: batch.states()["done"] == IN_FLIGHT, "they were rebought")
    images = _images(batch)
    assert len(images) == IN_FLIGHT
    _wake(batch, run, stopped, lost)
    shown = "".join(run.communicate(timeout=300))
    assert run.returncode == 0, shown
    assert batch.states() == {"done": JOBS}
    assert images.items() <= _images(batch).items()
    assert len(batch.served.bill()) == JOBS + len(lost)
    assert batch.left_over() == []
    batch.judge(was_rebought=True)
    _all_is_charged(batch)


def test_next_run_collects_responses_of_an_actor_given_up(batch: ClusterBatch) -> None:
    batch.write(JOBS, limits=f"{{concurrency: {IN_FLIGHT}, max_waste: 0}}")
    run = batch.start("--actors", "2")
    stopped = _stop_actor(batch, run)
    lost, images = _lost(batch), _images(batch)
    _wake(batch, run, stopped, lost)
    run.kill()
    run.communicate(timeout=300)
    batch.run(code=None)
    assert _outcomes(batch, lost) == {"ok"}
    assert batch.states().get("uncertain", 0) <= JOBS - IN_FLIGHT
    assert images.items() <= _images(batch).items()
    assert not batch.stored_responses()
    batch.judge()
