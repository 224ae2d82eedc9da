"""The estimate of `plan` and `run`: cost, budgets and time, from the plan and past runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from decimal import Decimal

from batchgen.errors import SettingsError, StoppedError
from batchgen.job import BatchId
from batchgen.ledger.budgets import PERIOD_TEXT, Budget, period_budgets
from batchgen.ledger.clock import timestamp, utc_now
from batchgen.ledger.groups import Group, GroupSum
from batchgen.ledger.history import history
from batchgen.ledger.newest_decisions import accepted_percent
from batchgen.money import ZERO, Micros, compared_dollars
from batchgen.planning.cost_estimate import (
    DEFAULT_ACCEPTED_PERCENT,
    DEFAULT_AGAIN_PERCENT,
    MIN_FOR_SHARES,
    Estimate,
    Pace,
    parse_percent,
    what_if,
)
from batchgen.session.prepare import RunSpec
from batchgen.session.run_limits import RunLimits


def estimate_of(
    conn: sqlite3.Connection, batch: BatchId | None, spec: RunSpec, groups: Mapping[Group, GroupSum]
) -> Estimate:
    """Return the estimate of a plan. Raises SettingsError."""
    flags, limits = spec.overrides, spec.limits
    sent = [found for group, found in groups.items() if group.is_sent]
    requests = sum(found.jobs for found in sent)
    cost = Micros(sum(found.cost for found in sent))
    past = history(conn, batch, spec.prepared.profile.name)
    accepted = None if batch is None else accepted_percent(conn, batch)
    supposed = what_if(
        requests,
        cost,
        again_percent=_given("--again", flags.again, past.again_percent, DEFAULT_AGAIN_PERCENT),
        accepted_percent=_given("--accepted", flags.accepted, accepted, DEFAULT_ACCEPTED_PERCENT),
    )
    wanted = flags.again is not None or flags.accepted is not None
    return Estimate(
        requests=requests,
        cost=cost,
        pace=Pace(
            concurrency=limits.concurrency,
            per_minute=limits.per_minute,
            latency_s=past.latency_s,
            measured_per_minute=past.per_minute,
        ),
        what_if=supposed if wanted or requests >= MIN_FOR_SHARES else None,
    )


def _given(option: str, given: str | None, measured: Decimal | None, default: Decimal) -> Decimal:
    if given is None:
        return default if measured is None else measured
    try:
        return parse_percent(given)
    except ValueError as exc:
        raise SettingsError(f"{option}: {exc}") from exc


def budgets_of(conn: sqlite3.Connection, limits: RunLimits) -> list[Budget]:
    """Return the budget of a run that is about to begin, and those of the ledger."""
    run = []
    if limits.max_cost is not None:
        run.append(Budget(period="run", max_cost=limits.max_cost, used=ZERO))
    return [*run, *period_budgets(conn, timestamp(utc_now()))]


def check_budgets(name: str, cost: Micros, budgets: list[Budget]) -> None:
    """Refuse a run that is not expected to fit. Raises StoppedError."""
    for budget in budgets:
        if cost > budget.left:
            estimate, left = compared_dollars(cost, budget.left)
            raise StoppedError(
                f"{name}: budget: the estimate of {estimate} is over the {left} that are left for"
                f" {PERIOD_TEXT[budget.period]}; nothing was sent. Raise it, request fewer images"
                " with --limit N, or pass --yes to run until it is used up"
            )
