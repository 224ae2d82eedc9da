"""A cluster whose driver loses its machine, and whose ledger is backed up in a bucket."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from tests.support import rig
from tests.support.cluster_batch import ClusterBatch
from tests.support.extras import require
from tests.support.ray_cluster import ray_cluster
from tests.support.s3 import S3Server

require("obstore", "moto", "ray")

pytestmark = [pytest.mark.xdist_group("cluster"), pytest.mark.timeout(600)]

JOBS = 24
IN_FLIGHT = 8


def test_lost_driver_is_rebuilt_from_the_bucket(
    served: rig.Endpoint, s3: S3Server, tmp_path: Path
) -> None:
    with ray_cluster(s3.env) as cluster:
        batch = ClusterBatch.of(tmp_path / "a", served, s3, cluster)
        url = batch.root.replace("/out", "/state")
        batch.write(JOBS)
        batch.run("--db", url, code=-signal.SIGKILL, BATCHGEN_FAILPOINT="received:6")
        shutil.rmtree(batch.directory)
        batch.directory = tmp_path / "b"
        batch.write(JOBS)
        shown = batch.run("--db", url, code=None)
        assert "was restored from" in shown
        assert "again, sent after the backup" in shown
        states = batch.states()
        assert states.get("uncertain", 0) <= IN_FLIGHT
        assert states["done"] + states.get("uncertain", 0) == JOBS
        batch.judge()
        if "uncertain" not in states:
            assert batch.left_over() == []
