"""Build charges of a billing log and attempts to match with them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from batchgen.job import AttemptId, Billed, Outcome
from batchgen.money import Micros
from batchgen.reconciliation.charges import Charge
from batchgen.reconciliation.settlement import Reconciliation, Sent

PRICE = Micros(37_700)
SETTLE = timedelta(minutes=60)
BEGIN = datetime(2026, 11, 22, 2, tzinfo=UTC)
MODEL = "gpt-image-2"


def at(minutes: float) -> datetime:
    return BEGIN + timedelta(minutes=minutes)


def sent(
    name: str,
    minute: float = 10,
    *,
    billed: Billed = Billed.MAYBE,
    request_id: str | None = None,
    price: int = PRICE,
    model: str = MODEL,
    outcome: Outcome | None = None,
    ours: bool = True,
) -> Sent:
    """An attempt of two minutes."""
    usual = {Billed.YES: Outcome.OK, Billed.NO: Outcome.REFUSED, Billed.MAYBE: Outcome.AMBIGUOUS}
    return Sent(
        id=AttemptId(name),
        key=name,
        ours=ours,
        model=model,
        price=Micros(price),
        cost=Micros(price if billed is Billed.YES else 0),
        started_at=at(minute),
        ended_at=at(minute + 2),
        outcome=outcome or usual[billed],
        billed=billed,
        request_id=request_id,
    )


def row(
    minute: float, request_id: str | None = None, *, amount: int = PRICE, model: str = MODEL
) -> Charge:
    return Charge(at=at(minute), model=model, amount=Micros(amount), request_id=request_id)


CONTROL = sent("control", 0, billed=Billed.YES, request_id="c")
CONTROL_ROW = row(1, "c")
"""An attempt that is known to be billed, with its row: the log is ours."""


def found_text(found: Reconciliation) -> str:
    """A reconciliation in a line: what is settled and what is left open, but for the control."""
    parts = [f"{settled.attempt.id} billed" for settled in found.billed]
    parts += [f"{one.attempt.id} unbilled" for one in found.unbilled]
    parts += [f"{one.attempt.id} {one.why.name}" for one in found.unproven]
    parts += [f"{one.id} missing" for one in found.missing]
    parts += [f"foreign {charge.at.minute}" for charge in found.foreign]
    return ", ".join(sorted(parts))


A, B = sent("a", 10), sent("b", 11)
