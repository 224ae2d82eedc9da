"""The recipes of README.md, run as they are written where that can be done here."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import rig
from tests.support.readme import block_after, copy_examples

SHOP = "/srv/shop"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A shop's directory with a catalogue that costs nothing, and batchgen where recipes look."""
    copy_examples(tmp_path)
    (tmp_path / "jobs" / "demo.yaml").rename(tmp_path / "catalog.yaml")
    (tmp_path / "jobs" / "demo-products.csv").rename(tmp_path / "demo-products.csv")
    command = tmp_path / ".venv" / "bin" / "batchgen"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m batchgen "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    return tmp_path


def run_like_cron(command: str, shop: Path) -> subprocess.CompletedProcess[str]:
    """In the poor environment that cron gives."""
    return subprocess.run(
        ["/bin/sh", "-c", command.replace(SHOP, str(shop))],
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "HOME": str(shop), "SHELL": "/bin/sh"},
        capture_output=True,
        text=True,
        timeout=rig.TIMEOUT_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_the_cron_line_makes_the_images_and_says_nothing(shop: Path) -> None:
    line = block_after("recipe: cron").strip()
    assert line.split()[:5] == ["0", "2", "*", "*", "*"]
    command = line.split(maxsplit=5)[5]
    done = run_like_cron(command, shop)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert rig.status(shop, "demo")["jobs"]["done"] == 8


def test_the_service_runs_what_cron_runs_and_waits_longer_than_a_request() -> None:
    service = dict(
        line.split("=", 1) for line in block_after("recipe: service").splitlines() if "=" in line
    )
    cron = block_after("recipe: cron").strip().split("&& ", 1)[1]
    assert service["ExecStart"] == f"{SHOP}/{cron}"
    assert int(service["TimeoutStopSec"]) > 300


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_units(shop: Path) -> None:
    units = []
    for kind in ("service", "timer"):
        unit = shop / f"batchgen.{kind}"
        text = block_after(f"recipe: {kind}").replace(SHOP, str(shop))
        unit.write_text(text, encoding="utf-8")
        units.append(unit)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units],
        capture_output=True,
        text=True,
        timeout=rig.TIMEOUT_S,
        check=False,
    )
    about_ours = [line for line in done.stderr.splitlines() if "batchgen" in line]
    assert about_ours == []


def test_the_workflow_never_cuts_a_run_off() -> None:
    workflow: dict[Any, Any] = yaml.safe_load(block_after("recipe: actions"))
    assert workflow["concurrency"]["cancel-in-progress"] is False
    steps = workflow["jobs"]["images"]["steps"]
    (command,) = [step["run"] for step in steps if step.get("run", "").startswith("batchgen")]
    assert command.split()[:3] == ["batchgen", "run", "catalog.yaml"]


def test_the_container_runs_what_cron_runs() -> None:
    image = block_after("recipe: container")
    for word in ("run", "catalog.yaml", "--quiet", "--yes"):
        assert f'"{word}"' in image
