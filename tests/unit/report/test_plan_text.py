"""The words of a quote: what happens to each job, and amounts that a person reads."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from batchgen.ledger.budgets import Budget
from batchgen.ledger.database import open_for_writing
from batchgen.ledger.explain import JobExplanation, LastAttempt
from batchgen.ledger.groups import Group, GroupSum
from batchgen.ledger.history import history
from batchgen.ledger.ledger import Ledger
from batchgen.money import ZERO, Micros, rounded_dollars
from batchgen.planning.changes import MadeOf
from batchgen.planning.cost_estimate import Estimate, Pace, what_if
from batchgen.report.plan_text import plan_text, why_text
from tests.support.builders import enroll, first, pay, planned, start

MADE = MadeOf(fingerprint="a", model="m", prompt="red", options={}, images=(), mask=None)
QUOTE = Estimate(
    requests=16,
    cost=Micros(603_200),
    pace=Pace(concurrency=8, per_minute=None, latency_s=None),
    what_if=None,
)
WHY = JobExplanation(
    group=Group.IN_FLIGHT,
    planned=MADE,
    has_image=False,
    made=None,
    state="sending",
    reason="",
    done_at=None,
    refused=None,
    attempt=LastAttempt(
        sent_at="2026-11-28T20:00:00.000Z", price=Micros(37_700), request_id=None, billed="maybe"
    ),
)


@pytest.mark.fault("XF7")
@pytest.mark.parametrize(
    ("micros", "shown"),
    [
        (37_700, "$0.04"),
        (1_885_000, "$1.89"),
        (53_858, "$0.05"),
        (9_999, "$0.009999"),
        (10_000, "$0.01"),
        (0, "$0.00"),
        (-37_700, "-$0.04"),
    ],
)
def test_amount_of_a_quote_has_two_decimals(micros: int, shown: str) -> None:
    assert rounded_dollars(micros) == shown


@pytest.mark.fault("XF6", "XF7")
def test_plan_line_says_what_happens_to_a_group() -> None:
    groups = {group: GroupSum(16, Micros(603_200)) for group in Group}
    lines = dict(zip(Group, plan_text("b:", groups, QUOTE, []).splitlines()[1:], strict=False))
    assert _words(lines[Group.IN_FLIGHT]) == (
        "16 in flight when the last run was killed; rebought within max_waste $0.60"
    )
    assert lines[Group.HELD].endswith("over max_waste, left uncertain"), "no price: it is not sent"
    assert _words(lines[Group.STALE]) == "16 to be regenerated (refresh) $0.60"
    assert "changed since they failed or were blocked" in lines[Group.REVISED]
    assert "waiting from an earlier run" in lines[Group.PENDING]
    assert {group for group, line in lines.items() if "$" in line} == {
        group for group in Group if group.is_sent or group is Group.SHARED
    }


@pytest.mark.fault("XF7")
def test_limit_is_shown_with_what_it_costs() -> None:
    text = plan_text("b:", {}, QUOTE.limited(1, Micros(37_700), 1), [])
    assert [_words(line) for line in text.splitlines()[1:]] == [
        "16 requests to send, estimated at $0.60",
        "1 of them in this run (--limit) $0.04",
    ]


def _words(line: str) -> str:
    return " ".join(line.split())


@pytest.mark.fault("XF7")
def test_budget_that_is_too_little_is_said() -> None:
    budget = Budget(period="run", max_cost=Micros(100_000), used=ZERO)
    assert "budget for this run: $0.10 left of $0.10; not enough" in plan_text(
        "b:", {}, QUOTE, [budget]
    )


@pytest.mark.fault("XF7")
def test_what_if_names_what_its_price_is_for() -> None:
    shares = {"again_percent": Decimal(8), "accepted_percent": Decimal(70)}
    quote = replace(QUOTE, what_if=what_if(50, Micros(1_885_000), **shares))
    (line,) = plan_text("b:", {}, quote, []).splitlines()[2:]
    assert line == "  if 8 % are made again: $2.04; if 70 % are accepted: $0.058 per accepted image"


@pytest.mark.fault("XF6")
@pytest.mark.parametrize(
    ("group", "then"),
    [
        (Group.IN_FLIGHT, "a run rebuys it within max_waste"),
        (Group.HELD, "so a run leaves it uncertain"),
    ],
)
def test_why_says_what_may_have_been_billed(group: Group, then: str) -> None:
    text = why_text("a", replace(WHY, group=group))
    assert "in flight when the last run was killed; possibly charged $0.04" in text
    assert then in text


@pytest.mark.fault("XF7")
@pytest.mark.parametrize("group", [group for group in Group if group is not Group.RETIRED])
def test_why_has_words_for_every_group(group: Group) -> None:
    text = why_text("a", replace(WHY, group=group, refused="reference: gone"))
    assert text.startswith("a: ")
    assert ("no image of it has been made yet" in text) == (group in (Group.NEW, Group.PENDING))


@pytest.mark.fault("XF7")
@pytest.mark.parametrize(("images", "known"), [(99, False), (100, True)])
def test_time_is_by_the_rate_of_the_last_run(images: int, known: bool, tmp_path: Path) -> None:
    with closing(open_for_writing(tmp_path / "batchgen.db")) as conn:
        ledger = Ledger(conn)
        batch = enroll(ledger, [planned(number) for number in range(images)])
        run = start(ledger, batch)
        for _ in range(images):
            pay(ledger, run, first(ledger, batch))
        conn.execute(
            "UPDATE attempts SET started_at = '2026-11-28T20:00:00.000Z',"
            " ended_at = '2026-11-28T20:02:00.000Z'"
        )
        rate = history(conn, batch, "local").per_minute
    assert (rate is not None) == known
    if rate is not None:
        assert round(rate) == 50
        pace = Pace(concurrency=32, per_minute=None, latency_s=3.0, measured_per_minute=rate)
        assert round(pace.expected_s(500) or 0) == 600
        text = plan_text("b:", {}, replace(QUOTE, requests=500, pace=pace), [])
        assert "time: about 10m 00s (50 images per minute in the last run)" in text
