"""The recipes of the guide, run as they are written as far as possible here."""

from __future__ import annotations

import shutil
import subprocess
import sys
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import rig
from tests.support.pages import block_after, copy_examples

SHOP = "/srv/shop"


def recipe(name: str) -> str:
    """Return the code block of a recipe."""
    return block_after(f"recipe: {name}", "recipes")


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Return a project directory with a free manifest and batchgen in its .venv."""
    copy_examples(tmp_path)
    (tmp_path / "jobs" / "demo.yaml").rename(tmp_path / "catalog.yaml")
    (tmp_path / "jobs" / "demo-products.csv").rename(tmp_path / "demo-products.csv")
    command = tmp_path / ".venv" / "bin" / "batchgen"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m batchgen "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    return tmp_path


def run_like_cron(command: str, shop: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in the minimal environment of cron."""
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


def test_cron_line_makes_the_images_silently(shop: Path) -> None:
    line = recipe("cron").strip()
    assert line.split()[:5] == ["0", "2", "*", "*", "*"]
    assert line == block_after("cron").strip()
    command = line.split(maxsplit=5)[5]
    done = run_like_cron(command, shop)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert rig.status(shop, "demo")["jobs"]["done"] == 8


def test_mail_has_the_report_as_html(shop: Path) -> None:
    (shop / "catalog.yaml").write_text("provider: local\njobs: [A mug]\n", encoding="utf-8")
    rig.batchgen("run", "catalog.yaml", cwd=shop)
    sendmail = shop / "sendmail"
    sendmail.write_text(f"#!/bin/sh\ncat > '{shop}/sent'\n", encoding="utf-8")
    sendmail.chmod(0o755)
    done = run_like_cron(recipe("mail").replace("/usr/sbin/sendmail", str(sendmail)), shop)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    mail = message_from_bytes((shop / "sent").read_bytes(), policy=default)
    assert mail["Subject"] == "Images of last night"
    assert mail.get_content_type() == "text/html"
    body = mail.get_content()
    assert "All jobs are done" in body
    assert body.count("data:image/jpeg;base64,") == 1
    assert mail.defects == []


def test_service_runs_the_cron_command_and_waits_for_requests() -> None:
    service = dict(line.split("=", 1) for line in recipe("service").splitlines() if "=" in line)
    cron = recipe("cron").strip().split("&& ", 1)[1]
    assert service["ExecStart"] == f"{SHOP}/{cron}"
    assert int(service["TimeoutStopSec"]) > 300


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_accepts_the_units(shop: Path) -> None:
    units = []
    for kind in ("service", "timer"):
        unit = shop / f"batchgen.{kind}"
        text = recipe(kind).replace(SHOP, str(shop))
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


def test_workflow_never_cancels_a_run() -> None:
    workflow: dict[Any, Any] = yaml.safe_load(recipe("actions"))
    assert workflow["concurrency"]["cancel-in-progress"] is False
    steps = workflow["jobs"]["images"]["steps"]
    (command,) = [step["run"] for step in steps if step.get("run", "").startswith("batchgen")]
    assert command.split()[:3] == ["batchgen", "run", "catalog.yaml"]


def test_container_runs_the_cron_command() -> None:
    image = recipe("container")
    for word in ("run", "catalog.yaml", "--quiet", "--yes"):
        assert f'"{word}"' in image
