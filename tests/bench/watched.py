"""``python -m tests.bench.watched REPORT ARGUMENTS...``: batchgen with a pulse taken.

Writes as JSON how late the event loop's heartbeat was, the CPU of each kind of thread, and how
often work went to another thread. The run itself is the one of the command line.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

_BEAT_S: Final = 0.005
_BEATS_A_LOOK: Final = 20
"""Threads are looked at so often: those of a pool are gone at the end."""
_TASKS: Final = Path("/proc/self/task")


class Watch:
    """What is seen of the event loop that a process spends most of its time in."""

    def __init__(self, report: Path) -> None:
        self._report = report
        self._late_s: list[float] = []
        self._most_beats = 0
        self._hops: Counter[str] = Counter()
        self._cpu_s: dict[str, float] = {}

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Beat on a loop until it ends."""
        self._late_s = late = []

        def beat(due: float) -> None:
            late.append(time.monotonic() - due)
            if len(late) % _BEATS_A_LOOK == 0:
                self._cpu_s = _cpu_by_thread()
            loop.call_later(_BEAT_S, beat, time.monotonic() + _BEAT_S)

        loop.call_later(_BEAT_S, beat, time.monotonic() + _BEAT_S)

    def hop(self, function: Callable[..., object]) -> None:
        """Something was handed to another thread."""
        while isinstance(function, functools.partial):
            function = function.func
        self._hops[getattr(function, "__qualname__", repr(function))] += 1

    def write(self) -> None:
        """Write down what was seen, unless the loop ran only to be closed."""
        late = sorted(self._late_s)
        if len(late) <= self._most_beats:
            return
        self._most_beats = len(late)
        seen = {
            "beats": len(late),
            "late_p50_ms": late[len(late) // 2] * 1_000,
            "late_p99_ms": late[len(late) * 99 // 100] * 1_000,
            "late_most_ms": late[-1] * 1_000,
            "cpu_s": self._cpu_s,
            "hops": dict(self._hops.most_common()),
        }
        self._report.write_text(json.dumps(seen))


def _cpu_by_thread() -> dict[str, float]:
    """CPU seconds by the name of threads, without their numbers."""
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    tick = os.sysconf("SC_CLK_TCK")
    taken: Counter[str] = Counter()
    for task in _TASKS.iterdir():
        fields = (task / "stat").read_text().rpartition(")")[2].split()
        name = names.get(int(task.name), "other").rstrip("0123456789-_ ()")
        taken[name] += int(fields[11]) + int(fields[12])
    return {name: ticks / tick for name, ticks in taken.most_common()}


def install(watch: Watch) -> None:
    """Take the pulse of every event loop of this process."""
    loops: Any = asyncio.base_events.BaseEventLoop
    run_forever, run_in_executor = loops.run_forever, loops.run_in_executor

    def watched(loop: Any) -> None:
        watch.start(loop)
        run_forever(loop)
        watch.write()

    def counted(loop: Any, executor: Any, function: Any, *arguments: Any) -> Any:
        watch.hop(function)
        return run_in_executor(loop, executor, function, *arguments)

    loops.run_forever, loops.run_in_executor = watched, counted
    _count_anyio(watch)


def _count_anyio(watch: Watch) -> None:
    import anyio.to_thread

    to_thread: Any = anyio.to_thread
    run_sync = to_thread.run_sync

    async def counted(function: Any, *arguments: Any, **options: Any) -> Any:
        watch.hop(function)
        return await run_sync(function, *arguments, **options)

    to_thread.run_sync = counted


if __name__ == "__main__":
    install(Watch(Path(sys.argv[1])))
    from batchgen.cli.main import main

    sys.argv = ["batchgen", *sys.argv[2:]]
    raise SystemExit(main())
