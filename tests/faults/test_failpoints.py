"""Killed at every named point of the protocol, a batch is finished without loss or repeat."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchgen.system.failpoints import Point
from tests.faults import judge
from tests.faults.station import Station, station
from tests.support import rig

AT_MIGRATION = {Point.BACKED_UP, Point.MIGRATED}
"""Shown in tests/unit/ledger/test_database.py, where there are ledgers of an older schema."""
AT_PLACES = {Point.KEPT, Point.MOVED, Point.BLOCKER_MOVED}
"""Shown in tests/runs/test_placing.py and test_relocate.py, with older images."""
AT_SHARING = {Point.COPYING}
"""Reached with `share: true`; tests/runs/test_sharing.py kills there."""
AT_PUBLISHING = {Point.PUBLISHING, Point.NAMED, Point.PUBLISHED}
"""Reached with `publish: on_accept`; tests/review/test_publishing.py and
tests/extras/test_bucket_publishing.py kill there."""
ON_A_CLUSTER = {Point.INTENT_PUT, Point.RESPONSE_PUT, Point.VERIFIED, Point.STAGED}
"""Reached by the actors of `--on ray`; tests/extras/test_cluster.py kills there."""
ONLY_IN_SPOOL = {Point.SPOOLED}
"""A small response without an inline image is never on disk before it is in the ledger."""
AT_RECOVERY = {Point.RECOVERING, Point.RECOVERED}
BEFORE_A_RESPONSE = {
    Point.LEDGER_MADE,
    Point.APPROVED,
    Point.ENROLLED,
    Point.RESERVED,
    Point.BODY_SENT,
}


def _responses(point: Point) -> tuple[str, ...]:
    if point in BEFORE_A_RESPONSE:
        return ("url",)
    return ("b64_json",) if point in ONLY_IN_SPOOL else ("url", "b64_json")


ALL = [
    pytest.param(response, point, id=f"{point}-{response}")
    for point in Point
    if point not in AT_MIGRATION | AT_PLACES | AT_SHARING | AT_PUBLISHING | ON_A_CLUSTER
    for response in _responses(point)
]


@pytest.fixture(scope="module")
def runs() -> Iterator[Station]:
    with station() as started:
        yield started


@pytest.mark.fault("P07")
@pytest.mark.parametrize(("response", "point"), ALL)
def test_a_run_killed_at_a_point_is_finished_by_the_next(
    response: str, point: Point, served: rig.Endpoint, runs: Station, tmp_path: Path
) -> None:
    served.judge("faults", {"response": response})
    path = rig.manifest(
        tmp_path,
        served.base_url,
        ["one", "two", "three"],
        limits='{concurrency: 2, max_waste: "100%"}',
    )
    before = len(served.bill())

    def kill(point: Point, times: int) -> None:
        ended = runs.run("run", path, cwd=tmp_path, env={"BATCHGEN_FAILPOINT": f"{point}:{times}"})
        assert ended.end.code == -signal.SIGKILL, f"{point} is not on the way: {ended.output}"
        served.wait_until_idle()
        assert judge.dead(tmp_path, served.bill()[before:]) == []
        assert judge.open_attempts(tmp_path) <= 2

    if point in AT_RECOVERY:
        kill(Point.BODY_SENT, 2)
    kill(point, 1 if point in BEFORE_A_RESPONSE | AT_RECOVERY else 2)
    open_before = judge.open_attempts(tmp_path)

    done = runs.run("run", path, cwd=tmp_path)
    assert done.end.code == 0, done.output
    assert judge.final(tmp_path, served.bill()[before:]) == []
    assert judge.open_attempts(tmp_path) <= open_before
    posts, rows = served.judge("stats")["posts"], judge.rows(tmp_path)
    assert runs.run("resume", "batch", cwd=tmp_path).end.code == 0
    assert served.judge("stats")["posts"] == posts, "a run with nothing to do sent something"
    assert judge.rows(tmp_path) == rows, "a run with nothing to do wrote something"


@pytest.mark.fault("D17")
def test_spool_file_left_after_the_last_image_is_removed(
    served: rig.Endpoint, runs: Station, tmp_path: Path
) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["one"])
    killed = runs.run("run", path, cwd=tmp_path, env={"BATCHGEN_FAILPOINT": Point.SAVED})
    assert killed.end.code == -signal.SIGKILL
    assert rig.spooled(tmp_path) != []
    assert runs.run("run", path, cwd=tmp_path).end.code == 0
    assert rig.spooled(tmp_path) == []


@pytest.mark.parametrize("text", ["nowhere", "spooled:0", "spooled:often"])
def test_a_point_that_does_not_exist_is_refused(text: str, runs: Station, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, "http://127.0.0.1:9/v1", ["a"])
    refused = runs.run("run", path, cwd=tmp_path, env={"BATCHGEN_FAILPOINT": text})
    assert refused.end.code == 2
    assert "BATCHGEN_FAILPOINT" in refused.output
