"""How long a command takes that does next to nothing."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Final

from tests.bench.clients import BATCH, Batchgen, Task
from tests.bench.figures import Bench, Figure
from tests.bench.measure import measure

_TIMES: Final = 15
_IMPORT: Final = """
import gc, importlib, os
gc.disable()  # as `batchgen run` does while it imports
for name in open({names!r}).read().split():
    try:
        importlib.import_module(name)
    except ImportError:
        pass
os._exit(0)
"""


def run(bench: Bench) -> list[Figure]:
    """Compare ``--help`` with the cost of its library alone, time ``status`` on a small ledger, and
    measure the CPU in which a paid run imports its modules.
    """
    directory = bench.work / "startup"
    directory.mkdir()
    client = Batchgen(name="batchgen")
    task = Task(base_url=bench.nginx.base_url("url-tiny"), count=20, in_flight=4, size="tiny")
    env = client.env()
    first = _imported(client.command(task, directory), directory, env)
    more = replace(task, count=task.count + 1)
    second = _imported(client.command(more, directory), directory, env)
    figures = _compared(directory, env)
    for what, names in (("a paid run", second), ("the first run of a ledger", first)):
        figures += _cost_of(names, what, directory, env)
    shutil.rmtree(directory)
    return figures


def _compared(directory: Path, env: Mapping[str, str]) -> list[Figure]:
    batchgen = [sys.executable, "-m", "batchgen"]
    commands: list[Sequence[str | Path]] = [
        [sys.executable, "-c", "import click"],
        [*batchgen, "--help"],
        [*batchgen, "status", BATCH, "--db", directory / "batchgen.db"],
    ]
    walls: list[list[float]] = [[] for _ in commands]
    for _ in range(_TIMES):
        for command, taken in zip(commands, walls, strict=True):
            taken.append(measure(command, cwd=directory, env=env).wall_s)
    click, shown, status = (median(taken) for taken in walls)
    return [
        Figure(what="`python -c 'import click'`", value=click * 1000, unit="ms"),
        Figure(what="`batchgen --help`", value=shown * 1000, unit="ms"),
        Figure(what="the same to importing click", value=shown / click, unit="x", most=1.5),
        Figure(
            what="`status`, 20 jobs, over `--help`",
            value=(status - shown) * 1000,
            unit="ms",
            most=150,
        ),
    ]


def _imported(
    command: Sequence[str | Path], directory: Path, env: Mapping[str, str]
) -> Sequence[str]:
    """Run batchgen; gives the modules that it imported, in their order."""
    python, *rest = command
    measure([python, "-X", "importtime", *rest], cwd=directory, env=env)
    log = (directory / "client.log").read_text(errors="replace")
    return re.findall(r"^import time: +\d+ \| +\d+ \| +(\S+)$", log, re.MULTILINE)


def _cost_of(
    names: Sequence[str], what: str, directory: Path, env: Mapping[str, str]
) -> list[Figure]:
    file = directory / "modules.txt"
    file.write_text("\n".join(names))
    command = [sys.executable, "-c", _IMPORT.format(names=str(file))]
    taken = [measure(command, cwd=directory, env=env).cpu_s for _ in range(_TIMES)]
    ours = sum(name.startswith("batchgen") for name in names)
    return [
        Figure(what=f"CPU of the imports of {what}, with Python", value=min(taken), unit="s"),
        Figure(what=f"modules of {what}", value=len(names), unit="modules"),
        Figure(what=f"modules of batchgen in {what}", value=ours, unit="modules"),
    ]
