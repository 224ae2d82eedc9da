"""Ways to pay and get nothing: 300 jobs, 32 in flight, and a run that stops after a handful."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests import rig

JOBS: Final = 300
CONCURRENCY: Final = 32
CANARY: Final = 3
USELESS: Final = 5
PROMPTS: Final = [f"a mug, number {number}" for number in range(JOBS)]
LIMITS: Final = f"{{concurrency: {CONCURRENCY}, downloads: 32}}"
QUICK: Final = """
import dataclasses
from batchgen.commands import drive
from batchgen.shutdown import Shutdown
_guard, _throttle, _pause = drive._guard_limits, drive._throttle_limits, Shutdown.pause
drive._guard_limits = lambda *args: dataclasses.replace(
    _guard(*args), probe_every_s=0.05, patience_s=0.5
)
drive._throttle_limits = lambda *args: dataclasses.replace(_throttle(*args), max_throttled_s=2.0)
async def _soon(self, seconds):
    return await _pause(self, seconds / 100)
Shutdown.pause = _soon
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

    @property
    def useless(self) -> int:
        """Paid requests without an image on disk."""
        return self.paid - int(self.found["jobs"]["done"])


def stopped(folder: Path, *switches: str, after: int = 0) -> Spent:
    """Run the batch until the guard stops it; ``after`` requests are without fault."""
    fault_after = ["--fault-after", str(after)] if after else []
    with rig.endpoint(folder / "state", "--fast-pictures", *switches, *fault_after) as served:
        path = rig.manifest(folder, served.base_url, PROMPTS, limits=LIMITS)
        shown = rig.run_changed(QUICK, path, code=3)
        served.wait_until_idle()
        rig.judge(folder, served.bill(), finished=False)
        sent = served.judge("stats")["posts"]
        return Spent(len(served.bill()), sent, rig.status(folder), shown)


NOTHING: Final = {
    "a 200 without data": ("--bill-no-data", "1"),
    "images under a key that nobody reads": ("--bill-unread", "1"),
    "no image in the list": ("--bill-empty", "1"),
    "half an image": ("--bill-truncated", "1", "--answer", "b64_json"),
    "half an image to download": ("--bill-truncated", "1"),
    "a page": ("--bill-page", "1"),
    "downloads: 403": ("--download-forbidden", "1"),
    "downloads: 404": ("--download-gone", "1"),
    "downloads: a page": ("--download-page", "1"),
    "an error inside a 200": ("--bill-inside", "1"),
    "a task that no route knows": ("--bill-task", "1"),
}
ROWS: Final = [
    pytest.param("a 200 without data", marks=pytest.mark.fault("W01", "XA2")),
    pytest.param("images under a key that nobody reads", marks=pytest.mark.fault("W02", "K01")),
    pytest.param("no image in the list", marks=pytest.mark.fault("W02")),
    pytest.param("half an image", marks=pytest.mark.fault("W03")),
    pytest.param("half an image to download", marks=pytest.mark.fault("W03")),
    pytest.param("a page", marks=pytest.mark.fault("W04")),
    pytest.param("downloads: 403", marks=pytest.mark.fault("W05", "XA2")),
    pytest.param("downloads: 404", marks=pytest.mark.fault("W05")),
    pytest.param("downloads: a page", marks=pytest.mark.fault("W05")),
    pytest.param("an error inside a 200", marks=pytest.mark.fault("W06")),
    pytest.param("a task that no route knows", marks=pytest.mark.fault("W09")),
]


@pytest.mark.parametrize("way", ROWS)
def test_canaries_alone_are_paid_without_a_success(way: str, tmp_path: Path) -> None:
    spent = stopped(tmp_path, *NOTHING[way])
    assert spent.paid <= CANARY
    assert spent.found["jobs"]["pending"] >= JOBS - CANARY
    assert "guard: the first 3 paid requests" in spent.found["stopped"]
    assert "guard: the first 3 paid requests" in spent.shown


@pytest.mark.parametrize("way", ROWS)
def test_a_row_without_images_ends_a_run(way: str, tmp_path: Path) -> None:
    spent = stopped(tmp_path, *NOTHING[way], after=1)
    assert spent.found["jobs"]["done"] >= 1
    assert spent.useless <= CONCURRENCY + USELESS
    assert spent.found["jobs"]["pending"] >= JOBS - spent.paid
    assert "brought no image" in spent.found["stopped"]


@pytest.mark.fault("W10")
@pytest.mark.parametrize("after", [0, 1])
def test_urls_that_expire_at_once_end_a_run(after: int, tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "state", "--fast-pictures") as served:
        path = rig.manifest(tmp_path, served.base_url, PROMPTS[: after or JOBS], limits=LIMITS)
        if after:
            rig.batchgen("run", path, cwd=tmp_path)
            rig.manifest(tmp_path, served.base_url, PROMPTS, limits=LIMITS)
        served.judge("faults", {"url-ttl": 1e-9})
        shown = rig.run_changed(QUICK, path, code=3)
        served.wait_until_idle()
        rig.judge(tmp_path, served.bill(), finished=False)
        found = rig.status(tmp_path)
        bound = CONCURRENCY + USELESS if after else CANARY
        assert len(served.bill()) - after <= bound
        assert found["jobs"]["pending"] >= JOBS - after - bound
        assert "404" in found["stopped"] and found["stopped"] in shown


@pytest.mark.fault("W07", "W12")
@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("fault", ["plan-limit", "refuse"])
def test_a_shared_refusal_leaves_all_jobs_pending(fault: str, after: int, tmp_path: Path) -> None:
    spent = stopped(tmp_path, f"--{fault}", "1", after=after)
    assert spent.paid == spent.found["jobs"]["done"] == after
    assert spent.sent <= after + CANARY + CONCURRENCY + USELESS
    assert spent.found["jobs"]["pending"] == JOBS - after, "no job failed for good"
    assert "refused for one reason" in spent.found["stopped"]


@pytest.mark.fault("W08", "XC8", "K12")
@pytest.mark.parametrize("after", [0, 1])
def test_429s_for_ever_end_a_run_and_are_named(after: int, tmp_path: Path) -> None:
    spent = stopped(tmp_path, "--throttle", "1", after=after)
    assert spent.paid == spent.found["jobs"]["done"] == after
    assert spent.found["jobs"]["pending"] == JOBS - after
    assert "without one success" in spent.found["stopped"]
    assert "429" in spent.found["stopped"]


UNWRITABLE: Final = """
import batchgen.delivery
def _refused(path, *, mode):
    raise PermissionError(13, "Permission denied", str(path))
batchgen.delivery.PartFile = _refused
"""


@pytest.mark.fault("W11")
@pytest.mark.parametrize("after", [0, 1])
def test_a_target_that_cannot_be_written_ends_a_run(after: int, tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "state", "--fast-pictures") as served:
        path = rig.manifest(tmp_path, served.base_url, PROMPTS[: after or JOBS], limits=LIMITS)
        if after:
            rig.batchgen("run", path, cwd=tmp_path)
            rig.manifest(tmp_path, served.base_url, PROMPTS, limits=LIMITS)
        rig.run_changed(QUICK + UNWRITABLE, path, code=3)
        served.wait_until_idle()
        rig.judge(tmp_path, served.bill(), finished=False)
        found = rig.status(tmp_path)["jobs"]
        assert 1 <= len(served.bill()) - after <= (CONCURRENCY + USELESS if after else CANARY)
        assert found["pending"] == JOBS - len(served.bill())
        assert found["paid"] == len(served.bill()) - after, "kept for the next run"


def test_stalled_downloads_hold_the_next_requests(tmp_path: Path) -> None:
    with rig.endpoint(
        tmp_path / "state", "--fast-pictures", "--download-stall", "1", "--fault-after", "1"
    ) as served:
        path = rig.manifest(tmp_path, served.base_url, PROMPTS, limits=LIMITS)
        with rig.start("run", path, "--json", cwd=tmp_path) as process:
            for event in rig.events(process):
                if event["event"] == "waiting" and "on their way to disk" in event["waiting_for"]:
                    break
            assert len(served.bill()) <= CONCURRENCY + USELESS + 1
            process.kill()
        rig.judge(tmp_path, served.bill(), finished=False)


@pytest.mark.fault("XA2")
def test_the_run_after_a_guard_stop_begins_with_canaries(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "state", "--fast-pictures") as served:
        path = rig.manifest(tmp_path, served.base_url, PROMPTS[:1], limits=LIMITS)
        rig.batchgen("run", path, cwd=tmp_path)
        rig.manifest(tmp_path, served.base_url, PROMPTS, limits=LIMITS)
        served.judge("faults", {"bill-no-data": 1.0})
        rig.run_changed(QUICK, path, code=3)
        before = len(served.bill())
        rig.run_changed(QUICK, path, code=3)
        assert len(served.bill()) - before <= CANARY
        rig.judge(tmp_path, served.bill(), finished=False)


def test_refusals_for_reasons_of_their_own_stop_nothing(tmp_path: Path) -> None:
    prompts = [
        f"a forbidden-word, {number}" if number % 10 == 9 else f"a mug, {number}"
        for number in range(100)
    ]
    with rig.endpoint(tmp_path / "state", "--fast-pictures") as served:
        path = rig.manifest(tmp_path, served.base_url, prompts, limits=LIMITS)
        rig.batchgen("run", path, cwd=tmp_path, code=1)
        found = rig.status(tmp_path)
        assert found["jobs"]["done"] == 90
        assert found["stopped"] is None
