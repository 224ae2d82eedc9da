"""Runs on a real Ray cluster of three nodes, with a real S3 server and an endpoint with a bill."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
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

JOBS = 24
IN_FLIGHT = 8


@pytest.fixture(scope="module")
def cluster(s3: S3Server) -> Iterator[RayCluster]:
    """Three nodes for all tests of the module."""
    with ray_cluster(s3.env) as found:
        yield found


@pytest.fixture
def batch(served: rig.Endpoint, s3: S3Server, cluster: RayCluster, tmp_path: Path) -> ClusterBatch:
    return ClusterBatch.of(tmp_path, served, s3, cluster)


def test_cluster_pays_once_and_keeps_the_key_to_itself(batch: ClusterBatch) -> None:
    batch.write(60)
    assert "3 actors on 3 nodes ready" in batch.run()
    assert batch.states() == {"done": 60}
    batch.judge()
    assert len(batch.served.bill()) - batch.before == 60
    assert batch.left_over() == []
    assert list(batch.cluster.scratch.iterdir()) == []
    assert "nothing sent" in batch.run()
    assert len(batch.served.bill()) - batch.before == 60
    for one in batch.store.list():
        assert not canary.is_in(batch.store.read(one.name)), one.name
    for path in batch.cluster.session.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert not canary.is_in(path.read_bytes()), path


def test_replaced_inline_images_keep_their_versions(
    s3: S3Server, cluster: RayCluster, tmp_path: Path
) -> None:
    with rig.endpoint(tmp_path / "endpoint", "--response", "b64_json") as served:
        batch = ClusterBatch.of(tmp_path / "batch", served, s3, cluster)
        photo = tmp_path / "batch" / "photo.png"
        photo.parent.mkdir()
        rig.image(photo)
        same = {"output": ", sidecar: true, metadata: true", "extra": "images: [photo.png]\n"}
        batch.write(6, **same)
        batch.run()
        first = batch.store.read("job-000.png")
        batch.write(6, prompt="a cup", **same)
        batch.run()
        batch.judge()
        assert batch.store.read(".previous/job-000.png~1") == first
        assert json.loads(batch.store.read("job-000.json"))["prompt"] == "a cup, number 0"
        assert b"a cup, number 0" in batch.store.read("job-000.png")
        assert batch.left_over() == []
        assert len(served.bill()) == 12


def test_object_of_another_program_stays_and_nothing_is_paid(batch: ClusterBatch) -> None:
    """An actor finds it before it sends; not for an image of the job itself."""
    batch.write(6)
    batch.store.put("job-002.png", b"of another program")
    batch.run(code=1)
    assert batch.states() == {"done": 5, "failed": 1}
    assert batch.store.read("job-002.png") == b"of another program"
    assert len(batch.served.bill()) - batch.before == 5
    batch.store.delete("job-002.png")
    first = batch.store.read("job-001.png")
    batch.write(6, prompt="a cup")
    batch.run()
    assert batch.states() == {"done": 6}
    assert batch.store.read(".previous/job-001.png~1") == first
    rows = rig.query(batch.directory / "batchgen.db", "SELECT outcome FROM attempts")
    assert [row["outcome"] for row in rows].count("ok") == 11
    assert len(rows) == 12, "only the object of the other program costs an attempt"
    batch.judge()


POINTS = ("intent-put", "body-sent", "response-put", "verified", "staged")


@pytest.mark.parametrize("point", POINTS)
def test_lost_actor_is_neither_paid_twice_nor_ignored(point: str, batch: ClusterBatch) -> None:
    batch.write(JOBS)
    shown = batch.run(code=None, BATCHGEN_ACTOR_FAILPOINT=f"{point}:3")
    assert "an actor of the cluster is lost" in shown
    states = batch.states()
    assert states.get("uncertain", 0) <= IN_FLIGHT
    assert sum(states.values()) == states.get("uncertain", 0) + states["done"] == JOBS
    batch.judge()
    assert not batch.stored_responses()


def test_actor_lost_before_its_timed_order_leaves_jobs_certain(batch: ClusterBatch) -> None:
    """At an even rate the intent is put first, and the order to send follows at its time."""
    batch.write(8, limits="{concurrency: 1, max_waste: 0, requests_per_minute: 600}")
    shown = batch.run(BATCHGEN_ACTOR_FAILPOINT="intent-put:3")
    assert "an actor of the cluster is lost" in shown
    assert batch.states() == {"done": 8}
    batch.judge()


def test_killed_driver_finds_the_stored_responses(batch: ClusterBatch) -> None:
    batch.write(JOBS)
    batch.run(code=-signal.SIGKILL, BATCHGEN_FAILPOINT="received:6")
    batch.run(code=None)
    states = batch.states()
    assert states.get("uncertain", 0) <= IN_FLIGHT
    assert sum(states.values()) == states.get("uncertain", 0) + states["done"] == JOBS
    batch.judge()


def test_run_in_one_process_follows_one_on_a_cluster(batch: ClusterBatch) -> None:
    batch.write(JOBS)
    batch.run(code=-signal.SIGKILL, BATCHGEN_FAILPOINT="received:6")
    rig.batchgen("run", "batch.yaml", cwd=batch.directory, env=batch.env, code=None)
    assert batch.states()["done"] >= JOBS - IN_FLIGHT
    batch.judge()


def test_removed_node_costs_at_most_its_orders(batch: ClusterBatch) -> None:
    batch.write(JOBS)
    run = batch.start()
    rig.wait_for(batch.directory, "SELECT 1 FROM jobs WHERE state = 'done'", run)
    batch.cluster.remove_node()
    shown = "".join(run.communicate(timeout=300))
    assert "raylet" not in shown
    states = batch.states()
    assert states.get("uncertain", 0) <= IN_FLIGHT
    assert sum(states.values()) == states.get("uncertain", 0) + states["done"] == JOBS
    batch.judge()


def test_response_of_a_stopped_actor_is_collected_later(
    s3: S3Server, cluster: RayCluster, tmp_path: Path
) -> None:
    with rig.endpoint(tmp_path / "endpoint", "--latency", "1") as served:
        batch = ClusterBatch.of(tmp_path / "batch", served, s3, cluster)
        batch.write(JOBS)
        run = batch.start()
        rig.wait_for(batch.directory, "SELECT 1 FROM jobs WHERE state = 'done' LIMIT 1", run)
        stopped = batch.cluster.actors()[0]
        os.kill(stopped, signal.SIGSTOP)
        try:
            run.communicate(timeout=300)
            before = batch.states()
            assert before.get("uncertain", 0) <= IN_FLIGHT
            assert before["done"] == JOBS - before.get("uncertain", 0)
            images = {one.name: one.e_tag for one in batch.store.list("job-")}
        finally:
            os.kill(stopped, signal.SIGCONT)
        batch.run(code=None)
        # Ray may end the actor of a driver that is gone before it stores what it holds.
        assert batch.states()["done"] >= before["done"]
        assert not batch.stored_responses()
        assert images.items() <= {one.name: one.e_tag for one in batch.store.list("job-")}.items()
        batch.judge()


REFUSED = {
    "ray://": "not a cluster",
    "dask": "not a cluster",
    "ray=127.0.0.1:9": "no connection",
}


@pytest.mark.parametrize("place", sorted(REFUSED))
def test_unusable_cluster_is_refused_before_the_money(place: str, batch: ClusterBatch) -> None:
    batch.write(2)
    done = rig.batchgen(
        *("run", "batch.yaml", "--on", place), cwd=batch.directory, env=batch.env, code=2
    )
    assert REFUSED[place] in done.stderr
    assert not (batch.directory / "batchgen.db").exists()


def test_budget_holds_when_an_actor_is_lost(batch: ClusterBatch) -> None:
    """26 images cost $0.98. What the actor was sending may be charged, and is not rebought."""
    batch.write(26, limits="{concurrency: 26, max_waste: 1.00, max_cost: 1.00}")
    assert "budget" in batch.run(code=3, BATCHGEN_ACTOR_FAILPOINT="response-begun:3")
    batch.judge()
    assert not {"paid", "sending"} & set(batch.states())
    rows = rig.query(batch.directory / "batchgen.db", "SELECT charged + maybe AS spent FROM runs")
    assert sum(row["spent"] for row in rows) <= 1_000_000
    assert sum(row["micros"] for row in batch.served.bill()[batch.before :]) <= 1_000_000


def test_second_driver_is_refused_while_the_first_runs(batch: ClusterBatch) -> None:
    batch.write(400)
    run = batch.start()
    rig.wait_for(batch.directory, "SELECT 1 FROM jobs WHERE state = 'done'", run)
    elsewhere = replace(batch, directory=batch.directory / "elsewhere")
    elsewhere.write(400)
    assert "is being run by" in elsewhere.run(code=75)
    run.communicate(timeout=300)
    assert batch.states() == {"done": 400}
    batch.judge()


def test_cluster_needs_a_bucket(batch: ClusterBatch) -> None:
    rig.manifest(batch.directory, batch.served.base_url, ["one"])
    assert "needs an output directory that every node can reach" in batch.run(code=2)
    assert not (batch.directory / "batchgen.db").exists()


def test_store_without_conditions_is_refused(batch: ClusterBatch) -> None:
    batch.write(2)
    behavior = Behavior(drop_conditions=True)
    with s3_proxy(batch.env["AWS_ENDPOINT_URL"], behavior) as endpoint:
        shown = batch.run(code=2, AWS_ENDPOINT_URL=endpoint)
    assert "ignores conditional writes" in shown
    assert not (batch.directory / "batchgen.db").exists()


def test_response_that_cannot_be_read_is_not_rebought(batch: ClusterBatch) -> None:
    """The credentials of the driver expire, and an actor is lost that has stored a response."""
    batch.write(JOBS, limits=f"{{concurrency: {IN_FLIGHT}, max_waste: 0.5}}")
    behavior = Behavior(refuse_gets=True, only=".response")
    with s3_proxy(batch.env["AWS_ENDPOINT_URL"], behavior) as endpoint:
        point = "response-put:3"
        shown = batch.run(code=3, AWS_ENDPOINT_URL=endpoint, BATCHGEN_ACTOR_FAILPOINT=point)
    assert "access refused" in shown
    lost = batch.stored_responses()
    assert lost
    batch.run()
    assert batch.states() == {"done": JOBS}
    batch.judge()
    rows = rig.query(batch.directory / "batchgen.db", "SELECT id, outcome FROM attempts")
    ended = {row["id"]: row["outcome"] for row in rows}
    assert {ended[name.rpartition("/")[2].partition(".")[0]] for name in lost} == {"ok"}
    assert len(batch.served.bill()) - batch.before <= JOBS + IN_FLIGHT - len(lost)
