"""What a log proves, and above all what it does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.job import AttemptId, Billed, Outcome
from batchgen.money import Micros
from batchgen.reconciliation.charges import Charge, UsageLog
from batchgen.reconciliation.log_times import CLOCK_SKEW
from batchgen.reconciliation.matching import reconcile
from batchgen.reconciliation.settlement import Drift, Reconciliation, Sent
from tests.support.charges import (
    CONTROL,
    CONTROL_ROW,
    MODEL,
    PRICE,
    SETTLE,
    A,
    B,
    at,
    found_text,
    row,
    sent,
)


def judge(
    attempts: Sequence[Sent],
    rows: Sequence[Charge],
    *,
    since: float = -60,
    until: float = 600,
    settle: timedelta = SETTLE,
) -> Reconciliation:
    log = UsageLog(charges=tuple(rows), since=at(since), until=at(until))
    return reconcile(attempts, log, settle)


NAMED = sent("a", request_id="id-a")


@pytest.mark.parametrize(
    ("attempts", "rows", "outcome"),
    [
        # By request id.
        ([NAMED], [row(11, "id-a")], "a billed"),
        ([NAMED], [row(11, "id-a"), row(11, "id-a")], "a billed"),
        ([NAMED], [row(200, "id-a", amount=5, model="renamed")], "a billed"),
        ([NAMED], [row(11, "id-a", amount=0)], "a unbilled"),
        ([NAMED], [row(11, "id-a"), row(12, "id-a", amount=5)], "a CONTRADICTION"),
        ([NAMED, B], [row(11, "id-a")], "a billed, b unbilled"),
        (
            [replace(NAMED, billed=Billed.NO, outcome=Outcome.REFUSED)],
            [row(11, "id-a")],
            "a billed",
        ),
        ([replace(NAMED, billed=Billed.NO)], [row(11, "id-a", amount=0)], ""),
        ([replace(NAMED, billed=Billed.NO)], [], ""),
        ([NAMED, replace(B, request_id="id-a")], [row(11, "id-a")], "a AMBIGUOUS, b AMBIGUOUS"),
        # By model, time and amount.
        ([A], [row(12, "x")], "a billed"),
        ([A], [row(12)], "a billed"),
        ([A], [row(27)], "a billed"),
        ([A], [row(71)], "a OTHER_CHARGE, foreign 11"),
        ([A], [row(8.5)], "a billed"),
        ([A], [row(12, amount=37_999)], "a billed"),
        ([A, B], [row(12, "x"), row(13, "y")], "a billed, b billed"),
        ([A, sent("b", 200)], [row(201)], "a unbilled, b billed"),
        ([A, sent("b", 60)], [row(12), row(70)], "a billed, b billed"),
        (
            [A, sent("b", 60)],
            [row(12), row(100)],
            "a SHARED, b OTHER_CHARGE, foreign 12, foreign 40",
        ),
        ([A, sent("b", 20)], [row(25), row(26)], "a billed, b billed"),
        ([A, sent("b", price=50_000)], [row(12, amount=50_000)], "a unbilled, b billed"),
        ([A, sent("b", price=37_800)], [row(12), row(12, amount=37_800)], "a billed, b billed"),
        ([A, sent("b", model="other")], [row(12, model="other")], "a unbilled, b billed"),
        ([NAMED], [row(12, "another-id")], "a OTHER_CHARGE, foreign 12"),
        # By silence.
        ([A], [], "a unbilled"),
        ([A, B], [], "a unbilled, b unbilled"),
        ([A], [row(12, amount=0)], "a unbilled"),
        # A known charge without an id takes its row first.
        ([A, sent("k", 10, billed=Billed.YES)], [row(12)], "a unbilled"),
        ([A, sent("k", 10, billed=Billed.YES)], [row(12), row(12)], "a billed"),
        ([A, sent("k", 10, billed=Billed.YES, ours=False)], [row(12)], "a unbilled"),
        (
            [sent("a", 60), *(sent(name, 10, billed=Billed.YES) for name in ("k", "l"))],
            [row(65), row(100)],
            "a AMBIGUOUS, foreign 40, l missing",
        ),
        # Nothing distinguishes them.
        ([A, B], [row(12)], "a AMBIGUOUS, b AMBIGUOUS"),
        ([A], [row(12), row(13)], "a SURPLUS, foreign 13"),
        ([A, sent("b", 60)], [row(12), row(13)], "a SURPLUS, b unbilled, foreign 13"),
        (
            [A, sent("b", 60), sent("c", 60)],
            [row(12), row(13), row(65)],
            "a SURPLUS, b AMBIGUOUS, c AMBIGUOUS, foreign 13",
        ),
        ([A], [row(12, amount=40_000)], "a OTHER_CHARGE, foreign 12"),
        ([A], [row(12, model="other")], "a unbilled, foreign 12"),
        ([replace(A, ended_at=None, outcome=Outcome.SENDING)], [], "a CUT_OFF"),
        ([replace(A, ended_at=None, outcome=Outcome.SENDING)], [row(12)], "a CUT_OFF"),
        # What the log lacks or has too much.
        ([A, sent("k", 30, billed=Billed.YES, request_id="k")], [], "a UNTRUSTED, k missing"),
        ([sent("k", billed=Billed.YES, request_id="k")], [row(12, "x")], ""),
        ([A], [row(12), row(300, "other")], "a billed"),
        ([A, sent("b", 290)], [row(12), row(300, amount=5)], "a billed, b OTHER_CHARGE, foreign 0"),
        (
            [A, B],
            [row(12), row(12), row(12, "x"), row(12, "x", amount=9)],
            "a SHARED, b SHARED, foreign 12, foreign 12, foreign 12, foreign 12",
        ),
    ],
)
def test_a_log_proves_what_can_be_read_in_one_way_only(
    attempts: list[Sent], rows: list[Charge], outcome: str
) -> None:
    assert found_text(judge([CONTROL, *attempts], [CONTROL_ROW, *rows])) == outcome


@pytest.mark.fault("A11")
@pytest.mark.parametrize(
    ("until", "outcome"), [(71.9, "a YOUNG"), (72, "a unbilled"), (12, "a YOUNG")]
)
def test_silence_proves_nothing_before_the_settle_window_is_over(
    until: float, outcome: str
) -> None:
    assert found_text(judge([CONTROL, A], [CONTROL_ROW], until=until)) == outcome


def test_a_charge_within_the_settle_window_is_proof_at_once() -> None:
    assert found_text(judge([CONTROL, A], [CONTROL_ROW, row(12)], until=13)) == "a billed"


@pytest.mark.fault("A11")
def test_a_known_charge_may_be_late_too_and_proves_nothing_then() -> None:
    known = sent("k", 11, billed=Billed.YES, request_id="k")
    assert (
        found_text(judge([CONTROL, A, known], [CONTROL_ROW], until=72.5)) == "a unbilled, k YOUNG"
    )
    lost = replace(known, started_at=at(2), ended_at=at(4))
    assert (
        found_text(judge([CONTROL, A, lost], [CONTROL_ROW], until=73)) == "a UNTRUSTED, k missing"
    )


KNOWN = replace(sent("k", billed=Billed.YES))
NONE = timedelta(0)


@pytest.mark.parametrize(
    ("rows", "outcome"),
    [
        ([row(40)], ""),
        ([row(40), row(41)], ""),  # the second one is outside of the window
        ([row(71)], ""),
        ([row(73)], "k missing"),
        ([row(40, amount=1_000)], "k missing"),
        ([row(40, model="other")], "k missing"),
        ([], "k missing"),
    ],
)
def test_known_charge_after_the_settle_window_is_found(rows: list[Charge], outcome: str) -> None:
    """An earlier reconciliation with a longer window may have found it there."""
    assert found_text(judge([CONTROL, KNOWN], [CONTROL_ROW, *rows], settle=NONE)) == outcome


def test_late_rows_are_found_once_each() -> None:
    known = [sent(name, billed=Billed.YES) for name in "klm"]
    rows = [CONTROL_ROW, row(40), row(41)]
    assert found_text(judge([CONTROL, *known], rows, settle=NONE)) in ("k missing", "m missing")


def test_late_known_charge_makes_silence_no_proof() -> None:
    """Where one charge is later than the settle window, others may be."""
    later = sent("a", 100)
    found = judge([CONTROL, KNOWN, later], [CONTROL_ROW, row(40)], settle=NONE)
    assert found_text(found) == "a LATE"
    found = judge([CONTROL, KNOWN, later], [CONTROL_ROW, row(12)], settle=NONE)
    assert found_text(found) == "a unbilled"


def test_late_row_between_requests_is_not_foreign() -> None:
    last = sent("z", 200, billed=Billed.YES, request_id="z")
    rows = [CONTROL_ROW, row(40), row(201, "z")]
    assert judge([CONTROL, KNOWN, last], rows, settle=NONE).agrees
    rows.append(row(41))
    assert found_text(judge([CONTROL, KNOWN, last], rows, settle=NONE)) == "foreign 41"


def test_a_log_that_begins_later_proves_nothing() -> None:
    attempts = [replace(CONTROL, started_at=at(100), ended_at=at(102)), A]
    rows = [row(101, "c")]
    assert found_text(judge(attempts, rows, since=9)) == "a BEFORE"
    assert found_text(judge(attempts, rows, since=8)) == "a unbilled"


def test_an_empty_log_proves_nothing() -> None:
    assert found_text(judge([A], [])) == "a NO_CONTROL"
    assert found_text(judge([A, sent("k", billed=Billed.YES)], [])) == "a UNTRUSTED, k missing"


def test_only_attempts_of_the_batch_are_settled() -> None:
    other = sent("o", ours=False, request_id="o")
    found = judge([CONTROL, A, other], [CONTROL_ROW, row(12, "o")])
    assert found_text(found) == "a unbilled"
    assert found.agrees


def test_log_amount_counts_and_drift_is_reported() -> None:
    known = [sent(f"k{n}", billed=Billed.YES, request_id=f"k{n}") for n in range(3)]
    rows = [
        row(11, "k0", amount=38_000),
        row(11, "k1", amount=39_000),
        row(11, "k2", amount=39_000),
    ]
    found = judge([CONTROL, *known], [CONTROL_ROW, *rows])
    assert [(one.attempt.id, one.amount) for one in found.corrected] == [
        *(("k0", 38_000), ("k1", 39_000)),
        ("k2", 39_000),
    ]
    assert found.drift == (Drift(model=MODEL, price=PRICE, amount=Micros(39_000), requests=2),), (
        "0.8 % is not drift"
    )
    assert not found.agrees


@pytest.mark.fault("A12")
def test_fee_for_a_refusal_causes_no_drift() -> None:
    fee = replace(NAMED, outcome=Outcome.BLOCKED)
    found = judge([CONTROL, fee], [CONTROL_ROW, row(11, "id-a", amount=5_000)])
    assert [(one.attempt.id, one.amount) for one in found.billed] == [("a", 5_000)]
    assert found.agrees


def test_the_id_of_a_row_is_kept_where_it_is_one_attempts_own() -> None:
    both = judge([CONTROL, A, B], [CONTROL_ROW, row(12, "x"), row(12, "y")])
    assert {one.request_id for one in both.billed} == {None}
    alone = judge([CONTROL, A], [CONTROL_ROW, row(12, "x")])
    assert {one.request_id for one in alone.billed} == {"x"}


def test_lost_responses_are_matched_by_the_amount_of_known_ones() -> None:
    dearer = row(1, "c", amount=50_000)
    found = judge([CONTROL, A], [dearer, row(12, amount=50_000)])
    assert [(one.attempt.id, one.amount) for one in found.billed] == [("a", 50_000)]
    assert found.foreign == ()
    assert [(drift.amount, drift.requests) for drift in found.drift] == [(50_000, 2)]


def test_a_batch_without_attempts_agrees() -> None:
    assert judge([], [row(1, "x")]).agrees


MINUTES = st.integers(0, 240)
IDS = st.sampled_from([None, "p", "q", "r", "s"])
ATTEMPTS = st.lists(
    st.builds(
        sent,
        st.just(""),
        MINUTES,
        billed=st.sampled_from(Billed),
        request_id=IDS,
        price=st.sampled_from([PRICE, 37_800, 50_000]),
        ours=st.sampled_from([True, True, False]),
    ),
    max_size=8,
).map(lambda found: [replace(one, id=AttemptId(f"a{n}")) for n, one in enumerate(found)])
ROWS = st.lists(
    st.builds(row, MINUTES, IDS, amount=st.sampled_from([PRICE, 37_800, 50_000, 0])), max_size=8
)


@given(ATTEMPTS, ROWS, st.randoms(), st.integers(60, 400))
def test_order_and_repetition_make_no_difference(
    attempts: list[Sent], rows: list[Charge], dice: Random, until: int
) -> None:
    found = judge(attempts, rows, until=until)
    shuffled, again = list(attempts), [*rows, *(one for one in rows if one.request_id)]
    dice.shuffle(shuffled)
    dice.shuffle(again)
    assert judge(shuffled, again, until=until) == found


@given(ATTEMPTS, ROWS, st.integers(60, 400))
def test_no_row_pays_for_two_and_no_attempt_has_two_fates(
    attempts: list[Sent], rows: list[Charge], until: int
) -> None:
    found = judge(attempts, rows, until=until)
    fates = [one.attempt.id for one in found.billed]
    fates += [one.attempt.id for one in found.unproven]
    fates += [one.attempt.id for one in found.unbilled]
    fates += [one.id for one in found.missing]
    assert len(fates) == len(set(fates))
    ours = {one.id: one for one in attempts if one.ours}
    assert set(fates) <= set(ours)
    uncertain = {name for name, one in ours.items() if one.billed is Billed.MAYBE}
    assert uncertain <= set(fates), "an uncertain attempt without a result"
    settled = [one for one in (*found.billed, *found.corrected) if one.amount]
    assert len(settled) + len(found.foreign) <= len(rows)
    assert {one.attempt.id for one in found.unbilled} <= uncertain


def test_thousands_of_uncertain_attempts_are_settled() -> None:
    attempts = [sent(f"a{n}", n / 100) for n in range(20_000)]
    rows = [row(n / 100 + 1) for n in range(20_000)]
    assert len(judge([CONTROL, *attempts], [CONTROL_ROW, *rows]).billed) == 20_000


def test_clock_of_the_provider_may_be_late() -> None:
    early = A.started_at - CLOCK_SKEW
    charge = replace(row(0), at=early)
    assert found_text(judge([CONTROL, A], [CONTROL_ROW, charge])) == "a billed"
    late = replace(charge, at=early - timedelta(seconds=1))
    assert found_text(judge([CONTROL, A], [CONTROL_ROW, late])) == "a unbilled, foreign 7"
