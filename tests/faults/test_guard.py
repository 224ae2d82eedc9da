"""Ways to pay and get nothing: 300 jobs, 32 in flight, and a run that stops after a handful."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support import rig

JOBS: Final = 300
CONCURRENCY: Final = 32
CANARY: Final = 3
USELESS: Final = 5
PROMPTS: Final = [f"a mug, number {number}" for number in range(JOBS)]
LIMITS: Final = f"{{concurrency: {CONCURRENCY}, downloads: 32}}"
QUICK: Final = """
import dataclasses
from batchgen.engine.throttle import rules
from batchgen.session import run_limits
from batchgen.system.shutdown import Shutdown
_guard, _throttle, _pause = run_limits._guard_limits, run_limits._throttle_limits, Shutdown.pause
run_limits._guard_limits = lambda *args: dataclasses.replace(
    _guard(*args), probe_every_s=0.05, patience_s=0.5
)
run_limits._throttle_limits = lambda *args: dataclasses.replace(
    _throttle(*args), max_throttled_s=2.0
)
async def _soon(self, seconds):
    return await _pause(self, seconds / 100)
Shutdown.pause = _soon
rules._BREAKER_EVERY_S = 0.05
"""
"""Lines of Python that shorten a run's waits; its rules stay as they are."""


@dataclass(frozen=True)
class Spent:
    """What a stopped run has cost, by the endpoint's bill."""

    paid: int
    """Requests on the bill."""
    sent: int
    found: dict[str, Any]
    """``status --json``."""
    shown: str


def stopped(directory: Path, *switches: str, after: int = 0) -> Spent:
    """Run the batch until the guard stops it; ``after`` requests are without fault."""
    fault_after = ["--fault-after", str(after)] if after else []
    with rig.endpoint(directory / "state", "--fast-images", *switches, *fault_after) as served:
        path = rig.manifest(directory, served.base_url, PROMPTS, limits=LIMITS, canaries=None)
        shown = rig.run_changed(QUICK, path, code=3)
        served.wait_until_idle()
        rig.judge(directory, served.bill(), finished=False)
        sent = served.judge("stats")["posts"]
        return Spent(len(served.bill()), sent, rig.status(directory), shown)


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize(
    "switches",
    [
        pytest.param(
            ["--bill-no-data", "1"], marks=pytest.mark.fault("W01"), id="a 200 without data"
        ),
        pytest.param(
            ["--bill-unread", "1"],
            marks=pytest.mark.fault("W02", "K01"),
            id="images under an unknown key",
        ),
        pytest.param(
            ["--bill-empty", "1"], marks=pytest.mark.fault("W02"), id="no image in the list"
        ),
        pytest.param(
            ["--bill-truncated", "1", "--response", "b64_json"],
            marks=pytest.mark.fault("W03"),
            id="half an image",
        ),
        pytest.param(
            ["--bill-truncated", "1"],
            marks=pytest.mark.fault("W03"),
            id="half an image to download",
        ),
        pytest.param(["--bill-page", "1"], marks=pytest.mark.fault("W04"), id="a page"),
        pytest.param(
            ["--download-forbid", "1"],
            marks=pytest.mark.fault("W05", "XA2"),
            id="downloads with 403",
        ),
        pytest.param(
            ["--download-miss", "1"], marks=pytest.mark.fault("W05"), id="downloads with 404"
        ),
        pytest.param(
            ["--download-html", "1"], marks=pytest.mark.fault("W05"), id="downloads of a page"
        ),
        pytest.param(
            ["--bill-inside", "1"], marks=pytest.mark.fault("W06"), id="an error inside a 200"
        ),
        pytest.param(
            ["--bill-task", "1"], marks=pytest.mark.fault("W09"), id="a task that no route knows"
        ),
    ],
)
def test_a_run_without_images_stops_after_a_handful(
    switches: list[str], after: int, tmp_path: Path
) -> None:
    spent = stopped(tmp_path, *switches, after=after)
    jobs, reason = spent.found["jobs"], spent.found["stopped"]
    assert jobs["done"] >= after
    assert spent.paid - jobs["done"] <= (CONCURRENCY + USELESS if after else CANARY)
    assert jobs["pending"] >= JOBS - spent.paid
    assert reason.startswith(("guard: ", "breaker: "))
    assert "returned no image" in reason or "without a trustworthy response" in reason
    assert reason in spent.shown


@pytest.mark.fault("W10")
@pytest.mark.parametrize("after", [0, 1])
def test_urls_that_expire_at_once_end_a_run(after: int, tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "state", "--fast-images") as served:
        path = rig.manifest(
            tmp_path, served.base_url, PROMPTS[: after or JOBS], limits=LIMITS, canaries=None
        )
        if after:
            rig.batchgen("run", path, cwd=tmp_path)
            rig.manifest(tmp_path, served.base_url, PROMPTS, limits=LIMITS, canaries=None)
        served.judge("faults", {"url-ttl": 1e-9})
        shown = rig.run_changed(QUICK, path, code=3)
        served.wait_until_idle()
        rig.judge(tmp_path, served.bill(), finished=False)
        found = rig.status(tmp_path)
        bound = CONCURRENCY + USELESS if after else CANARY
        assert len(served.bill()) - after <= bound
        assert found["jobs"]["pending"] >= JOBS - after - bound
        assert "404" in found["stopped"]
        assert found["stopped"] in shown


@pytest.mark.fault("W07", "W12")
@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("fault", ["plan-limit", "refuse"])
def test_a_shared_refusal_leaves_all_jobs_pending(fault: str, after: int, tmp_path: Path) -> None:
    spent = stopped(tmp_path, f"--{fault}", "1", after=after)
    assert spent.paid == spent.found["jobs"]["done"] == after
    assert spent.sent <= after + CANARY + CONCURRENCY + USELESS
    assert spent.found["jobs"]["pending"] == JOBS - after, "no job failed for good"
    assert "refused for the same reason" in spent.found["stopped"]


@pytest.mark.fault("W08", "XC8", "K12")
@pytest.mark.parametrize("after", [0, 1])
def test_endless_429s_end_a_run_and_are_named(after: int, tmp_path: Path) -> None:
    spent = stopped(tmp_path, "--throttle", "1", after=after)
    assert spent.paid == spent.found["jobs"]["done"] == after
    assert spent.found["jobs"]["pending"] == JOBS - after
    assert "without one success" in spent.found["stopped"]
    assert "429" in spent.found["stopped"]


UNWRITABLE: Final = """
import batchgen.engine.local_executor
assert batchgen.engine.local_executor.PartFile
def _refused(path, **options):
    raise PermissionError(13, "Permission denied", str(path))
batchgen.engine.local_executor.PartFile = _refused
"""


@pytest.mark.fault("W11")
@pytest.mark.parametrize("after", [0, 1])
def test_a_target_that_cannot_be_written_ends_a_run(after: int, tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "state", "--fast-images") as served:
        path = rig.manifest(
            tmp_path, served.base_url, PROMPTS[: after or JOBS], limits=LIMITS, canaries=None
        )
        if after:
            rig.batchgen("run", path, cwd=tmp_path)
            rig.manifest(tmp_path, served.base_url, PROMPTS, limits=LIMITS, canaries=None)
        rig.run_changed(QUICK + UNWRITABLE, path, code=3)
        served.wait_until_idle()
        rig.judge(tmp_path, served.bill(), finished=False)
        found = rig.status(tmp_path)["jobs"]
        assert 1 <= len(served.bill()) - after <= (CONCURRENCY + USELESS if after else CANARY)
        assert found["pending"] == JOBS - len(served.bill())
        assert found["paid"] == len(served.bill()) - after, "kept for the next run"


def test_stalled_downloads_hold_the_next_requests(tmp_path: Path) -> None:
    with rig.endpoint(
        tmp_path / "state", "--fast-images", "--download-stall", "1", "--fault-after", "1"
    ) as served:
        path = rig.manifest(tmp_path, served.base_url, PROMPTS, limits=LIMITS, canaries=None)
        with rig.start("run", path, "--json", cwd=tmp_path) as process:
            for event in rig.events(process):
                if "being delivered" in str(event.get("waiting_for")):
                    break
            assert len(served.bill()) <= CONCURRENCY + USELESS + 1
            process.kill()
        rig.judge(tmp_path, served.bill(), finished=False)


@pytest.mark.fault("XA2")
def test_the_run_after_a_guard_stop_begins_with_canaries(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "state", "--fast-images") as served:
        path = rig.manifest(tmp_path, served.base_url, PROMPTS[:1], limits=LIMITS, canaries=None)
        rig.batchgen("run", path, cwd=tmp_path)
        rig.manifest(tmp_path, served.base_url, PROMPTS, limits=LIMITS, canaries=None)
        served.judge("faults", {"bill-no-data": 1.0})
        rig.run_changed(QUICK, path, code=3)
        before = len(served.bill())
        rig.run_changed(QUICK, path, code=3)
        assert len(served.bill()) - before <= CANARY
        for command in ("status", "report"):
            shown = rig.batchgen(command, "batch", cwd=tmp_path, code=None).stdout
            assert "guard: the first 3 paid requests for gpt-image-2 at local" in shown
            assert "then run again" in shown, "what to do is not cut off"
        rig.judge(tmp_path, served.bill(), finished=False)


def test_refusals_for_reasons_of_their_own_stop_nothing(tmp_path: Path) -> None:
    prompts = [
        f"a forbidden-word, {number}" if number % 10 == 9 else f"a mug, {number}"
        for number in range(100)
    ]
    with rig.endpoint(tmp_path / "state", "--fast-images") as served:
        path = rig.manifest(tmp_path, served.base_url, prompts, limits=LIMITS, canaries=None)
        rig.batchgen("run", path, cwd=tmp_path, code=1)
        found = rig.status(tmp_path)
        assert found["jobs"]["done"] == 90
        assert found["stopped"] is None


@pytest.mark.fault("XA2")
def test_downloads_hold_up_requests_for_download_wait(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "state", "--fast-images", "--download-forbid", "1") as served:
        limits = f"{{concurrency: {CONCURRENCY}, download_wait: 2}}"
        path = rig.manifest(tmp_path, served.base_url, PROMPTS, limits=limits, canaries=None)
        rig.batchgen("run", path, cwd=tmp_path, code=3)
        rig.judge(tmp_path, served.bill(), finished=False)
        found = rig.status(tmp_path)
        assert found["jobs"]["paid"] == len(served.bill()) == CANARY
        assert found["stopped"].startswith("guard: the first 3 paid requests")
