"""What README.md shows is what the program does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from batchgen.cli.main import cli
from batchgen.errors import ExitCode
from batchgen.manifest.model import Limits, Manifest
from tests.support import rig
from tests.support.readme import README, ROOT, block_after, copy_examples


def section(title: str) -> str:
    """The text below a heading, up to the next of its rank."""
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_every_command_is_listed_and_no_other() -> None:
    listed = set()
    for line in section("Commands").splitlines():
        if match := re.match(r"batchgen ([a-z]+(?: \| [a-z]+)*)", line):
            listed |= set(match[1].split(" | "))
    assert isinstance(cli, click.Group)
    assert listed == set(cli.commands)


def test_every_exit_code_is_explained() -> None:
    rows = re.findall(r"^\| ([0-9, ]+) \|", section("Commands"), re.MULTILINE)
    listed = {int(number) for row in rows for number in row.split(",")}
    assert listed == {code.value for code in ExitCode}


@pytest.mark.parametrize("name", Limits.model_fields)
def test_every_limit_is_explained(name: str) -> None:
    assert f"`{name}`" in section("The manifest")


@pytest.mark.parametrize("name", Manifest.model_fields)
def test_every_key_of_a_manifest_is_shown(name: str) -> None:
    assert re.search(rf"^{name}:|`{name}|\b{name}:", section("The manifest"), re.MULTILINE)


def test_the_program_that_is_shown_runs(tmp_path: Path) -> None:
    copy_examples(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", block_after("python")],
        cwd=tmp_path,
        env=rig.environment(),
        capture_output=True,
        text=True,
        timeout=rig.TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert (lines[0], lines[-1]) == ("8 jobs for about 0.30 dollars", "exit code 0")
    assert len(lines) == 10


def test_the_first_run_prints_what_is_shown(tmp_path: Path) -> None:
    copy_examples(tmp_path)
    done = rig.batchgen("run", "jobs/demo.yaml", cwd=tmp_path)

    def timeless(text: str) -> str:
        return re.sub(r"this run of [0-9.]+ s", "this run of N s", text)

    assert timeless(done.stderr + done.stdout) == timeless(block_after("output: demo"))

    shown = re.search(r'^\{"batch": "demo".*\}$', README, re.MULTILINE)
    assert shown is not None
    real = rig.batchgen("status", "demo", "--json", cwd=tmp_path).stdout
    assert json.loads(shown[0]) == json.loads(real)


def test_ci_runs_the_two_lines_of_the_readme() -> None:
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    for marker in ("the main job", "the tests"):
        (line,) = block_after(marker).splitlines()
        assert line.startswith("python3 -m venv")
        assert f'readme_line "{marker}"' in script
