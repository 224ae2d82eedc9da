"""The line that shows a run's progress: fields by worth, fitted to the terminal."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.console.live_line import live_line, log_line
from batchgen.console.tally import Counter, RunFacts
from batchgen.engine.events import AttemptEnded, AttemptStarted, JobDone, RunEvent
from batchgen.engine.throttle.limits import DispatchStatus
from batchgen.job import Billed, JobState, Outcome
from batchgen.money import Micros

PRICE = Micros(37_700)
BUDGET = Micros(80_000_000)
COOL_DOWN = "cool-down after 429 or 503: 1 s"
SGR = re.compile(r"\x1b\[\d*m")


def status(*, waiting_for: str | None = None, width: int = 16) -> DispatchStatus:
    return DispatchStatus(in_flight=16, width=width, waiting_for=waiting_for, stopped=None)


def started(number: int) -> AttemptStarted:
    return AttemptStarted(key=f"k{number}", attempt=f"a{number}", price=PRICE)


def ended(number: int, billed: Billed, state: JobState) -> AttemptEnded:
    return AttemptEnded(
        key=f"k{number}",
        attempt=f"a{number}",
        outcome=Outcome.OK,
        billed=billed,
        price=PRICE,
        state=state,
    )


def counter(*, done: int = 375, total: int = 2_000, budget: Micros | None = BUDGET) -> Counter:
    """Return a counter after two minutes with some images, 16 requests in flight and a failure."""
    now = [0.0]
    facts = RunFacts(total=total, budget=budget, concurrency=16, grace_s=300)
    made = Counter(facts, clock=lambda: now[0])
    now[0] = 100.0
    events: list[RunEvent] = []
    for number in range(done):
        events += [started(number), ended(number, Billed.YES, JobState.DONE)]
        events.append(JobDone(key=f"k{number}", paths=()))
    events += [started(number) for number in range(done, done + 17)]
    events.append(ended(done, Billed.MAYBE, JobState.UNCERTAIN))
    for event in events:
        made.count(event)
    now[0] = 120.0
    return made


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (60, "  375/2,000   8m 40s left  $14.14 of $80.00  1 failed"),
        (80, "  375/2,000   8m 40s left  $14.14 of $80.00  1 failed  429: wait 1s   188/min"),
        (
            120,
            (
                "  375/2,000   8m 40s left  $14.14 of $80.00  1 failed  429: wait 1s   188/min"
                "  16 in flight  possible $0.04"
            ),
        ),
        (
            200,
            (
                "  375/2,000   8m 40s left  $14.14 of $80.00  1 failed"
                "  waiting for cool-down after 429 or 503: 1 s   188/min  16 in flight"
                "  possible $0.04  $0.60 reserved"
            ),
        ),
    ],
)
def test_live_line_drops_least_important_fields(width: int, expected: str) -> None:
    line = live_line(counter(), status(waiting_for=COOL_DOWN), width, color=False)
    assert line == expected


@given(st.integers(20, 250), st.integers(0, 30), st.sampled_from([None, COOL_DOWN, "breaker: x"]))
def test_live_line_never_exceeds_the_width(width: int, done: int, wait: str | None) -> None:
    line = live_line(counter(done=done), status(waiting_for=wait), width, color=True)
    assert len(SGR.sub("", line)) <= width


def test_live_line_keeps_positions_while_numbers_grow() -> None:
    few, many = (
        live_line(counter(done=done, total=2_000), status(), 200, color=False)
        for done in (3, 1_500)
    )
    places = [
        [line.index(word) for word in ("/2,000", " of $80", " failed")] for line in (few, many)
    ]
    assert places[0] == places[1]


def test_live_line_names_a_reduced_width() -> None:
    assert "slowed by 429 or overload to 6 of 16" in live_line(
        counter(), status(width=6), 200, color=False
    )
    assert "slowed: 6/16" in live_line(counter(), status(width=6), 80, color=False)


def test_live_line_names_a_learned_rate() -> None:
    learned = replace(status(width=6), per_minute=57.6)
    assert "slowed by 429 to 58 per minute" in live_line(counter(), learned, 200, color=False)
    assert "slowed: 58/min" in live_line(counter(), learned, 80, color=False)
    fast = replace(status(), per_minute=12_000.0)
    assert "slowed" not in live_line(counter(), fast, 200, color=False)


def test_live_line_without_a_budget_shows_the_charge() -> None:
    assert " $14.14 charged" in live_line(counter(budget=None), status(), 200, color=False)


def test_live_line_colors_failures_and_causes() -> None:
    line = live_line(counter(), status(waiting_for=COOL_DOWN), 200, color=True)
    assert "\x1b[31m1 failed\x1b[0m" in line
    assert f"\x1b[33mwaiting for {COOL_DOWN}\x1b[0m" in line


def test_log_line_says_everything_in_words() -> None:
    assert log_line(counter(), status(waiting_for=COOL_DOWN)) == (
        "375 of 2,000 jobs done, about 8m 40s left, 188 images per minute,"
        " charged $14.14 of $80.00, possible $0.04, reserved $0.60, 1 failed,"
        " waiting for cool-down after 429 or 503: 1 s, 16 of 16 in flight"
    )


def test_time_left_is_unknown_without_an_image() -> None:
    assert counter(done=0).left_s() is None
    assert " left" not in live_line(counter(done=0), status(), 200, color=False)
