"""Tables of what follows from a verdict."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.fetch_policy import (
    FetchAgain,
    FetchLater,
    FetchLost,
    FetchResult,
    FetchSpoiled,
    after_fetch,
    reference_wait_s,
)
from batchgen.job import Billed, JobState, Outcome
from batchgen.money import ZERO, Micros
from batchgen.outcome import UPLOAD_CUT, Verdict
from batchgen.policy import Next, Waste, after_attempt, parse_waste

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
    verdict = Verdict(outcome=outcome, billed=Billed.NO, code="code", again=again)
    return after_attempt(
        verdict,
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


def test_what_is_told_of_each_end_of_an_attempt() -> None:
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
        assert following(outcome) == Next(state=held, reason="code", counts_doubt=True)
        assert following(outcome, max_waste=PRICE) == Next(
            state=JobState.PENDING, reason="code", wait_s=wait, counts_doubt=True, wasted=PRICE
        )


@pytest.mark.fault("XC6")
def test_third_cut_upload_fails_the_job() -> None:
    def after(cuts: int, code: str = UPLOAD_CUT) -> Next:
        verdict = Verdict(outcome=Outcome.SAFE, billed=Billed.NO, code=code, message="9 bytes")
        return after_attempt(
            verdict, tries=0, doubts=0, cuts=cuts, price=PRICE, wasted=ZERO, max_waste=ZERO
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
        verdict = Verdict(outcome=Outcome.REFUSED, billed=Billed.NO, code="code", again=again)
        return after_attempt(
            verdict, tries=0, doubts=0, price=PRICE, wasted=ZERO, max_waste=ZERO, probe=True
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
    verdict = Verdict(
        outcome=Outcome.BLOCKED, billed=Billed.NO, code="moderation_blocked", message="no: never"
    )
    zero = Micros(0)
    after = after_attempt(verdict, tries=0, doubts=0, price=PRICE, wasted=zero, max_waste=zero)
    assert after.reason == "moderation_blocked: no: never"


def test_an_attempt_that_nobody_saw_end_is_a_doubt() -> None:
    assert following(Outcome.SENDING).state is JobState.UNCERTAIN
    assert following(Outcome.SENDING, max_waste=PRICE).wasted == PRICE


@pytest.mark.parametrize("outcome", [Outcome.AMBIGUOUS, Outcome.SPOILED])
def test_doubt_is_bought_again_once_a_job_within_the_allowance(outcome: Outcome) -> None:
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
        assert refused.counts_doubt


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
    with pytest.raises(ValueError, match="not"):
        parse_waste(text)


@pytest.mark.fault("B09")
@pytest.mark.parametrize("status", [403, 404, 410])
def test_an_address_that_is_gone_gets_a_few_short_tries(status: int) -> None:
    gone = FetchResult(status=status)
    assert [after_fetch(gone, tries=n) for n in (1, 2, 3)] == [
        FetchAgain(1.0),
        FetchAgain(2.0),
        FetchAgain(4.0),
    ]
    assert isinstance(after_fetch(gone, tries=4), FetchLost)


@pytest.mark.fault("B10", "N26")
def test_a_passing_fault_is_tried_hard_and_left_to_the_next_run() -> None:
    fault = FetchResult(detail="connection reset")
    waits = [after_fetch(fault, tries=n) for n in range(1, 8)]
    assert all(isinstance(wait, FetchAgain) and 1 <= wait.wait_s <= 60 for wait in waits)
    assert isinstance(after_fetch(fault, tries=8), FetchLater)


def test_a_server_that_names_a_wait_is_given_it_up_to_a_minute() -> None:
    assert after_fetch(FetchResult(status=503, retry_after_s=20), tries=1) == FetchAgain(20)
    assert after_fetch(FetchResult(status=503, retry_after_s=900), tries=1) == FetchAgain(60)


def test_bad_bytes_are_fetched_three_times_and_then_spoiled() -> None:
    bad = FetchResult(bad_picture="truncated")
    assert isinstance(after_fetch(bad, tries=2), FetchAgain)
    assert after_fetch(bad, tries=3) == FetchSpoiled("truncated")


def test_a_forbidden_address_is_not_asked_again() -> None:
    assert after_fetch(FetchResult(forbidden="10.0.0.1"), tries=1) == FetchLater("10.0.0.1")


@given(
    status=st.none() | st.integers(100, 599),
    bad_picture=st.sampled_from(["", "truncated"]),
    wait_s=st.none() | st.floats(0, 1e9),
)
def test_every_download_ends_after_a_few_short_waits(
    status: int | None, bad_picture: str, wait_s: float | None
) -> None:
    result = FetchResult(status=status, bad_picture=bad_picture, retry_after_s=wait_s, detail="x")
    decisions = [after_fetch(result, tries=tries) for tries in range(1, 9)]
    assert all(d.wait_s <= 60 for d in decisions if isinstance(d, FetchAgain))
    assert not isinstance(decisions[-1], FetchAgain)


def test_a_download_that_is_left_says_how_it_failed_last() -> None:
    assert after_fetch(FetchResult(status=503), tries=8) == FetchLater(
        "download failed 8 times, last with HTTP 503"
    )
    assert after_fetch(FetchResult(detail="reset"), tries=8) == FetchLater(
        "download failed 8 times, last with reset"
    )


@pytest.mark.parametrize(
    ("result", "waits"),
    [
        (FetchResult(status=503), [1.0, 2.0, None]),
        (FetchResult(status=429, retry_after_s=7), [7.0, 7.0, None]),
        (FetchResult(status=429, retry_after_s=7000), [30.0, 30.0, None]),
        (FetchResult(detail="reset"), [1.0, 2.0, None]),
        (FetchResult(status=404), [None]),
        (FetchResult(status=403), [None]),
        (FetchResult(forbidden="no public address"), [None]),
        (FetchResult(bad_picture="an HTML page"), [None]),
    ],
)
def test_a_reference_image_is_asked_for_again_only_where_that_may_help(
    result: FetchResult, waits: list[float | None]
) -> None:
    tries = range(1, len(waits) + 1)
    assert [reference_wait_s(result, tries=number) for number in tries] == waits
