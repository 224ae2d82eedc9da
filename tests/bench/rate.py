"""A rate limit: how much of what is allowed is used, and whether the server ever had to refuse."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.bench.clients import Batchgen, Task, write_manifest, write_rows
from tests.bench.figures import Bench, Figure
from tests.bench.latency import Latency, latency
from tests.bench.measure import CLIENT_CORE, on_core

_PER_MINUTE: Final = 600
_LATENCY_S: Final = 0.1
_IN_FLIGHT: Final = 64
_BATCHGEN: Final = Batchgen(name="batchgen")


def run(bench: Bench) -> Iterator[Figure]:
    """600 a minute against strict buckets: at once, after stop and resume, two runs at a time."""
    seconds = 15.0 if bench.quick else 60.0
    for burst in (1, 10):
        yield from _measured(bench, f"bucket of {burst}", burst, ["one"], [seconds])
    halves = [seconds / 2, seconds / 2]
    yield from _measured(bench, "bucket of 1, stopped and resumed", 1, ["one"], halves)
    yield from _measured(bench, "bucket of 1, two runs on a ledger", 1, ["one", "two"], [seconds])


def _measured(
    bench: Bench, what: str, burst: int, names: Sequence[str], turns: Sequence[float]
) -> Iterator[Figure]:
    """Run batches at the same time for each turn; the share is that of the time in the turns.

    A turn counts from its first request. What a server accepts at once beyond the even rate (its
    burst) is not part of the allowance.
    """
    switches = ["--per-minute", str(_PER_MINUTE), "--burst", str(burst)]
    directory = bench.work / "rate"
    directory.mkdir()
    image = f"{bench.nginx.url}/images/20k.png"
    used, allowed, refused = 0, 0.0, 0
    with latency(image, _LATENCY_S, *switches) as server:
        manifests = _manifests(directory, server, names, int(sum(turns) * _PER_MINUTE / 60) + 100)
        for seconds in turns:
            mark = server.mark()
            _run_for(seconds, server, mark, manifests, directory)
            bought = server.bought_since(mark)
            used += sum(at <= bought[0] + seconds for at in bought)
            allowed += seconds * _PER_MINUTE / 60
            refused += len(server.refused_since(mark))
    shutil.rmtree(directory)
    share = used / allowed * 100
    yield Figure(what=f"{what}: used of the allowance", value=share, unit="%", least=98)
    yield Figure(what=f"{what}: 429s", value=refused, unit="", most=0)


def _manifests(directory: Path, server: Latency, names: Sequence[str], count: int) -> list[Path]:
    write_rows(directory / "rows.csv", count)
    task = Task(
        base_url=server.base_url,
        count=count,
        in_flight=_IN_FLIGHT,
        size="20k",
        limits=f", requests_per_minute: {_PER_MINUTE}",
    )
    return [write_manifest(directory, task, name=name) for name in names]


def _run_for(
    seconds: float, server: Latency, mark: int, manifests: Sequence[Path], directory: Path
) -> None:
    """Start a run of each, and stop them so long after the first request."""
    db = directory / "batchgen.db"
    with ExitStack() as stack:
        runs = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "batchgen", "run", manifest, "--db", db],
                    cwd=directory,
                    env=_BATCHGEN.env(),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    preexec_fn=on_core(CLIENT_CORE),
                )
            )
            for manifest in manifests
        ]
        while not server.bought_since(mark):
            time.sleep(0.05)
        time.sleep(seconds)
        for process in runs:
            process.send_signal(signal.SIGINT)
        for process in runs:
            process.wait(60)
