"""Ways to pay and get nothing: 300 jobs, 32 in flight, and a run that stops after a handful."""

from __future__ import annotations

import subprocess
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
