"""The quote of `plan` and `run`: money, budgets and time, by the plan and the ledger's history."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from decimal import Decimal

from batchgen.errors import SettingsError, StoppedError
from batchgen.job import BatchId
from batchgen.ledger.budgets import PERIOD_TEXT, Budget, period_budgets
from batchgen.ledger.clock import timestamp, utc_now
from batchgen.ledger.groups import Group, GroupSum
from batchgen.ledger.queries import history
from batchgen.manifest.model import Limits
from batchgen.money import ZERO, Micros, decimal_string, dollars
from batchgen.planning.cost_estimate import (
    DEFAULT_ACCEPTED_PERCENT,
    DEFAULT_AGAIN_PERCENT,
    MIN_FOR_SHARES,
    Quote,
    WhatIf,
    parse_percent,
    what_if,
)
from batchgen.planning.pace import Pace
from batchgen.session.prepare import Overrides, max_cost_of

DEFAULT_CONCURRENCY = 8


def quote_of(
    conn: sqlite3.Connection,
    batch: BatchId | None,
    provider: str,
    limits: Limits,
    overrides: Overrides,
    groups: Mapping[Group, GroupSum],
) -> Quote:
    """Put the quote of a plan together. Raises SettingsError."""
    sent = [found for group, found in groups.items() if group.is_sent]
    requests = sum(found.jobs for found in sent)
    cost = Micros(sum(found.cost for found in sent))
    past = history(conn, batch, provider)
    rates = [rate for rate in (limits.requests_per_minute, limits.images_per_minute) if rate]
    supposed = what_if(
        requests,
        cost,
        again_percent=_percent(overrides.again, past.again_percent, DEFAULT_AGAIN_PERCENT),
        accepted_percent=_percent(overrides.accepted, None, DEFAULT_ACCEPTED_PERCENT),
    )
    wanted = overrides.again is not None or overrides.accepted is not None
    shown = wanted or requests >= MIN_FOR_SHARES
    return Quote(
        requests=requests,
        cost=cost,
        pace=Pace(
            concurrency=overrides.concurrency or limits.concurrency or DEFAULT_CONCURRENCY,
            per_minute=min(map(float, rates)) if rates else None,
            latency_s=past.latency_s,
            measured_per_minute=past.per_minute,
        ),
        what_if=supposed if shown else None,
    )


def _percent(given: str | None, measured: Decimal | None, default: Decimal) -> Decimal:
    if given is None:
        return default if measured is None else measured
    try:
        return parse_percent(given)
    except ValueError as exc:
        raise SettingsError(str(exc)) from exc


def budgets_of(conn: sqlite3.Connection, limits: Limits, overrides: Overrides) -> list[Budget]:
    """The budget of a run that is about to begin, and those of the ledger. Raises SettingsError."""
    of_run = max_cost_of(limits, overrides.max_cost)
    run = [] if of_run is None else [Budget(period="run", max_cost=of_run, used=ZERO)]
    return [*run, *period_budgets(conn, timestamp(utc_now()))]


def check_budgets(name: str, cost: Micros, budgets: list[Budget]) -> None:
    """Refuse a run that is not expected to fit. Raises StoppedError."""
    for budget in budgets:
        if cost > budget.left:
            raise StoppedError(
                f"{name}: budget: the estimate of {dollars(cost)} is over the"
                f" {dollars(budget.left)} that are left for {PERIOD_TEXT[budget.period]}; nothing"
                " was sent. Raise it, make fewer with --limit N, or say --yes to go as far as it"
                " reaches"
            )


def budget_record(budget: Budget) -> dict[str, object]:
    """A budget for other programs."""
    return {
        "period": budget.period,
        "max_cost": decimal_string(budget.max_cost),
        "used": decimal_string(budget.used),
        "left": decimal_string(budget.left),
    }


def quote_record(quote: Quote, budgets: list[Budget]) -> dict[str, object]:
    """The quote for other programs: dollars as decimal strings, shares in percent."""
    found, expected_s = quote.what_if, quote.pace.expected_s(quote.requests)
    return {
        "requests": quote.requests,
        "estimate": decimal_string(quote.cost),
        "expected_seconds": expected_s if expected_s is None else round(expected_s, 1),
        "budgets": [budget_record(budget) for budget in budgets],
        "what_if": None if found is None else _what_if_record(found),
    }


def _what_if_record(found: WhatIf) -> dict[str, object]:
    return {
        "again_percent": str(found.again_percent),
        "accepted_percent": str(found.accepted_percent),
        "total": decimal_string(found.total),
        "per_accepted": None if found.per_accepted is None else decimal_string(found.per_accepted),
    }
