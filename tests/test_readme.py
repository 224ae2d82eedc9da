"""README.md and the pages of the guide show what the program does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urldefrag

import click
import pytest

from batchgen.cli.main import cli
from batchgen.errors import ExitCode
from batchgen.job import JobState
from batchgen.manifest.model import Limits, Manifest
from tests import readme_outputs
from tests.support import pages, rig

README = pages.read("README")
MAX_LINES = 200


def section(title: str) -> str:
    """Return the text of README.md below a heading, up to the next of its rank."""
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


SCENARIOS = [(page, name) for page in pages.PAGES for name in pages.scenarios(pages.read(page))]


@pytest.mark.parametrize(("page", "scenario"), SCENARIOS)
def test_page_shows_real_output(page: str, scenario: str, tmp_path: Path) -> None:
    text = pages.read(page)
    for block, real in pages.replay(text, scenario, tmp_path):
        assert pages.stable(block.text) == pages.stable(real)


@pytest.mark.parametrize("page", [name for name in pages.PAGES if "$ " in pages.read(name)])
def test_every_console_block_is_marked(page: str) -> None:
    text = pages.read(page)
    run = [block for block in pages.blocks(text) if block.marker.startswith("run: ")]
    assert len(run) == len(re.findall(r"^```console$", text, re.MULTILINE))


def test_a_wrong_output_is_found_and_refreshed(tmp_path: Path) -> None:
    wrong = "<!-- run: one, exit 2 -->\n```console\n$ batchgen check none.yaml\nwrong\n```\n"
    right = pages.refreshed(wrong, "one", tmp_path)
    assert "wrong" not in right
    assert "none.yaml" in right.splitlines()[3]


def test_outputs_differ_only_in_times(tmp_path: Path) -> None:
    assert pages.stable("took 1.7 s") == pages.stable("took 2 min 08 s")
    assert pages.stable("8 of 8 jobs") != pages.stable("7 of 8 jobs")


def test_synchronous_example_runs(tmp_path: Path) -> None:
    lines = ran(pages.block_after("python without a loop", "python"), tmp_path)
    assert re.fullmatch(r"8 0 \['\.\w+', '\.\w+'\]", lines[-1])


def ran(code: str, directory: Path) -> list[str]:
    """Run an example in a directory with the example manifests; return its lines."""
    pages.copy_examples(directory)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=directory,
        env=rig.environment(),
        capture_output=True,
        text=True,
        timeout=rig.TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("page", ["README", "python"])
def test_python_example_runs(page: str, tmp_path: Path) -> None:
    lines = ran(pages.block_after("python", page), tmp_path)
    assert lines[-1] == "exit code 0"
    if page == "python":
        assert lines[0] == "8 jobs for about 0.30 dollars"
    assert sum(".png" in line or ".webp" in line for line in lines) == 8


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= MAX_LINES


def test_command_table_is_current() -> None:
    assert readme_outputs.with_command_table(README) == README


def test_command_table_lists_every_command() -> None:
    assert isinstance(cli, click.Group)
    listed = re.findall(r"^\| \[`([a-z-]+)`\]", section("Commands"), re.MULTILINE)
    assert listed == sorted(cli.commands)


def test_commands_page_is_current() -> None:
    assert pages.read("commands") == readme_outputs.commands_page()


def test_every_exit_code_is_explained() -> None:
    rows = re.findall(r"^\| ([0-9, ]+) \|", section("States and exit codes"), re.MULTILINE)
    listed = {int(number) for row in rows for number in row.split(",")}
    assert listed == {code.value for code in ExitCode}


@pytest.mark.parametrize("text", [section("States and exit codes"), pages.read("money")])
def test_every_job_state_is_explained(text: str) -> None:
    assert {state.value for state in JobState} <= set(re.findall(r"^\| `(\w+)` \|", text, re.M))


@pytest.mark.parametrize("name", Limits.model_fields)
def test_every_limit_is_explained(name: str) -> None:
    assert f"`{name}`" in pages.read("manifest")


@pytest.mark.parametrize("name", Manifest.model_fields)
def test_every_manifest_key_is_shown(name: str) -> None:
    text = pages.read("manifest")
    assert re.search(rf"^{name}:|`{name}|\b{name}:", text, re.MULTILINE)


def documents() -> list[Path]:
    """Return the pages and the documents for contributors."""
    return [*pages.PAGES.values(), *sorted((pages.ROOT / ".github").glob("*.md"))]


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_relative_links_lead_to_files(path: Path) -> None:
    links = re.findall(r"\]\(([^)]+)\)", path.read_text(encoding="utf-8"))
    inner = [urldefrag(link)[0] for link in links if "://" not in link]
    assert [link for link in inner if not (path.parent / link).exists()] == []


def test_readme_links_every_page() -> None:
    for topic in set(pages.PAGES) - {"README"}:
        assert f"(batchgen/guide/{topic}.md" in README


def test_architecture_page_names_existing_paths() -> None:
    named = re.findall(r"`((?:batchgen|tests)/[\w/.]+)`", pages.read("architecture"))
    assert len(named) > 15
    assert [path for path in named if not (pages.ROOT / path).exists()] == []


def test_ci_runs_the_two_lines_of_the_readme() -> None:
    script = (pages.ROOT / ".ci/run").read_text(encoding="utf-8")
    for marker in ("the main job", "the tests"):
        (line,) = pages.block_after(marker).splitlines()
        assert line.startswith("python3 -m venv")
        assert f'readme_line "{marker}"' in script
