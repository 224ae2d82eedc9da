"""What a run would send and cost: the same for `plan`, for the question asked and for `run`."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from batchgen.job import BatchId
from batchgen.ledger.attempts import open_attempts
from batchgen.ledger.budgets import Budget
from batchgen.ledger.groups import Group, GroupSum
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.queries import batch_id, jobs_with_money
from batchgen.ledger.sharing import NO_REPEATS, Repeats
from batchgen.ledger.staging import Staging
from batchgen.money import Micros
from batchgen.planning.cost_estimate import Quote
from batchgen.session.directories import spool_directory
from batchgen.session.prepare import Overrides, Prepared, waste_of
from batchgen.session.quote import budgets_of, quote_of
from batchgen.spool.spool import Spool


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What a person approves."""

    batch: BatchId | None
    """None for a batch that the ledger does not know yet."""
    groups: Mapping[Group, GroupSum]
    quote: Quote
    repeats: Repeats
    budgets: list[Budget]
    max_waste: Micros
    to_do: int
    """Jobs to request, to recover, to download or to copy."""


def propose(
    conn: sqlite3.Connection,
    staging: Staging,
    prepared: Prepared,
    overrides: Overrides,
    *,
    partial: bool = False,
) -> Proposal:
    """Group the staged jobs and price them. ``partial``: the plan retires no job."""
    limits = prepared.loaded.manifest.limits
    batch = batch_id(conn, prepared.loaded.name)
    max_waste = _foresee(conn, staging, prepared, overrides, batch)
    groups = staging.compare(batch, partial=partial or prepared.loaded.manifest.partial)
    quote = quote_of(conn, batch, prepared.profile.name, limits, overrides, groups)
    if overrides.limit is not None and overrides.limit < quote.requests:
        first = staging.to_send(batch, overrides.limit)
        quote = quote.limited(first.requests, first.cost, overrides.limit)
    if max_waste is None:
        max_waste = waste_of(limits, overrides.max_waste).allowance(quote.cost)
    money = 0 if batch is None else jobs_with_money(conn, batch)
    twice = sum(groups[one].jobs for one in (Group.PAID_CHANGED, Group.IN_FLIGHT) if one in groups)
    shared = groups[Group.SHARED].jobs if Group.SHARED in groups else 0
    return Proposal(
        batch=batch,
        groups=groups,
        quote=quote,
        repeats=staging.repeats(batch) if quote.requests else NO_REPEATS,
        budgets=budgets_of(conn, limits, overrides),
        max_waste=max_waste,
        to_do=quote.requests + shared + money - min(quote.requests, twice),
    )


def _foresee(
    conn: sqlite3.Connection,
    staging: Staging,
    prepared: Prepared,
    overrides: Overrides,
    batch: BatchId | None,
) -> Micros | None:
    """Decide what recovery makes of jobs in flight; give what they may cost again, if any are."""
    opened = [] if batch is None else open_attempts(Ledger(conn), batch, foreseen=True)
    if batch is None or not opened:
        return None
    # Imported here: few plans find a run that was killed.
    from batchgen.engine.recovery import forecast_attempts, over_allowance

    spool = Spool(spool_directory(prepared))
    spool.read_identity()
    fates = forecast_attempts(opened, spool, prepared.profile)
    staging.set_forecasts(fates)
    waste = waste_of(prepared.loaded.manifest.limits, overrides.max_waste)
    max_waste = waste.allowance(staging.to_send(batch, overrides.limit).cost)
    revised = staging.revised_in_flight(batch)
    staging.hold(batch, over_allowance(opened, fates, revised, max_waste))
    return max_waste
