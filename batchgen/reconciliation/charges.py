"""Rows of a provider's billing log: charges, refunds and other kinds. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from batchgen.money import ZERO, Micros


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """A row of the log. In ``UsageLog.refunds``, the amount is the refund."""

    at: datetime
    model: str
    amount: Micros
    request_id: str | None = None
    row: str | None = None
    """The id of the row in the log; None if the log has no ids."""
    refunded: Micros = ZERO
    """The sum of refunds for the same request."""

    @property
    def net(self) -> Micros:
        """The charge minus its refunds."""
        return Micros(self.amount - self.refunded)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageLog:
    """All rows of an account, or of one of its keys, from ``since`` to ``until``."""

    charges: tuple[Charge, ...]
    since: datetime
    until: datetime
    refunds: tuple[Charge, ...] = ()
    """May include refunds made after ``until``."""
    others: tuple[Charge, ...] = ()
    """Rows with an amount of an unknown kind."""


@dataclass(frozen=True, slots=True)
class Entry:
    """All rows of one request id, without duplicates."""

    charges: Sequence[Charge] = ()
    refunds: Sequence[Charge] = ()
    is_odd: bool = False
    """Whether a row has an unknown kind, or two refunds may be one refund logged twice."""

    def settle(self, known: Micros | None, refunded_before: Micros) -> Charge | None:
        """Return the charge of the request with its refunds; None if its rows contradict.

        ``known`` is the cost before refunds according to the ledger, for a log that begins after
        the charge. ``refunded_before`` is the refund in earlier logs: a log that ends before a
        refund does not undo it.
        """
        if self.is_odd or len(self.charges) > 1:
            return None
        given = max(sum(refund.amount for refund in self.refunds), refunded_before)
        if self.charges:
            charge = self.charges[0]
        elif known is not None and self.refunds:
            charge = replace(self.refunds[0], amount=known)
        else:
            return None
        return replace(charge, refunded=Micros(given)) if given <= charge.amount else None


@dataclass(frozen=True, slots=True)
class Rows:
    """A log sorted by request id."""

    named: Mapping[str, Entry]
    nameless: Sequence[Charge]
    """Charges without a request id."""
    nameless_refunds: Sequence[Charge]
    """Refunds without a request id."""
    others: Sequence[Charge]


def sort_rows(log: UsageLog) -> Rows:
    """Group the rows by request id, and drop duplicates."""
    charges, nameless = _by_request(log.charges)
    refunds, nameless_refunds = _by_request(log.refunds)
    odd = {row.request_id for row in log.others if row.request_id}
    named = {}
    for name in {*charges, *refunds}:
        # A request is charged once, so equal rows are one row that was logged twice.
        bought = {(row.model, row.amount): row for row in reversed(charges.get(name, []))}
        given, is_odd = _distinct_refunds(
            refunds.get(name, []), sum(amount for _, amount in bought)
        )
        named[name] = Entry(list(reversed(bought.values())), given, is_odd or name in odd)
    for name in odd - named.keys():
        named[name] = Entry(is_odd=True)
    return Rows(named, nameless, nameless_refunds, sorted(log.others, key=in_order))


def _by_request(rows: Iterable[Charge]) -> tuple[dict[str, list[Charge]], list[Charge]]:
    named: dict[str, list[Charge]] = defaultdict(list)
    nameless = []
    seen = set[str]()
    for row in sorted(rows, key=in_order):
        if row.row is not None:
            if row.row in seen:
                continue
            seen.add(row.row)
        if row.request_id:
            named[row.request_id].append(row)
        else:
            nameless.append(row)
    return named, nameless


def _distinct_refunds(rows: Sequence[Charge], charged: int) -> tuple[list[Charge], bool]:
    """Return the distinct refunds of a request, and whether two may be one logged twice."""
    distinct = {(row.at, row.amount, row.row): row for row in rows}
    given = list(distinct.values())
    repeated = len(rows) > len(given)
    return given, repeated and sum(row.amount for row in rows) <= charged


def in_order(row: Charge) -> tuple[datetime, str, Micros, str, str]:
    """Return a sort key: by time, then by content."""
    return row.at, row.model, row.amount, row.request_id or "", row.row or ""
