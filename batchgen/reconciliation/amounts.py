"""Amounts of charges: what a row settles, and which amounts are a price. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from batchgen.job import Billed, Outcome
from batchgen.money import Micros
from batchgen.reconciliation.charges import Charge
from batchgen.reconciliation.settlement import Drift, Sent, Settled

_DRIFT_PERCENT: Final = 1


def settle_by(sent: Sent, charge: Charge) -> Settled:
    """Return what a row says of an attempt: its amount after refunds, in micro-dollars."""
    # A log that ends before a refund does not undo it.
    refunded = min(charge.amount, max(charge.refunded, sent.refunded))
    return Settled(
        attempt=sent,
        amount=Micros(charge.amount - refunded),
        request_id=charge.request_id,
        refunded=Micros(refunded),
    )


def is_correction(settled: Settled) -> bool:
    """Return whether the log differs from what the ledger has of a charged attempt."""
    sent = settled.attempt
    return sent.billed is Billed.YES and (
        settled.amount != sent.cost or settled.refunded != sent.refunded or sent.possible > 0
    )


def keeps_costs(paid: Sequence[tuple[Sent, Charge]]) -> bool:
    """Return whether the known costs are those of the rows, in any order."""
    certain = [(sent, row) for sent, row in paid if sent.billed is not Billed.MAYBE]
    return not any(sent.possible for sent, _ in certain) and (
        Counter(sent.cost for sent, _ in certain) == Counter(row.net for _, row in certain)
    )


def price_drift(paid: Iterable[Settled]) -> tuple[Drift, ...]:
    """Return the charged amounts that differ from the price, by model and price."""
    found = Counter(
        (
            settled.attempt.model,
            settled.attempt.price,
            Micros(settled.amount + settled.refunded),
        )
        for settled in paid
        if settled.attempt.outcome is not Outcome.BLOCKED  # a fee for a refusal is not a price
        and settled.attempt.price_known
        and not _fits(settled.attempt, Micros(settled.amount + settled.refunded))
    )
    return tuple(
        Drift(model=model, price=price, amount=amount, requests=requests)
        for (model, price, amount), requests in sorted(found.items())
    )


def _fits(sent: Sent, amount: Micros) -> bool:
    """Return whether an amount is the price, or lies where the options leave the price open."""
    if sent.least is not None and sent.least <= amount <= sent.price:
        return True
    return not drifts(sent.price, amount)


def drifts(price: Micros, amount: Micros) -> bool:
    """Return whether an amount differs from a price by more than one percent."""
    return abs(amount - price) * 100 > price * _DRIFT_PERCENT
