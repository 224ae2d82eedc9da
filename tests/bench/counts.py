"""Count what an image costs in system calls and context switches.

A busy machine changes these figures less than times. Each is the difference between a long and a
short run, so that it is without the start. `perf` counts in the kernel: unlike strace it does not
stop the process, which would make its threads wait for each other.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Final

from tests.bench.clients import Batchgen, Task
from tests.bench.figures import Bench, Figure
from tests.bench.measure import measure

_FEW: Final = 200
_EVENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "context switches": ("context-switches",),
    "syncs": ("syscalls:sys_enter_fsync", "syscalls:sys_enter_fdatasync"),
    "futex calls": ("syscalls:sys_enter_futex",),
    "file writes": ("syscalls:sys_enter_pwrite64", "syscalls:sys_enter_write"),
    "file look-ups": ("syscalls:sys_enter_newfstatat", "syscalls:sys_enter_openat"),
    "polls": ("syscalls:sys_enter_epoll_wait", "syscalls:sys_enter_epoll_ctl"),
    "system calls": ("raw_syscalls:sys_enter",),
}
_GOALS: Final[Mapping[str, float]] = {"context switches": 3, "syncs": 2, "futex calls": 40}


def run(bench: Bench) -> Iterator[Figure]:
    """Count for an image of 20 kB and one of 1.5 MB, 64 in flight."""
    if not _can_count():
        raise SystemExit("counts need perf with tracepoints: linux-perf, as root")
    for size, many in (("20k", 2_000), ("1500k", 600)):
        rounds = [_round(bench, size, many // 2 if bench.quick else many)]
        rounds += [_round(bench, size, many) for _ in range(bench.rounds - 1)]
        for what in _EVENTS:
            value = median(found[what] for found in rounds)
            goal = _GOALS.get(what) if size == "20k" else None
            yield Figure(what=f"{what} an image of {size}", value=value, unit="", most=goal)


def _round(bench: Bench, size: str, many: int) -> dict[str, float]:
    long, short = _counted(bench, size, many), _counted(bench, size, _FEW)
    return {
        what: sum(long[event] - short[event] for event in events) / (many - _FEW)
        for what, events in _EVENTS.items()
    }


def _counted(bench: Bench, size: str, count: int) -> dict[str, int]:
    """Return how often each event occurred in a run."""
    directory = bench.work / "counts"
    directory.mkdir()
    client = Batchgen(name="batchgen")
    base_url = bench.nginx.base_url(f"url-{size}")
    task = Task(base_url=base_url, count=count, in_flight=64, size=size)
    report = directory / "counts.csv"
    events = ",".join(event for group in _EVENTS.values() for event in group)
    perf: list[str | Path] = ["perf", "stat", "-x", ",", "-o", report, "-e", events]
    measure([*perf, *client.command(task, directory)], cwd=directory, env=client.env())
    cells = [line.split(",") for line in report.read_text().splitlines()]
    shutil.rmtree(directory)
    return {cell[2]: int(cell[0]) for cell in cells if len(cell) > 2}


def _can_count() -> bool:
    """Return whether `perf` is installed and may count all events."""
    if shutil.which("perf") is None:
        return False
    events = ",".join(event for group in _EVENTS.values() for event in group)
    done = subprocess.run(["perf", "stat", "-e", events, "true"], capture_output=True, check=False)
    return done.returncode == 0 and b"<not" not in done.stderr
