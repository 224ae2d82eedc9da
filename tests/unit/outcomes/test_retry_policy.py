"""Tables of what follows from a classification."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.job import Billed, JobState, Outcome
from batchgen.money import ZERO, Micros
from batchgen.outcomes.classify import UPLOAD_CUT, Classification
from batchgen.outcomes.download_policy import (
    FetchAgain,
    FetchLater,
    FetchLost,
    FetchResult,
    after_extra,
    after_fetch,
    asked_wait_s,
    keep_until,
    reference_wait_s,
)
from batchgen.outcomes.retry_policy import Next, Waste, after_attempt, parse_waste

PRICE = Micros(37_700)


def following(
    outcome: Outcome,
    *,
    again: bool = False,
    tries: int = 0,
    doubts: int = 0,
    wasted: int = 0,
    max_waste: int = 0,
    hold: bool = False,
) -> Next:
    classification = Classification(outcome=outcome, billed=Billed.NO, code="code", again=again)
    return after_attempt(
        classification,
        tries=tries,
        doubts=doubts,
        price=PRICE,
        wasted=Micros(wasted),
        max_waste=Micros(max_waste),
        hold=hold,
    )


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Outcome.OK, JobState.PAID),
        (Outcome.SAFE, JobState.PENDING),
        (Outcome.THROTTLED, JobState.PENDING),
        (Outcome.STOP, JobState.PENDING),
        (Outcome.BLOCKED, JobState.BLOCKED),
        (Outcome.REFUSED, JobState.FAILED),
        (Outcome.AMBIGUOUS, JobState.UNCERTAIN),
        (Outcome.SPOILED, JobState.FAILED),
    ],
)
def test_where_a_job_goes_without_any_allowance(outcome: Outcome, state: JobState) -> None:
    assert following(outcome).state is state


def test_next_state_for_each_outcome_of_an_attempt() -> None:
    """Whole, for what is forgotten here is asked or paid for once more."""
    wait = following(Outcome.REFUSED).wait_s
    assert following(Outcome.OK) == Next(state=JobState.PAID)
    assert following(Outcome.BLOCKED) == Next(state=JobState.BLOCKED, reason="code")
    assert following(Outcome.REFUSED, again=True) == Next(
        state=JobState.PENDING, reason="code", wait_s=wait, counts_try=True
    )
    for outcome, held in (
        (Outcome.AMBIGUOUS, JobState.UNCERTAIN),
        (Outcome.SENDING, JobState.UNCERTAIN),
        (Outcome.SPOILED, JobState.FAILED),
    ):
        assert following(outcome) == Next(state=held, reason="code", counts_uncertain=True)
        assert following(outcome, max_waste=PRICE) == Next(
            state=JobState.PENDING, reason="code", wait_s=wait, counts_uncertain=True, wasted=PRICE
        )


@pytest.mark.fault("XC6")
def test_third_cut_upload_fails_the_job() -> None:
    def after(cuts: int, code: str = UPLOAD_CUT) -> Next:
        classification = Classification(
            outcome=Outcome.SAFE, billed=Billed.NO, code=code, message="9 bytes"
        )
        return after_attempt(
            classification, tries=0, doubts=0, cuts=cuts, price=PRICE, wasted=ZERO, max_waste=ZERO
        )

    waits = [after(cuts).wait_s for cuts in range(2)]
    assert 0 < waits[0] < waits[1]
    assert [after(cuts).state for cuts in (0, 1, 2, 9)] == [
        JobState.PENDING,
        JobState.PENDING,
        JobState.FAILED,
        JobState.FAILED,
    ]
    assert all(after(cuts).counts_cut for cuts in range(3))
    assert after(2).reason == "upload_cut: 9 bytes (3 times)"
    unreachable = after(9, "unreachable")
    assert (unreachable.state, unreachable.counts_cut) == (JobState.PENDING, False)


def test_a_probe_that_fails_for_the_moment_counts_no_try() -> None:
    def probed(*, again: bool) -> Next:
        classification = Classification(
            outcome=Outcome.REFUSED, billed=Billed.NO, code="code", again=again
        )
        return after_attempt(
            classification, tries=0, doubts=0, price=PRICE, wasted=ZERO, max_waste=ZERO, probe=True
        )

    assert (probed(again=True).state, probed(again=True).counts_try) == (JobState.PENDING, False)
    assert (probed(again=False).state, probed(again=False).counts_try) == (JobState.FAILED, True)


@pytest.mark.fault("H21", "H34")
def test_a_refusal_of_the_moment_is_asked_once_more_and_no_more() -> None:
    first = following(Outcome.REFUSED, again=True)
    assert first.state is JobState.PENDING
    assert first.wait_s > 0
    assert first.counts_try
    assert following(Outcome.REFUSED, again=True, tries=1).state is JobState.FAILED


def test_what_was_not_the_jobs_fault_counts_against_nothing() -> None:
    for outcome in (Outcome.SAFE, Outcome.THROTTLED, Outcome.STOP):
        assert following(outcome) == Next(state=JobState.PENDING, reason="code")


def test_the_reason_leads_with_the_code_for_reports() -> None:
    classification = Classification(
        outcome=Outcome.BLOCKED, billed=Billed.NO, code="moderation_blocked", message="no: never"
    )
    zero = Micros(0)
    after = after_attempt(
        classification, tries=0, doubts=0, price=PRICE, wasted=zero, max_waste=zero
    )
    assert after.reason == "moderation_blocked: no: never"


def test_attempt_without_a_known_end_is_uncertain() -> None:
    assert following(Outcome.SENDING).state is JobState.UNCERTAIN
    assert following(Outcome.SENDING, max_waste=PRICE).wasted == PRICE


@pytest.mark.parametrize("outcome", [Outcome.AMBIGUOUS, Outcome.SPOILED])
def test_uncertain_job_is_rebought_once_within_the_allowance(outcome: Outcome) -> None:
    allowed = following(outcome, max_waste=PRICE)
    assert allowed.state is JobState.PENDING
    assert allowed.wasted == PRICE
    for refused in (
        following(outcome, max_waste=PRICE - 1),
        following(outcome, max_waste=2 * PRICE, wasted=PRICE + 1),
        following(outcome, max_waste=10 * PRICE, doubts=1),
        following(outcome, max_waste=10 * PRICE, hold=True),
    ):
        assert refused.state is not JobState.PENDING
        assert refused.wasted == ZERO
        assert refused.counts_uncertain


@pytest.mark.parametrize(
    ("text", "estimate", "allowance"),
    [
        ("5%", 1_000_000, 50_000),
        ("0", 1_000_000, 0),
        ("0%", 1_000_000, 0),
        ("100%", 37_700, 37_700),
        ("2.5 %", 1_000_000, 25_000),
        ("0.50", 1, 500_000),
        ("$2", 1, 2_000_000),
        ("5%", 19, 0),
        ("3%", 99, 2),
    ],
)
def test_an_allowance_is_a_share_or_an_amount(text: str, estimate: int, allowance: int) -> None:
    assert parse_waste(text).allowance(Micros(estimate)) == allowance


def test_five_per_cent_is_the_default() -> None:
    assert Waste() == Waste(percent=Decimal(5))


@pytest.mark.parametrize("text", ["", "%", "101%", "-1%", "nan%", "-1", "five", "inf"])
def test_what_is_neither_share_nor_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not|out of range"):
        parse_waste(text)


ANSWERED = datetime(2026, 11, 28, 2, 0, tzinfo=UTC)
FAILURES = {
    "403": FetchResult(status=403),
    "404": FetchResult(status=404),
    "410": FetchResult(status=410),
    "HTML or wrong bytes": FetchResult(bad_image="HTML page: not an image"),
    "503": FetchResult(status=503),
    "connection reset": FetchResult(detail="connection reset"),
    "forbidden IP": FetchResult(forbidden="10.0.0.1"),
}


@pytest.mark.fault("XA1", "B09", "B10", "N26")
@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_a_failed_download_is_tried_again_and_left(failure: FetchResult) -> None:
    until = keep_until(answered_at=ANSWERED, expires_at=None)
    now = until - timedelta(seconds=1)
    decisions = [after_fetch(failure, tries=n, now=now, until=until) for n in range(1, 9)]
    waits = [one.wait_s for one in decisions if isinstance(one, FetchAgain)]
    assert waits == [1, 2, 5, 15, 30, 60, 120]
    assert decisions[-1] == FetchLater(failure.reason)


@pytest.mark.fault("XA1")
@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_an_image_is_lost_only_by_a_late_try(failure: FetchResult) -> None:
    until = keep_until(answered_at=ANSWERED, expires_at=None)
    lost = FetchLost(failure.reason)
    last = after_fetch(failure, tries=1, now=until, until=until)
    week_later = until + timedelta(days=7)
    assert last == (lost if failure.conclusive else FetchAgain(1.0, failure.reason))
    assert after_fetch(failure, tries=1, now=week_later, until=until) == lost


@pytest.mark.fault("XA1", "W10")
@pytest.mark.parametrize(
    ("expires_in", "kept"),
    [
        (None, timedelta(hours=24)),
        (timedelta(hours=2), timedelta(hours=3)),
        (timedelta(days=7), timedelta(days=7, hours=1)),
        (timedelta(days=40_000), timedelta(days=30, hours=1)),
        (timedelta(0), timedelta(hours=24)),
        (timedelta(days=-400), timedelta(hours=24)),
    ],
)
def test_an_image_is_kept_until_its_url_is_over(
    expires_in: timedelta | None, kept: timedelta
) -> None:
    expires_at = None if expires_in is None else ANSWERED + expires_in
    assert keep_until(answered_at=ANSWERED, expires_at=expires_at) == ANSWERED + kept


@pytest.mark.fault("XA1")
@pytest.mark.parametrize(
    ("asked_s", "expires_in_s", "wait_s"),
    [(None, None, 0), (20, None, 20), (9_000, None, 3_600), (900, 600, 300), (20, -5, 20)],
)
def test_the_wait_an_image_host_asks_for_is_obeyed(
    asked_s: float | None, expires_in_s: float | None, wait_s: float
) -> None:
    result = FetchResult(status=503, retry_after_s=asked_s)
    expires_at = None if expires_in_s is None else ANSWERED + timedelta(seconds=expires_in_s)
    found = asked_wait_s(result, now=ANSWERED, expires_at=expires_at)
    assert found == wait_s
    again = after_fetch(
        result, tries=1, now=ANSWERED, until=ANSWERED + timedelta(hours=9), asked_s=found
    )
    assert again == FetchAgain(max(1.0, wait_s), "HTTP 503")


@pytest.mark.fault("XA1")
@given(
    status=st.none() | st.integers(100, 599),
    bad_image=st.sampled_from(["", "truncated"]),
    wait_s=st.none() | st.floats(0, 1e9),
    age_s=st.floats(0, 1e7),
    life_s=st.none() | st.floats(-1e9, 1e9),
)
def test_no_failed_download_loses_an_image_early(
    status: int | None,
    bad_image: str,
    wait_s: float | None,
    age_s: float,
    life_s: float | None,
) -> None:
    result = FetchResult(status=status, bad_image=bad_image, retry_after_s=wait_s, detail="x")
    expires_at = None if life_s is None else ANSWERED + timedelta(seconds=life_s)
    until = keep_until(answered_at=ANSWERED, expires_at=expires_at)
    now = ANSWERED + timedelta(seconds=age_s)
    asked_s = asked_wait_s(result, now=now, expires_at=expires_at)
    decisions = [
        after_fetch(result, tries=tries, now=now, until=until, asked_s=asked_s)
        for tries in range(1, 9)
    ]
    assert until > ANSWERED
    assert all(one.wait_s <= 3_600 for one in decisions if isinstance(one, FetchAgain))
    assert not isinstance(decisions[-1], FetchAgain)
    if now >= until + timedelta(days=7):
        assert isinstance(decisions[0], FetchLost), "no job stays paid forever"
    lost = any(isinstance(one, FetchLost) for one in decisions)
    month = ANSWERED + timedelta(days=30)
    assert not lost or (now >= until and now >= min(expires_at or month, month, until))


@pytest.mark.fault("XA7")
def test_an_extra_image_gets_three_short_tries() -> None:
    gone = FetchResult(status=404)
    assert [after_extra(gone, tries=n) for n in (1, 2, 3)] == [
        FetchAgain(1.0, "HTTP 404"),
        FetchAgain(2.0, "HTTP 404"),
        FetchLost("HTTP 404"),
    ]


@pytest.mark.parametrize(
    ("result", "waits"),
    [
        (FetchResult(status=503), [1.0, 2.0, None]),
        (FetchResult(status=429, retry_after_s=7), [7.0, 7.0, None]),
        (FetchResult(status=429, retry_after_s=7000), [30.0, 30.0, None]),
        (FetchResult(detail="reset"), [1.0, 2.0, None]),
        (FetchResult(status=404), [None]),
        (FetchResult(status=403), [None]),
        (FetchResult(forbidden="not a public IP address"), [None]),
        (FetchResult(bad_image="an HTML page"), [None]),
    ],
)
def test_reference_download_is_retried_if_it_may_help(
    result: FetchResult, waits: list[float | None]
) -> None:
    tries = range(1, len(waits) + 1)
    assert [reference_wait_s(result, tries=number) for number in tries] == waits
