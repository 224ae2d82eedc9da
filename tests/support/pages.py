"""Read the documentation pages and replay the commands that they show.

Three comments mark the code blocks that tests use. The name before the slash or the comma is a
scenario: a directory with the example manifests of ``jobs/``, in which the blocks of one page run
in order.

    <!-- file: shop/catalog.yaml -->    write the block to catalog.yaml in the scenario shop
    <!-- run: shop, exit 1 -->          run the lines that start with "$ "; the last exits with 1
    <!-- python -->                     run the block as a program, next to jobs/
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import batchgen
from tests.support import rig

ROOT: Final = Path(__file__).parents[2]
GUIDE: Final = Path(batchgen.__file__).parent / "guide"
PAGES: Final = {
    "README": ROOT / "README.md",
    **{path.stem: path for path in sorted(GUIDE.glob("*.md"))},
}
"""README and the topics of ``batchgen guide``, by name."""

_BLOCK: Final = re.compile(
    r"^<!-- (?P<marker>[^\n]+?) -->\n```\w*\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
_RUN: Final = re.compile(r"run: (?P<scenario>[\w-]+)(?:, exit (?P<code>\d+))?")
_FILE: Final = re.compile(r"file: (?P<scenario>[\w-]+)/(?P<name>\S+)")

_VARYING: Final = (
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d(\.\d+)?)?( UTC|Z)?"), "TIME"),
    (re.compile(r"\b(\d+ ?min |\d+m )?\d+(\.\d+)? ?s\b"), "SECONDS"),
    (re.compile(r"slowest: .*"), "slowest: ..."),
)
"""Parts of the output that differ from run to run."""


@dataclass(frozen=True)
class Block:
    """A marked code block of a page."""

    marker: str
    text: str
    start: int
    """Offset of the text in its page."""


def read(page: str) -> str:
    """Return the text of a page."""
    return PAGES[page].read_text(encoding="utf-8")


def blocks(text: str) -> list[Block]:
    """Return the marked code blocks of a page."""
    return [Block(one["marker"], one["text"], one.start("text")) for one in _BLOCK.finditer(text)]


def block_after(marker: str, page: str = "README") -> str:
    """Return the code block after the only marker of this name."""
    (found,) = [block.text for block in blocks(read(page)) if block.marker == marker]
    return found


def scenarios(text: str) -> list[str]:
    """Return the names of the scenarios of a page, in order."""
    found = [one["scenario"] for block in blocks(text) if (one := _RUN.fullmatch(block.marker))]
    return list(dict.fromkeys(found))


def copy_examples(directory: Path) -> None:
    """Copy the example manifests and their tables, without the files that runs have made."""
    (directory / "jobs").mkdir()
    for file in (ROOT / "jobs").iterdir():
        if file.is_file() and file.suffix in (".yaml", ".csv"):
            shutil.copy(file, directory / "jobs")


def stable(text: str) -> str:
    """Replace the parts of an output that differ from run to run."""
    for pattern, name in _VARYING:
        text = pattern.sub(name, text)
    return text


def replay(text: str, scenario: str, directory: Path) -> Iterator[tuple[Block, str]]:
    """Run a scenario of a page; yield each run block with the text that it should have."""
    copy_examples(directory)
    for block in blocks(text):
        if (file := _FILE.fullmatch(block.marker)) and file["scenario"] == scenario:
            (directory / file["name"]).write_text(block.text, encoding="utf-8")
        elif (run := _RUN.fullmatch(block.marker)) and run["scenario"] == scenario:
            commands = [line for line in block.text.splitlines() if line.startswith("$ ")]
            codes = [0] * (len(commands) - 1) + [int(run["code"] or 0)]
            shown = [
                f"{command}\n{_output(command.removeprefix('$ '), directory, code)}"
                for command, code in zip(commands, codes, strict=True)
            ]
            yield block, "".join(shown)


def _output(command: str, directory: Path, code: int) -> str:
    tools = directory / ".bin"
    tools.mkdir(exist_ok=True)
    script = tools / "batchgen"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m batchgen "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    path = os.pathsep.join([str(tools), str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=directory,
        env=rig.environment({"PATH": path}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=rig.TIMEOUT_S,
        check=False,
    )
    assert done.returncode == code, f"{command}: exit {done.returncode}\n{done.stdout}"
    return done.stdout


def refreshed(text: str, scenario: str, directory: Path) -> str:
    """Return a page with the outputs of one scenario replaced where they have changed."""
    for block, real in reversed(list(replay(text, scenario, directory))):
        if stable(real) != stable(block.text):
            text = text[: block.start] + real + text[block.start + len(block.text) :]
    return text
