"""The API key of a run on a cluster is in no object, log or response of Ray's dashboard."""

from __future__ import annotations

import importlib.util
import urllib.error
import urllib.request
from contextlib import suppress
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

HAS_DASHBOARD = importlib.util.find_spec("aiohttp_cors") is not None
"""Whether ray[default] is installed, and not only its core."""
ROUTES = (
    "api/version",
    "api/cluster_status",
    "api/jobs/",
    "api/v0/actors?detail=1",
    "api/v0/jobs?detail=1",
    "api/v0/nodes?detail=1",
    "api/v0/objects?detail=1",
    "api/v0/runtime_envs?detail=1",
    "api/v0/tasks?detail=1",
    "api/v0/workers?detail=1",
    "api/v0/cluster_events",
    "logical/actors",
    "nodes?view=details",
    "nodes?view=summary",
)


def _dashboard(cluster: RayCluster) -> dict[str, bytes]:
    """Return what each route responds that this version of Ray has."""
    found: dict[str, bytes] = {}
    for route in ROUTES:
        with (
            suppress(urllib.error.HTTPError),
            urllib.request.urlopen(f"http://{cluster.dashboard}/{route}", timeout=60) as response,
        ):
            found[route] = response.read()
    return found


def _check(place: str, content: bytes) -> None:
    assert not canary.is_in(content), place


def test_no_object_log_or_dashboard_has_the_key(s3: S3Server, tmp_path: Path) -> None:
    """Also while the run lasts: intents and responses are gone at its end."""
    behavior, sent = Behavior(), list[bytes]()
    behavior.watch = sent.append
    with (
        rig.endpoint(tmp_path / "endpoint", "--latency", "0.5", "--fast-images") as served,
        s3_proxy(s3.endpoint, behavior) as endpoint,
        ray_cluster(s3.env, nodes=2, has_dashboard=HAS_DASHBOARD) as cluster,
    ):
        batch = ClusterBatch.of(tmp_path / "batch", served, s3, cluster)
        photo = batch.directory / "photo.png"
        photo.parent.mkdir()
        rig.image(photo)
        batch.write(60, extra=f"images: [photo.png]\nstorage: {{endpoint: {endpoint!r}}}\n")
        run = batch.start()
        rig.wait_for(batch.directory, "SELECT 1 FROM jobs WHERE state = 'done'", run)
        shown = _dashboard(cluster) if HAS_DASHBOARD else {}
        _check("output", "".join(run.communicate(timeout=300)).encode())
        if HAS_DASHBOARD:
            shown |= {f"{route}, later": text for route, text in _dashboard(cluster).items()}
        batch.judge()
        assert batch.states() == {"done": 60}
        for path in cluster.session.rglob("*"):
            if path.is_file() and not path.is_symlink():
                _check(str(path), path.read_bytes())
    for kind in (".intent", ".response", "spool/references/", "lock/", ".png"):
        assert any(kind.encode() in one for one in sent), kind
    for one in sent:
        _check("a request to the bucket", one)
    if HAS_DASHBOARD:
        assert any(b"ActorProcess" in text for text in shown.values())
    for route, text in shown.items():
        _check(route, text)
