"""What a run's display writes for its events."""

from __future__ import annotations

import io
import json

import pytest

from batchgen.console.progress import JsonProgress, PlainProgress
from batchgen.console.tally import RunFacts
from batchgen.engine.events import AttemptEnded, AttemptStarted, JobDone, Stopping
from batchgen.job import Billed, JobState, Outcome
from batchgen.money import Micros

FACTS = RunFacts(total=40, budget=None, concurrency=16, grace_s=300)
PRICE = Micros(37_700)


def stopping(in_flight: int, reason: str) -> str:
    stream = io.StringIO()
    progress = PlainProgress(FACTS, stream)
    for number in range(in_flight):
        progress.observe(AttemptStarted(key=f"k{number}", attempt=f"a{number}", price=PRICE))
    progress.observe(Stopping(reason=reason))
    return stream.getvalue().strip()


@pytest.mark.parametrize(
    ("in_flight", "reason", "expected"),
    [
        (
            10,
            "Ctrl-C",
            (
                "stopping: Ctrl-C; 10 requests are in flight and may be charged; waiting at most"
                " 5m 00s for them. Ctrl-C again leaves them uncertain (up to $0.38)"
            ),
        ),
        (
            1,
            "SIGTERM",
            (
                "stopping: SIGTERM; 1 request is in flight and may be charged; waiting at most"
                " 5m 00s for it. A signal leaves it uncertain (up to $0.04)"
            ),
        ),
        (0, "Ctrl-C", "stopping: Ctrl-C; no request is in flight"),
    ],
)
def test_ctrl_c_says_what_is_in_flight(in_flight: int, reason: str, expected: str) -> None:
    assert stopping(in_flight, reason) == expected


def test_ended_attempts_are_not_in_flight() -> None:
    stream = io.StringIO()
    progress = PlainProgress(FACTS, stream)
    progress.observe(AttemptStarted(key="k", attempt="a", price=PRICE))
    progress.observe(
        AttemptEnded(
            key="k",
            attempt="a",
            outcome=Outcome.OK,
            billed=Billed.YES,
            price=PRICE,
            state=JobState.PAID,
        )
    )
    progress.observe(Stopping(reason="Ctrl-C"))
    assert "no request is in flight" in stream.getvalue()


def test_warnings_beyond_twenty_are_counted() -> None:
    stream = io.StringIO()
    progress = PlainProgress(FACTS, stream)
    for number in range(22):
        progress.observe(JobDone(key=f"k{number}", paths=(), warnings=("smaller",)))
    progress.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 21
    assert lines[-1] == "2 more images with warnings; --json and --log-file list them all"


def test_json_progress_writes_each_event() -> None:
    stream = io.StringIO()
    progress = JsonProgress(FACTS, stream)
    progress.observe(Stopping(reason="Ctrl-C"))
    assert json.loads(stream.getvalue()) == {"event": "stopping", "reason": "Ctrl-C"}
