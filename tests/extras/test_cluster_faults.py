"""Faults of the bucket and of Ray's head during a run on a cluster."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import canary, rig
from tests.support.cluster_batch import ClusterBatch
from tests.support.extras import require
from tests.support.old_store import Behavior, s3_proxy
from tests.support.ray_cluster import RayCluster, ray_cluster
from tests.support.s3 import S3Server

require("obstore", "moto", "ray")

pytestmark = pytest.mark.timeout(600)

JOBS = 40
LONG = 300
"""Jobs of a run that lasts until a driver has learned of something."""
IN_FLIGHT = 8
SWITCHES = ("--fast-images", "--latency", "0.3")
DONE = "SELECT 1 FROM jobs WHERE state = 'done'"


@pytest.fixture(scope="module")
def cluster(s3: S3Server) -> Iterator[RayCluster]:
    with ray_cluster(s3.env, nodes=2) as found:
        yield found


@pytest.fixture
def batch(served: rig.Endpoint, s3: S3Server, cluster: RayCluster, tmp_path: Path) -> ClusterBatch:
    return ClusterBatch.of(tmp_path, served, s3, cluster)


@pytest.fixture
def proxied(batch: ClusterBatch, s3: S3Server, behavior: Behavior) -> Iterator[ClusterBatch]:
    """A batch whose driver and actors reach the bucket through a proxy."""
    with s3_proxy(s3.endpoint, behavior) as endpoint:
        batch.write(JOBS, extra=f"storage: {{endpoint: {endpoint!r}}}\n")
        yield batch


def _billed(batch: ClusterBatch) -> int:
    return len(batch.served.bill()) - batch.before


def test_responses_that_the_bucket_refuses_reach_the_driver(
    proxied: ClusterBatch, behavior: Behavior
) -> None:
    run = proxied.start()
    rig.wait_for(proxied.directory, DONE, run)
    behavior.only, behavior.refuse_puts = ".response", True
    shown = "".join(run.communicate(timeout=300))
    assert run.returncode == 3, shown
    assert "storage: " in shown
    assert "uncertain" not in proxied.states()
    assert _billed(proxied) < JOBS
    proxied.judge()
    behavior.refuse_puts = False
    proxied.run()
    assert proxied.states() == {"done": JOBS}
    assert _billed(proxied) == JOBS
    assert proxied.left_over() == []
    proxied.judge()


def test_puts_whose_responses_are_lost_cost_nothing(
    proxied: ClusterBatch, behavior: Behavior
) -> None:
    """The bucket returns 503 for intents, responses and images that it has stored."""
    run = proxied.start()
    rig.wait_for(proxied.directory, DONE, run)
    behavior.lose_responses = 40
    shown = "".join(run.communicate(timeout=300))
    assert run.returncode == 0, shown
    assert behavior.lose_responses <= 0
    assert proxied.states() == {"done": JOBS}
    assert _billed(proxied) == JOBS
    assert proxied.left_over() == []
    proxied.judge()


def test_outage_of_the_bucket_stops_nothing(proxied: ClusterBatch, behavior: Behavior) -> None:
    run = proxied.start()
    rig.wait_for(proxied.directory, DONE, run)
    behavior.is_down = True
    time.sleep(6)
    behavior.is_down = False
    shown = "".join(run.communicate(timeout=300))
    assert run.returncode == 0, shown
    assert proxied.states() == {"done": JOBS}
    assert _billed(proxied) == JOBS
    proxied.judge()


def test_key_that_nodes_do_not_have_is_refused(batch: ClusterBatch) -> None:
    batch.write(JOBS)
    shown = batch.run(code=2, **{canary.VARIABLE: "sk-of-the-driver-alone"})
    assert "its API key differs from that of the driver" in shown
    assert not (batch.directory / "batchgen.db").exists()
    assert _billed(batch) == 0


def test_driver_on_another_machine_follows_a_lost_one(batch: ClusterBatch) -> None:
    """It cannot see whether that one lives, and waits until its lease has lapsed."""
    batch.write(JOBS)
    batch.run(code=-signal.SIGKILL, BATCHGEN_FAILPOINT="received:6")
    name = "lock/batch.json"
    lease = json.loads(batch.store.read(name))
    lease["owner"] |= {"host": "elsewhere", "boot": "elsewhere"}
    batch.store.put(name, json.dumps(lease).encode())
    shown = batch.run(code=None)
    assert "waiting up to 40 s to see whether it is alive" in shown
    assert json.loads(batch.store.read(name))["epoch"] == lease["epoch"] + 1
    states = batch.states()
    assert states.get("uncertain", 0) <= IN_FLIGHT
    assert states["done"] == JOBS - states.get("uncertain", 0)
    assert not batch.stored_responses()
    batch.judge()


def test_lost_head_costs_at_most_what_was_in_flight(
    served: rig.Endpoint, s3: S3Server, tmp_path: Path
) -> None:
    """The next run needs no cluster."""
    with ray_cluster(s3.env, nodes=2) as cluster:
        batch = ClusterBatch.of(tmp_path, served, s3, cluster)
        batch.write(200)
        run = batch.start()
        rig.wait_for(batch.directory, DONE, run)
        os.kill(cluster.head(), signal.SIGKILL)
        run.communicate(timeout=300)
        batch.judge()
    rig.batchgen("run", "batch.yaml", cwd=batch.directory, env=batch.env, code=None)
    states = batch.states()
    assert states.get("uncertain", 0) <= IN_FLIGHT
    assert states["done"] == 200 - states.get("uncertain", 0)
    assert not batch.stored_responses()
    batch.judge()


def test_node_that_leaves_with_notice_costs_nothing(
    s3: S3Server, cluster: RayCluster, tmp_path: Path
) -> None:
    """A spot machine is announced to leave: its actor ends what it has, and gets no more."""
    with rig.endpoint(tmp_path / "endpoint", "--fast-images", "--latency", "1") as slow:
        batch = ClusterBatch.of(tmp_path / "batch", slow, s3, cluster)
        batch.write(LONG)
        log = batch.directory / "run.log"
        run = batch.start("--log-file", str(log))
        rig.wait_for(batch.directory, DONE, run)
        cluster.drain_node()
        while "as its node leaves" not in log.read_text():
            assert run.poll() is None
        billed = _billed(batch)
        while _billed(batch) < billed + 2 * IN_FLIGHT:  # all that it had is over by then
            assert run.poll() is None
        cluster.remove_node()
        shown = "".join(run.communicate(timeout=300))
        assert run.returncode == 0, shown
        assert batch.states() == {"done": LONG}
        batch.judge()
