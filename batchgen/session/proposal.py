"""The requests and cost of a run, computed once for `plan`, the confirmation and `run`."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from batchgen.job import BatchId
from batchgen.ledger.attempts import open_attempts
from batchgen.ledger.batches import batch_id
from batchgen.ledger.budgets import Budget
from batchgen.ledger.groups import Group, GroupSum
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.open_work import jobs_with_money
from batchgen.ledger.sharing import NO_REPEATS, Repeats
from batchgen.ledger.staging import Staging
from batchgen.ledger.unpublished import ALL_PUBLISHED, UnpublishedCounts
from batchgen.money import Micros
from batchgen.planning.cost_estimate import Estimate
from batchgen.session.directories import spool_directory
from batchgen.session.estimate import budgets_of, estimate_of
from batchgen.session.prepare import RunSpec
from batchgen.spool.spool import Spool


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """The part of a plan that a person approves."""

    batch: BatchId | None
    """None for a batch that the ledger does not know yet."""
    groups: Mapping[Group, GroupSum]
    estimate: Estimate
    repeats: Repeats
    budgets: list[Budget]
    max_waste: Micros
    to_do: int
    """Jobs to request, to recover, to download or to copy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSummary:
    """A proposal with what its display needs."""

    batch: str
    provider: str
    price_source: str
    """Where the prices come from; empty if no price is known."""
    proposal: Proposal
    unfetched: int = 0
    """Reference images given by URL that no run has fetched yet."""
    unpriced: int = 0
    """Planned jobs whose price is unknown."""
    unpublished: UnpublishedCounts = ALL_PUBLISHED
    """Images that wait for a decision; a run does not need to know them."""


def propose(
    conn: sqlite3.Connection, staging: Staging, spec: RunSpec, *, partial: bool = False
) -> Proposal:
    """Group the staged jobs and price them. With ``partial`` the plan retires no job."""
    manifest = spec.prepared.loaded.manifest
    batch = batch_id(conn, spec.name)
    max_waste = _foresee_recovery(conn, staging, spec, batch)
    groups = staging.compare(batch, partial=partial or manifest.partial)
    estimate = estimate_of(conn, batch, spec, groups)
    limit = spec.limits.jobs
    if limit is not None and limit < estimate.requests:
        first = staging.to_send(batch, limit)
        estimate = estimate.limited(first.requests, first.cost, limit)
    if max_waste is None:
        max_waste = spec.limits.waste_allowance(estimate.cost)
    money = 0 if batch is None else jobs_with_money(conn, batch)
    # Jobs in these groups are in both counts: the requests and the jobs with money.
    twice = sum(groups[one].jobs for one in (Group.PAID_CHANGED, Group.IN_FLIGHT) if one in groups)
    shared = groups[Group.SHARED].jobs if Group.SHARED in groups else 0
    return Proposal(
        batch=batch,
        groups=groups,
        estimate=estimate,
        repeats=staging.repeats(batch) if estimate.requests else NO_REPEATS,
        budgets=budgets_of(conn, spec.limits),
        max_waste=max_waste,
        to_do=estimate.requests + shared + money - min(estimate.requests, twice),
    )


def _foresee_recovery(
    conn: sqlite3.Connection, staging: Staging, spec: RunSpec, batch: BatchId | None
) -> Micros | None:
    """Stage what recovery will do with jobs in flight, and return the allowance for rebuying them.

    None if the last run left no job in flight.
    """
    opened = [] if batch is None else open_attempts(Ledger(conn), batch, foreseen=True)
    if batch is None or not opened:
        return None
    # Imported here: few plans follow a run that was killed.
    from batchgen.engine.recovery import forecast_attempts, over_allowance

    spool = Spool(spool_directory(spec.prepared))
    spool.read_identity()
    fates = forecast_attempts(opened, spool, spec.prepared.profile)
    staging.set_forecasts(fates)
    max_waste = spec.limits.waste_allowance(staging.to_send(batch, spec.limits.jobs).cost)
    revised = staging.revised_in_flight(batch)
    staging.hold(batch, over_allowance(opened, fates, revised, max_waste))
    return max_waste
