"""Long tests: ``python -m pytest -n 0 -m sweep tests/extras/test_cluster_sweep.py``."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from batchgen.system.failpoints import Point
from tests.bench.cluster import measured, place
from tests.support import rig
from tests.support.cluster_batch import ClusterBatch
from tests.support.extras import require
from tests.support.ray_cluster import RayCluster, ray_cluster
from tests.support.s3 import S3Server

require("obstore", "moto", "ray")

pytestmark = [pytest.mark.sweep, pytest.mark.timeout(900)]

JOBS = 40
IN_FLIGHT = 8
DRIVER_POINTS = (
    Point.RESERVED,
    Point.RECEIVED,
    Point.PLACING,
    Point.PLACED,
    Point.SAVED,
)
ACTOR_POINTS = (
    Point.INTENT_PUT,
    Point.BODY_SENT,
    Point.RESPONSE_BEGUN,
    Point.RESPONSE_PUT,
    Point.VERIFIED,
    Point.STAGED,
)


@pytest.fixture(scope="module")
def cluster(s3: S3Server) -> Iterator[RayCluster]:
    with ray_cluster(s3.env) as found:
        yield found


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rig.Endpoint]:
    with rig.endpoint(tmp_path_factory.mktemp("endpoint"), "--latency", "0.2") as served:
        yield served


@pytest.fixture
def batch(slow: rig.Endpoint, s3: S3Server, cluster: RayCluster, tmp_path: Path) -> ClusterBatch:
    return ClusterBatch.of(tmp_path, slow, s3, cluster)


def _hurt(batch: ClusterBatch, run: rig.Started, chance: random.Random) -> str:
    """Do some harm to a run at a random moment; return what it was."""
    rig.wait_for(batch.directory, "SELECT 1 FROM attempts", run)
    time.sleep(chance.random() * 1.5)
    what = chance.choice(["actor", "actor", "node", "driver"])
    if what == "node":
        batch.cluster.remove_node()
    elif what == "driver":
        run.kill()
    else:
        with suppress(IndexError, ProcessLookupError):
            os.kill(chance.choice(batch.cluster.actors()), signal.SIGKILL)
    return what


@pytest.mark.parametrize("seed", range(50))
def test_harm_never_pays_twice_or_loses(seed: int, batch: ClusterBatch) -> None:
    """Every third batch has a reference image, every fourth a rate limit."""
    chance = random.Random(seed)
    limits = f"{{concurrency: {IN_FLIGHT}, max_waste: 0"
    if seed % 4 == 3:
        limits += ", requests_per_minute: 1200"
    extra = ""
    if seed % 3 == 0:
        rig.image(batch.directory / "photo.png")
        extra = "images: [photo.png]\n"
    batch.write(JOBS, limits=f"{limits}}}", extra=extra)
    harmed = []
    if seed % 2:
        env = {}
        if chance.random() < 0.5:
            env["BATCHGEN_FAILPOINT"] = f"{chance.choice(DRIVER_POINTS)}:{chance.randint(1, 20)}"
        else:
            point = f"{chance.choice(ACTOR_POINTS)}:{chance.randint(1, 8)}"
            env["BATCHGEN_ACTOR_FAILPOINT"] = point
        harmed.append(str(env))
        batch.run(code=None, **env)
    else:
        run = batch.start()
        harmed.append(_hurt(batch, run, chance))
        run.communicate(timeout=300)
    batch.run(code=None)
    assert not list(batch.store.list("spool/references/"))
    states = batch.states()
    shown = f"seed {seed}: {harmed}: {states}"
    print(shown)
    assert states.get("uncertain", 0) <= IN_FLIGHT, shown
    assert sum(states.values()) == states.get("uncertain", 0) + states["done"] == JOBS, shown
    batch.judge()
    assert not batch.stored_responses(), f"{shown}: a stored response was not used"


def test_driver_without_its_lease_gives_no_more_orders(batch: ClusterBatch) -> None:
    batch.write(2_000)
    run = batch.start()
    rig.wait_for(batch.directory, "SELECT 1 FROM jobs WHERE state = 'done'", run)
    lease = json.loads(batch.store.read("lock/batch.json"))
    taken = {**lease, "token": "another driver", "epoch": lease["epoch"] + 1}
    batch.store.put("lock/batch.json", json.dumps(taken).encode())
    shown = "".join(run.communicate(timeout=300))
    assert run.returncode == 3
    assert "lease" in shown
    assert set(batch.states()) <= {"done", "paid", "pending"}
    batch.judge()


def test_strict_rate_limit_loses_no_job(s3: S3Server, cluster: RayCluster, tmp_path: Path) -> None:
    """600 requests a minute, evenly spaced; prints how many came too early."""
    switches = ("--rate", "600", "--burst", "1", "--latency", "0.1")
    with rig.endpoint(tmp_path / "endpoint", *switches) as served:
        batch = ClusterBatch.of(tmp_path / "batch", served, s3, cluster)
        batch.write(300, limits="{concurrency: 32, max_waste: 0, requests_per_minute: 600}")
        batch.run()
        row = rig.query(
            batch.directory / "batchgen.db",
            "SELECT sum(outcome = 'throttled') AS refused, count(*) AS n,"
            " (julianday(max(started_at)) - julianday(min(started_at))) * 86400 AS seconds"
            " FROM attempts",
        )[0]
        print(f"{row['refused']} of {row['n']} refused, {row['n'] / row['seconds'] * 60:.0f}/min")
        batch.judge()
        # How many depends on the machine; a refusal is free and widens the gap.
        assert batch.states() == {"done": 300}


def test_two_thousand_jobs_cost_once_in_flat_memory(tmp_path: Path) -> None:
    """The driver needs for 2,000 jobs what it needs for 500; three nodes and a cheap bucket."""
    peaks = []
    with place(tmp_path, 0.1, quick=True) as here:
        for jobs in (500, 2_000):
            batch = here.batch(f"flat-{jobs}", jobs)
            peaks.append(measured(here, batch, batch.arguments()).rss_mb)
            assert batch.states() == {"done": jobs}
            assert len(here.served.bill()) - batch.before == jobs
            assert batch.left_over() == []
            batch.judge()
    print(f"peaks: {peaks[0]:.0f} and {peaks[1]:.0f} MB")
    assert peaks[1] - peaks[0] < 15
