"""Whether batchgen's event loop stays awake while images are written, and what its threads do."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from typing import Any, Final

from tests.bench.clients import Batchgen, Task
from tests.bench.figures import Bench, Figure
from tests.bench.measure import measure

_FEWEST_HOPS: Final = 0.2
"""An image; what happens less often is not listed."""


def run(bench: Bench) -> list[Figure]:
    """Measure responses of each kind at 64 in flight."""
    counts = {"url-20k": 1_000, "url-1500k": 200, "inline-1500k": 200}
    return [
        figure for response, count in counts.items() for figure in _watched(bench, response, count)
    ]


def _watched(bench: Bench, response: str, count: int) -> Iterator[Figure]:
    directory = bench.work / "pulse"
    directory.mkdir()
    size = response.partition("-")[2]
    task = Task(base_url=bench.nginx.base_url(response), count=count, in_flight=64, size=size)
    client = Batchgen(name="batchgen")
    report = directory / "watched.json"
    _, _, _, *arguments = client.command(task, directory)
    command = [sys.executable, "-m", "tests.bench.watched", str(report), *arguments]
    measure(command, cwd=directory, env=client.env())
    seen: dict[str, Any] = json.loads(report.read_text())
    shutil.rmtree(directory)
    late = seen["late_p99_ms"]
    yield Figure(what=f"{response}: heartbeat late, p99", value=late, unit="ms", most=10)
    yield Figure(what=f"{response}: heartbeat late, most", value=seen["late_most_ms"], unit="ms")
    for thread, cpu_s in seen["cpu_s"].items():
        what = f"{response}: CPU an image of {thread}, start-up included"
        yield Figure(what=what, value=cpu_s / count * 1_000, unit="ms")
    hops = seen["hops"]
    total = sum(hops.values()) / count
    yield Figure(what=f"{response}: calls handed to threads, an image", value=total, unit="")
    for name, times in hops.items():
        if times / count >= _FEWEST_HOPS:
            yield Figure(what=f"{response}: of these `{name}`", value=times / count, unit="")
