"""How long a command takes that does next to nothing."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final

from tests.bench.clients import BATCH, Batchgen, Task
from tests.bench.figures import Bench, Figure
from tests.bench.measure import measure

_TIMES: Final = 15


def run(bench: Bench) -> list[Figure]:
    """Compare ``--help`` with the cost of its library alone, and time ``status`` on a small
    ledger.
    """
    directory = bench.work / "startup"
    directory.mkdir()
    client = Batchgen(name="batchgen")
    task = Task(base_url=bench.nginx.base_url("url-tiny"), count=20, in_flight=4, size="tiny")
    env = client.env()
    measure(client.command(task, directory), cwd=directory, env=env)
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
    shutil.rmtree(directory)
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
