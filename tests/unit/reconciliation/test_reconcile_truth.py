"""Refunds, foreign charges and late rows: what a log is said to prove is true."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.job import AttemptId, Billed
from batchgen.money import ZERO, Micros
from batchgen.reconciliation.charges import Charge, UsageLog
from batchgen.reconciliation.log_times import PROOF_DELAY
from batchgen.reconciliation.matching import reconcile
from batchgen.reconciliation.settlement import Reconciliation, Sent
from tests.support.charges import (
    CONTROL,
    CONTROL_ROW,
    PRICE,
    SETTLE,
    A,
    at,
    found_text,
    row,
    sent,
)

NAMED = sent("a", request_id="i")
PAID = sent("a", billed=Billed.YES, request_id="i")


def judge(
    attempts: list[Sent],
    charges: list[Charge],
    refunds: list[Charge],
    others: tuple[Charge, ...] = (),
) -> Reconciliation:
    log = UsageLog(
        charges=(CONTROL_ROW, *charges),
        refunds=tuple(refunds),
        others=others,
        since=at(-60),
        until=at(600),
    )
    return reconcile([CONTROL, *attempts], log, SETTLE)


@pytest.mark.fault("XB1")
@pytest.mark.parametrize(
    ("attempt", "refunds", "outcome", "amounts"),
    [
        (NAMED, [row(300, "i")], "a unbilled", [0]),
        (NAMED, [row(300, "i", amount=10_000)], "a billed", [27_700]),
        (NAMED, [row(30, "i", amount=10_000), row(40, "i", amount=5)], "a billed", [27_695]),
        (NAMED, [row(30, "i", amount=40_000)], "a CONTRADICTION", []),
        # One refund that the log has twice, or two? Unless two would be more than was charged.
        (NAMED, [row(30, "i", amount=10), row(30, "i", amount=10)], "a CONTRADICTION", []),
        (NAMED, [row(30, "i"), row(30, "i")], "a unbilled", [0]),
        (PAID, [row(300, "i")], "", [0]),
        (PAID, [row(300, "i", amount=10_000)], "", [27_700]),
        (PAID, [row(300, "j")], "", []),
        (A, [row(30, "z")], "a unbilled", [0]),  # its row, by numbers, is refunded
        (A, [row(30)], "a REFUND", []),
    ],
)
def test_a_refunded_charge_is_not_charged(
    attempt: Sent, refunds: list[Charge], outcome: str, amounts: list[int]
) -> None:
    charge = row(12, attempt.request_id or "z")
    found = judge([attempt], [charge], refunds)
    assert found_text(found) == outcome
    settled = (*found.billed, *found.unbilled, *found.corrected)
    assert [one.amount for one in settled] == amounts


@pytest.mark.fault("XB1")
def test_a_log_that_ends_before_a_refund_does_not_undo_it() -> None:
    refunded = replace(PAID, billed=Billed.NO, cost=ZERO, refunded=PRICE)
    assert found_text(judge([refunded], [row(12, "i")], [])) == ""
    partly = replace(PAID, cost=Micros(27_700), refunded=Micros(10_000))
    assert judge([partly], [row(12, "i")], []).corrected == ()
    assert judge([partly], [row(12, "i")], [row(300, "i", amount=10_000)]).corrected == ()


@pytest.mark.fault("XB1")
def test_a_refund_of_a_charge_before_the_log_is_subtracted() -> None:
    (one,) = judge([PAID], [], [row(300, "i", amount=10_000)]).corrected
    assert (one.amount, one.refunded) == (27_700, 10_000)


@pytest.mark.fault("XB1")
def test_a_row_of_an_unknown_kind_proves_nothing() -> None:
    assert found_text(judge([NAMED], [row(12, "i")], [], (row(13, "i"),))) == (
        "a CONTRADICTION, foreign 13"
    )


@pytest.mark.fault("XB1")
def test_refunds_of_some_alike_charges_are_nobodys_in_particular() -> None:
    both = [A, sent("b", 11)]
    rows = [row(12, "y"), row(12, "z")]
    assert found_text(judge(both, rows, [row(30, "z")])) == "a MIXED, b MIXED"
    assert found_text(judge(both, rows, [row(30, "z"), row(31, "y")])) == "a unbilled, b unbilled"


@pytest.mark.fault("XB4")
@pytest.mark.parametrize(
    ("foreign", "outcome"),
    [
        (row(70, "z"), "a OTHER_CHARGE, foreign 10"),
        (row(12, "req-42"), "a OTHER_CHARGE, foreign 12"),
        (row(12, "z"), "a billed"),
    ],
)
def test_an_equal_charge_is_proof_only_as_a_row_of_ours(foreign: Charge, outcome: str) -> None:
    found = judge([A], [foreign], [])
    assert found_text(found) == outcome
    assert found.agrees == (outcome == "a billed")


def new_api(minute: float, tail: str = "MIWNXDFl", zone: int = 8) -> str:
    """An id that begins with the gateway's local time."""
    return f"{at(minute + 60 * zone):%Y%m%d%H%M%S}123456789{tail}"


@pytest.mark.fault("XB4")
@pytest.mark.parametrize(
    ("request_id", "outcome"),
    [
        (new_api(10), "a billed"),
        (new_api(12), "a billed"),
        (new_api(2), "a OTHER_CHARGE, foreign 12"),
        (new_api(10, zone=0), "a OTHER_CHARGE, foreign 12"),
    ],
)
def test_the_time_in_an_id_is_that_of_its_request(request_id: str, outcome: str) -> None:
    control = replace(CONTROL, request_id=new_api(0))
    log = UsageLog(
        charges=(replace(CONTROL_ROW, request_id=new_api(0)), row(12, request_id)),
        since=at(-60),
        until=at(600),
    )
    assert found_text(reconcile([control, A], log, SETTLE)) == outcome


@pytest.mark.fault("XB4")
def test_a_log_without_ids_is_matched_by_numbers_alone() -> None:
    control = replace(CONTROL, request_id=None)
    log = UsageLog(charges=(row(1), row(71)), since=at(-60), until=at(600))
    assert found_text(reconcile([control, A], log, SETTLE)) == "a billed"


@pytest.mark.fault("XB4")
@pytest.mark.parametrize(
    ("others", "rows", "outcome"),
    [
        # The row fits a in time; it may also be the late charge of b, which has no row.
        ([sent("b", 0)], [row(27, "z")], "a SHARED, b OTHER_CHARGE, foreign 27"),
        ([sent("b", 0), sent("c", 1)], [row(27, "z")], None),
        # b has a row of its own, so both are charged, whichever row is whose.
        ([sent("b", 0)], [row(1, "y"), row(27, "z")], "a billed, b billed"),
        # c has no row and may own that of b; then b may own that of a.
        ([sent("b", 0), sent("c", -40)], [row(1, "y"), row(27, "z")], None),
        # One row for a and b, at the same time; it may also be the late charge of c.
        ([sent("b", 13), sent("c", 0)], [row(27, "z")], None),
        # b is charged for sure, but the second row may be late for it, or not ours.
        (
            [sent("b", 10, billed=Billed.YES)],
            [row(12, "y"), row(50, "z")],
            "a SHARED",
        ),
        # Another price, or a time out of reach, makes no claim.
        ([sent("b", 0, price=50_000)], [row(27, "z")], "a billed, b unbilled"),
        ([sent("b", 200)], [row(27, "z")], "a billed, b unbilled"),
    ],
)
def test_late_charge_of_another_attempt_is_possible(
    others: list[Sent], rows: list[Charge], outcome: str | None
) -> None:
    found = judge([sent("a", 13), *others], rows, [])
    if outcome is None:
        assert (found.billed, found.unbilled) == ((), ())
    else:
        assert found_text(found) == outcome


@pytest.mark.fault("XB1", "XB4")
def test_late_charge_refunded_whole_is_free_for_all() -> None:
    attempts = [sent("a", 13), sent("b", 0)]
    assert found_text(judge(attempts, [row(27, "z")], [row(28, "z")])) == "a unbilled, b unbilled"


@dataclass(frozen=True)
class Bill:
    """A night as it truly was, and the log of it."""

    attempts: list[Sent]
    net: dict[AttemptId, int]
    log: UsageLog
    twins: list[Charge]
    """Foreign charges that look like ours."""


MINUTES = st.integers(0, 240)
AMOUNTS = st.sampled_from([PRICE, 50_000])


@st.composite
def bills(draw: st.DrawFn) -> Bill:
    """Own attempts with charges, refunds, late rows and repeated rows; and foreign ones."""
    attempts, net = list[Sent](), dict[AttemptId, int]()
    charges, refunds, twins = [CONTROL_ROW], list[Charge](), list[Charge]()
    for number in range(draw(st.integers(0, 6))):
        known, price = (
            draw(st.sampled_from([Billed.MAYBE, Billed.MAYBE, Billed.YES])),
            draw(AMOUNTS),
        )
        name = chr(ord("g") + number)
        shown = name if draw(st.booleans()) else None
        one = sent(name, draw(MINUTES), billed=known, price=price, request_id=shown)
        attempts.append(one)
        net[one.id] = 0
        if known is Billed.YES or draw(st.booleans()):
            late = draw(st.sampled_from([0, 1, 2, 30, 62]))
            paid = Charge(
                at=one.started_at + timedelta(minutes=late),
                model=one.model,
                amount=Micros(price),
                request_id=name,
                row=f"row {number}",
            )
            given = draw(st.sampled_from([0, 0, 10_000, price]))
            net[one.id] = price - given
            charges.append(paid)
            if given:
                refund = replace(paid, amount=Micros(given), row=f"refund {number}")
                refunds.append(replace(refund, at=paid.at + timedelta(minutes=draw(MINUTES))))
    for number in range(draw(st.integers(0, 4))):
        looks_ours = draw(st.booleans())
        name = str(number) if looks_ours else f"someone-{number}"
        charge = replace(row(draw(MINUTES), name, amount=draw(AMOUNTS)), row=f"foreign {number}")
        charges.append(charge)
        if looks_ours:
            twins.append(charge)
    dice = Random(draw(st.integers(0, 9)))
    log = UsageLog(
        charges=tuple(charges + [one for one in charges if dice.random() < 0.3]),
        refunds=tuple(refunds + [one for one in refunds if dice.random() < 0.3]),
        since=at(-60),
        until=at(draw(st.sampled_from([30, 120, 700]))),
    )
    return Bill(attempts, net, visible(log), twins)


def visible(log: UsageLog) -> UsageLog:
    """Only the rows that are written by the time the log is read."""
    return replace(
        log,
        charges=tuple(one for one in log.charges if one.at <= log.until),
        refunds=tuple(one for one in log.refunds if one.at <= log.until),
    )


def shown(log: UsageLog, attempt: Sent, net: int) -> int:
    """What the attempt truly costs as far as the log has it: refunds may still come."""
    back = sum(
        {one.row: one.amount for one in log.refunds if one.request_id == attempt.id}.values()
    )
    gross = any(one.request_id == attempt.id for one in log.charges)
    return max(net, attempt.price - back) if gross else net


def apply(attempts: list[Sent], found: Reconciliation) -> list[Sent]:
    """The attempts as the ledger has them afterwards."""
    settled = {one.attempt.id: one for one in (*found.billed, *found.unbilled, *found.corrected)}
    return [
        replace(
            one,
            billed=Billed.YES if settled[one.id].amount else Billed.NO,
            cost=settled[one.id].amount,
            refunded=settled[one.id].refunded,
            request_id=one.request_id or settled[one.id].request_id,
        )
        if one.id in settled
        else one
        for one in attempts
    ]


@pytest.mark.fault("XB1", "XB4")
@given(bills())
def test_reconcile_never_contradicts_the_true_bill(bill: Bill) -> None:
    found = reconcile([CONTROL, *bill.attempts], bill.log, SETTLE)
    truth = {one.id: shown(bill.log, one, bill.net[one.id]) for one in bill.attempts}
    truth[CONTROL.id] = PRICE
    for one in found.unbilled:
        assert truth[one.attempt.id] == 0, "charged, and said to be free"
    for one in found.corrected:
        assert truth[one.attempt.id] == one.amount
    for one in found.billed:
        # A foreign charge of the same amount, form and time can't be distinguished from ours.
        if not any(fits(twin, bill.attempts) for twin in bill.twins):
            assert truth[one.attempt.id] == one.amount, "not charged, or less"


def fits(twin: Charge, attempts: list[Sent]) -> bool:
    return any(
        one.price == twin.amount
        and one.started_at - timedelta(minutes=2) <= twin.at
        and twin.at <= (one.ended_at or twin.at) + PROOF_DELAY
        for one in attempts
        if one.billed is Billed.MAYBE
    )


@pytest.mark.fault("XB1")
@given(bills())
def test_reconcile_twice_changes_nothing(bill: Bill) -> None:
    first = reconcile([CONTROL, *bill.attempts], bill.log, SETTLE)
    after = apply([CONTROL, *bill.attempts], first)
    again = reconcile(after, bill.log, SETTLE)
    assert (again.billed, again.unbilled, again.corrected) == ((), (), ())
