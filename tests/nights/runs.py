"""One night: a plan and a run by chance, which may be killed, stopped or short of money."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from batchgen.errors import ExitCode
from tests.nights.batch import Batch, Disagreement
from tests.support import rig

FAULTS: Final = (
    "refuse",
    "error",
    "throttle",
    "bill-error",
    "bill-drop",
    "bill-empty",
    "bill-truncated",
    "download-miss",
    "download-gone",
    "download-truncate",
)
"""What the endpoint does wrong in some nights."""
MODES: Final = (*["run"] * 6, "resume", "poor", "killed", "interrupted", "overloaded")
RUN_ONLY: Final = ("--limit", "--max-waste")
"""Options of a run with a value that a plan does not have."""
FINAL: Final = {"done", "uncertain", "acknowledged"}
"""States of jobs after a run whose exit code is 0."""


def night(batch: Batch, dice: random.Random) -> None:
    """Plan and run the batch."""
    had_ledger = batch.has_ledger
    faults = {dice.choice(FAULTS): dice.choice([0.3, 0.6])} if dice.random() < 0.4 else {}
    batch.set_faults(faults)
    flags = _flags(batch, dice)
    mode = dice.choice(MODES)
    try:
        if mode == "resume" and had_ledger:
            batch.command("resume", "batch", "--yes")
        elif mode == "killed":
            _killed(batch, flags, dice)
        elif mode == "interrupted":
            _interrupted(batch, flags, dice)
        elif mode == "overloaded":
            _overloaded(batch, flags)
        else:
            _run(batch, [*flags, "--max-cost", "0.05"] if mode == "poor" else flags)
    finally:
        batch.calm()


def _flags(batch: Batch, dice: random.Random) -> list[str]:
    flags = list[str]()
    kind = dice.random()
    if kind < 0.15:
        flags += ["--refresh", dice.choice(["always", "30d", "changed"])]
    elif kind < 0.25:
        flags += ["--since", "2030-01-01"]
    if dice.random() < 0.15:
        flags += ["--limit", dice.choice(["1", "2"])]
    if dice.random() < 0.15 and batch.has_ledger:
        key = batch.key(dice)
        flags += ["--only", key] if key else []
    if dice.random() < 0.1:
        flags += ["--keep-rejected"]
    if dice.random() < 0.1:
        flags += ["--max-waste", "0"]
    return flags


def _plan(batch: Batch, flags: Sequence[str]) -> dict[str, Any] | None:
    """Return the plan of a run; None where it is refused."""
    kept, rest = list[str](), iter(flags)
    for flag in rest:
        if flag in RUN_ONLY:
            next(rest)
        else:
            kept.append(flag)
    code, text = batch.lookup("plan", "batch.yaml", *kept, "--json")
    if code != ExitCode.DONE:
        batch.note(f"# the plan ended with {code}: {text.strip()[:200]}")
        return None
    planned: dict[str, Any] = json.loads(text)
    return planned


def _run(batch: Batch, flags: Sequence[str]) -> None:
    """Run to the end, and compare with the plan."""
    planned, before = _plan(batch, flags), batch.posts()
    code, output = batch.command("run", "batch.yaml", "--yes", *flags)
    if code in (ExitCode.DONE, ExitCode.UNFINISHED, ExitCode.STOPPED):
        batch.is_settled = True
    if batch.faults or "--max-cost" in flags:
        return
    if planned and code != ExitCode.STOPPED and "--limit" not in flags:
        compare(planned, batch.posts() - before, output)
    if code == ExitCode.DONE and not flags:
        judge_complete(batch)


def compare(planned: Mapping[str, Any], sent: int, output: str) -> None:
    """Compare the plan with what a run sent that met no fault."""
    # The price of a paid response, or a path that another file has, is known only in the run.
    if "paid_changed" in planned["groups"] or "path_taken" in output:
        return
    if sent != planned["requests"]:
        raise Disagreement(
            f"the plan had {planned['requests']} requests, the run sent {sent}: {planned['groups']}"
        )


def judge_complete(batch: Batch) -> None:
    """After exit code 0 all jobs are done, and nothing is left to plan."""
    planned = batch.read("plan", "batch.yaml")
    if planned["requests"]:
        raise Disagreement(f"a complete run left requests: {planned['groups']}")
    jobs = batch.read("status", "batch")["jobs"]
    if left := {state: n for state, n in jobs.items() if n and state not in FINAL}:
        raise Disagreement(f"exit code 0, but {left}")


def _killed(batch: Batch, flags: Sequence[str], dice: random.Random) -> None:
    """Kill a run after some of its events."""
    _signalled(batch, flags, dice.randrange(1, 9), [signal.SIGKILL])


def _interrupted(batch: Batch, flags: Sequence[str], dice: random.Random) -> None:
    """Interrupt a run twice after some of its events: it waits for nothing."""
    _signalled(batch, flags, dice.randrange(1, 9), [signal.SIGINT, signal.SIGINT])


def _signalled(
    batch: Batch, flags: Sequence[str], events: int, signals: Sequence[signal.Signals]
) -> None:
    batch.served.judge("faults", {"latency": 0.3})
    with _started(batch, flags, "--json") as run:
        for number, _ in enumerate(rig.events(run), 1):
            if number >= events:
                break
        names = " ".join(one.name for one in signals)
        batch.note(f"# ... and {names} after {events} events")
        _send(run, signals)


def _overloaded(batch: Batch, flags: Sequence[str]) -> None:
    """Interrupt a run twice at an endpoint that refuses everything for overload."""
    batch.served.judge("faults", {"overload": 1.0})
    before = batch.posts()
    with _started(batch, flags) as run:
        while run.poll() is None and batch.posts() == before:
            time.sleep(0.05)
        batch.note("# ... overloaded, and SIGINT SIGINT after the first request")
        _send(run, [signal.SIGINT, signal.SIGINT])


def _started(batch: Batch, flags: Sequence[str], *others: str) -> rig.Started:
    batch.is_settled = False
    batch.note(f"batchgen run batch.yaml --yes {' '.join([*flags, *others])}  # ...")
    return rig.start("run", "batch.yaml", "--yes", *flags, *others, cwd=batch.directory)


def _send(run: rig.Started, signals: Sequence[signal.Signals]) -> None:
    for number, one in enumerate(signals):
        if number:
            time.sleep(0.15)  # the first must have begun the orderly end
        run.send_signal(one)
    run.wait()
