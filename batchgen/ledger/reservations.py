"""Reserve the prices of attempts before their requests leave. A step in a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from batchgen.job import AttemptId, Job, RunId
from batchgen.ledger.budgets import period_budgets
from batchgen.ledger.jobs import mark_jobs_sending
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.records import BudgetReached, NotPending, Reserved
from batchgen.ledger.run_sums import UNLIMITED, reserve_price, run_budget
from batchgen.ledger.value_rows import with_rows
from batchgen.money import Micros, PriceTerms

Reply = Reserved | BudgetReached | NotPending


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """An attempt that is about to be sent."""

    run: RunId
    job: Job
    attempt: AttemptId
    provider: str
    terms: PriceTerms


def reserve_attempts(ledger: Ledger, orders: Sequence[Reservation]) -> list[Reply]:
    """Reserve the prices and insert the attempts, which count as possibly charged from now on.

    Where the budget does not have room for all, they are taken in order, one by one. Raises
    RunTakenOver.
    """
    now = ledger.timestamp()
    if len(orders) > 1 and not _are_independent(orders):
        return [reply for order in orders for reply in reserve_attempts(ledger, [order])]
    reached = _reached_budget(ledger, orders, now)
    if reached is not None and len(orders) > 1:
        return [reply for order in orders for reply in reserve_attempts(ledger, [order])]
    if reached is not None:
        return [reached]
    sending = mark_jobs_sending(ledger, [order.job for order in orders], now)
    reserved = [order for order in orders if order.job.id in sending]
    if reserved:
        _insert_attempts(ledger, reserved, now)
        reserve_price(ledger, reserved[0].run, Micros(sum(order.job.price for order in reserved)))
    return [Reserved() if order.job.id in sending else NotPending() for order in orders]


def _are_independent(orders: Sequence[Reservation]) -> bool:
    """Return whether no order can change what another one finds, other than by its price."""
    jobs, runs = {order.job.id for order in orders}, {order.run for order in orders}
    return len(jobs) == len(orders) and len(runs) == 1


def _reached_budget(
    ledger: Ledger, orders: Sequence[Reservation], now: str
) -> BudgetReached | None:
    """Return the budget of one run, a day or a month that has no room for all these orders."""
    price = sum(order.job.price for order in orders)
    is_known = all(order.terms.is_known for order in orders)
    for budget in (run_budget(ledger, orders[0].run), *period_budgets(ledger.conn, now)):
        is_limited = budget.max_cost < UNLIMITED
        if budget.used + price > budget.max_cost or (is_limited and not is_known):
            return BudgetReached(
                max_cost=budget.max_cost,
                used=budget.used,
                period=budget.period,
                price_known=is_known,
            )
    return None


def _insert_attempts(ledger: Ledger, orders: Sequence[Reservation], now: str) -> None:
    columns = (
        *("id", "job_id", "run_id", "fingerprint", "provider", "model", "started_at", "outcome"),
        *("billed", "price", "least", "price_known"),
    )
    clause, values = with_rows(columns, [_row(order, now) for order in orders])
    names = ", ".join(columns)
    ledger.conn.execute(f"{clause} INSERT INTO attempts ({names}) SELECT {names} FROM one", values)


def _row(order: Reservation, now: str) -> tuple[object, ...]:
    job, terms = order.job, order.terms
    return (
        *(order.attempt, job.id, order.run, job.fingerprint, order.provider, job.model, now),
        *("sending", "maybe", job.price, terms.least_within(job.price), terms.is_known),
    )
