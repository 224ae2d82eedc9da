"""The complete sweeps, and their figures: ``python -m tests.faults.sweep kills --workers 4``.

Takes hours or minutes, by the machine. Exits with 1 where anything was found; what a trial left is
kept then.
"""

from __future__ import annotations

import argparse
import errno
import itertools
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.faults.trials import (
    Course,
    Result,
    course,
    failed,
    killed,
    killed_three_times,
    naively_killed,
    power_lost,
)

Trial = Callable[[Course, int], Result]
RESPONSES = ("url", "b64_json")
ERRORS = (errno.EIO, errno.ENOSPC, errno.EMFILE)


@dataclass(slots=True)
class Figures:
    """What a sweep found."""

    trials: int = 0
    hit: int = 0
    open_attempts: int = 0
    billed_uncertain: int = 0
    sent_after: int = 0
    broken: Counter[str] = field(default_factory=Counter)
    texts: list[str] = field(default_factory=list)

    def add(self, number: int, result: Result) -> None:
        """Count one trial."""
        self.trials += 1
        self.hit += result.hit is not None
        self.open_attempts += result.open_attempts
        self.billed_uncertain += result.billed_uncertain
        self.sent_after += result.sent_after > 0
        for kind in {finding.kind for finding in result.findings}:
            self.broken[kind] += 1
        at = f"{result.hit.name} {result.hit.paths}" if result.hit else "the end"
        self.texts += [f"{number} at {at}: {one.kind}: {one.text}" for one in result.findings]

    def merge(self, other: Figures) -> None:
        """Add what another worker found."""
        self.trials += other.trials
        self.hit += other.hit
        self.open_attempts += other.open_attempts
        self.billed_uncertain += other.billed_uncertain
        self.sent_after += other.sent_after
        self.broken += other.broken
        self.texts += other.texts

    def line(self, name: str) -> str:
        """One line of the table."""
        found = ", ".join(f"{kind} {count}" for kind, count in sorted(self.broken.items()))
        return (
            f"{name:28} trials {self.trials:5}  hit {self.hit:5}  uncertain {self.open_attempts:4}"
            f" (billed {self.billed_uncertain:4})  sent after {self.sent_after:3}"
            f"  broken: {found or 'none'}"
        )


def sweeps(kind: str) -> Iterator[tuple[str, Trial, bool]]:
    """The sweeps of a kind: a name, a trial, and whether its numbers end where none is hit."""
    if kind == "kills":
        for response, waste in itertools.product(RESPONSES, ("0", "100%")):
            yield (
                f"kill, {response}, {waste}",
                partial(killed, response=response, waste=waste),
                True,
            )
    if kind == "recovery":
        for response, waste in itertools.product(RESPONSES, ("0", "100%")):
            trial = partial(killed_three_times, response=response, waste=waste)
            yield f"3 kills, {response}, {waste}", trial, False
    if kind == "errors":
        for error, response in itertools.product(ERRORS, RESPONSES):
            name = f"{errno.errorcode[error]}, {response}"
            yield name, partial(failed, error=error, response=response), True
    if kind == "power":
        for response in RESPONSES:
            yield f"power cut, {response}", partial(power_lost, response=response), True
    if kind == "naive":
        yield "naive runner, kill, url", naively_killed, True


def work(trial: Trial, first: int, last: int, step: int, ends: bool) -> Figures:
    """Make the trials of one worker, in a course of its own."""
    figures = Figures()
    with course(Path(tempfile.mkdtemp(prefix="batchgen-sweep-"))) as own:
        for number in range(first, last + 1, step):
            result = trial(own, number)
            figures.add(number, result)
            if ends and result.hit is None:
                break
    return figures


def main() -> int:
    """Make one kind of sweep, and print its figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.sweep")
    parser.add_argument("kind", choices=("kills", "recovery", "errors", "power", "naive"))
    parser.add_argument("--workers", type=int, default=1, help="processes at the same time")
    parser.add_argument("--every", type=int, default=1, help="only every Nth point")
    parser.add_argument("--first", type=int, default=1, help="the first point, or seed")
    parser.add_argument("--last", type=int, default=100_000, help="the last point, or seed")
    parser.add_argument("--only", default="", help="only sweeps with this in their name")
    chosen = parser.parse_args()
    found = False
    for name, trial, ends in sweeps(chosen.kind):
        if chosen.only not in name:
            continue
        began, figures = time.monotonic(), Figures()
        step = chosen.every * chosen.workers
        with ProcessPoolExecutor(chosen.workers) as workers:
            firsts = [chosen.first + n * chosen.every for n in range(chosen.workers)]
            parts = [
                workers.submit(work, trial, first, chosen.last, step, ends) for first in firsts
            ]
            for part in as_completed(parts):
                figures.merge(part.result())
        print(figures.line(name), f" {time.monotonic() - began:.0f} s", flush=True)
        for text in figures.texts if chosen.kind != "naive" else ():
            print(f"    {text[:2000]}")
        found = found or bool(figures.broken)
    return int(found != (chosen.kind == "naive"))


if __name__ == "__main__":
    raise SystemExit(main())
