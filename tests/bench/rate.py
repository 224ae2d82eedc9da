"""A rate limit: how much of what is allowed is used, and whether the server ever had to refuse."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from tests.bench.clients import Batchgen, Task, write_manifest, write_rows
from tests.bench.figures import Bench, Figure
from tests.bench.latency import Latency, latency
from tests.bench.measure import CLIENT_CORE, on_core

_PER_MINUTE: Final = 600
_LATENCY_S: Final = 0.1
_IN_FLIGHT: Final = 64
_LEARNING_S: Final = 60.0
_BATCHGEN: Final = Batchgen(name="batchgen")


def run(bench: Bench) -> Iterator[Figure]:
    """Use 600 a minute of strict buckets: with jitter, after a stop, with two runs of a key."""
    seconds = 15.0 if bench.quick else 60.0
    for burst in (1, 10):
        for jitter_ms in (0, 5, 30):
            case = _Case(
                what=f"bucket of {burst}, {jitter_ms} ms of jitter",
                burst=burst,
                jitter_ms=jitter_ms,
                least=_goal(burst, jitter_ms),
                turns=(seconds,),
            )
            yield from _measured(bench, case)
    halves = (seconds / 2, seconds / 2)
    yield from _measured(bench, _Case(what="bucket of 1, stopped and resumed", turns=halves))
    two = _Case(what="bucket of 1, two runs of a key", names=("one", "two"), turns=(seconds,))
    yield from _measured(bench, two)


def learned(bench: Bench) -> Iterator[Figure]:
    """Learn an undeclared limit from 429s, and count the refusals after the first minute.

    The servers have a bucket of a second of their rate, at least of one request.
    """
    seconds = 90.0 if bench.quick else 180.0
    for per_minute in (60, 240, 600):
        burst = max(1, per_minute // 60)
        switches = ["--per-minute", str(per_minute), "--burst", str(burst)]
        directory = bench.work / "learned"
        directory.mkdir()
        image = f"{bench.nginx.url}/images/20k.png"
        with latency(image, _LATENCY_S, *switches) as server:
            write_rows(directory / "rows.csv", int(seconds * per_minute / 60) + 200)
            task = Task(base_url=server.base_url, count=0, in_flight=_IN_FLIGHT, size="20k")
            manifest = write_manifest(directory, task, name="one")
            _run_for(seconds, server, 0, [manifest], directory)
            came, refused = server.bought_since(0), server.refused_since(0)
        shutil.rmtree(directory)
        first = min([*came, *refused])
        settled = first + _LEARNING_S
        late = sum(at > settled for at in refused)
        good = sum(settled < at <= first + seconds for at in came)
        allowed = (seconds - _LEARNING_S) * per_minute / 60
        what = f"{per_minute} a minute, not declared"
        yield Figure(what=f"{what}: 429s in the first minute", value=len(refused) - late, unit="")
        share = late / max(1, late + good) * 100
        yield Figure(what=f"{what}: refused after it", value=share, unit="%", most=2)
        yield Figure(what=f"{what}: used after it", value=good / allowed * 100, unit="%")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    what: str
    turns: tuple[float, ...]
    """Seconds of each turn; batches of ``names`` run at the same time in each."""
    names: tuple[str, ...] = ("one",)
    burst: int = 1
    jitter_ms: int = 0
    least: float = 95.0


def _goal(burst: int, jitter_ms: int) -> float:
    """Return the least share in percent.

    Without refusals, a strict bucket of 1 needs gaps of the interval plus the jitter.
    """
    if burst > 1:
        return 98.0
    interval_ms = 60_000 / _PER_MINUTE
    return min(95.0, 0.97 * 100 * interval_ms / (interval_ms + jitter_ms))


def _measured(bench: Bench, case: _Case) -> Iterator[Figure]:
    """Measure the used share of the rate, the 429s, and the spacing at both ends.

    A turn counts from its first request. What a server accepts at once beyond the even rate (its
    burst) is not part of the allowance.
    """
    switches = ["--per-minute", str(_PER_MINUTE), "--burst", str(case.burst)]
    switches += ["--jitter", str(case.jitter_ms / 1000)]
    directory = bench.work / "rate"
    directory.mkdir()
    image = f"{bench.nginx.url}/images/20k.png"
    used, allowed = 0, 0.0
    with latency(image, _LATENCY_S, *switches) as server:
        count = int(sum(case.turns) * _PER_MINUTE / 60) + 100
        manifests = _manifests(directory, server, case, count)
        for seconds in case.turns:
            mark = server.mark()
            _run_for(seconds, server, mark, manifests, directory)
            bought = server.bought_since(mark)
            used += sum(at <= bought[0] + seconds for at in bought)
            allowed += seconds * _PER_MINUTE / 60
        refused = len(server.refused_since(0))
        arrivals = sorted([*server.bought_since(0), *server.refused_since(0)])
    departures = sorted(
        float(line)
        for file in directory.glob("departures-*")
        for line in file.read_text().splitlines()
    )
    shutil.rmtree(directory)
    yield Figure(
        what=f"{case.what}: used of the rate",
        value=used / allowed * 100,
        unit="%",
        least=case.least,
    )
    most = sum(case.turns) / 60 if case.jitter_ms else 0.0
    yield Figure(what=f"{case.what}: 429s", value=refused, unit="", most=most)
    for end, times in (("departure", departures), ("arrival", arrivals)):
        gaps = sorted(later - earlier for earlier, later in pairwise(times))
        if case.burst == 1 and gaps:
            hundredth = gaps[len(gaps) // 100] * 1000
            yield Figure(
                what=f"{case.what}: shortest 1 % of {end} gaps", value=hundredth, unit="ms"
            )


def _manifests(directory: Path, server: Latency, case: _Case, count: int) -> list[Path]:
    write_rows(directory / "rows.csv", count)
    task = Task(
        base_url=server.base_url,
        count=count,
        in_flight=_IN_FLIGHT,
        size="20k",
        limits=f", requests_per_minute: {_PER_MINUTE}, burst: {case.burst}",
    )
    return [write_manifest(directory, task, name=name) for name in case.names]


def _run_for(
    seconds: float, server: Latency, mark: int, manifests: Sequence[Path], directory: Path
) -> None:
    """Start a run of each, and stop them so long after the first request."""
    db = directory / "batchgen.db"
    hook = str(Path(__file__).with_name("departures"))
    env = {**_BATCHGEN.env(), "DEPARTURES": f"{directory}/departures-"}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (hook, env.get("PYTHONPATH"))))
    with ExitStack() as stack:
        runs = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "batchgen", "run", manifest, "--db", db],
                    cwd=directory,
                    env=env,
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
