"""The checks and the question between a plan and its enrollment; nothing is written here."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from batchgen.errors import Fault, SettingsError, StoppedError
from batchgen.ledger.groups import Group, GroupSum
from batchgen.ledger.path_owners import Place, claimed_places, staged_roots
from batchgen.ledger.reference_urls import NeededUrls
from batchgen.ledger.staging import Staging
from batchgen.money import rounded_dollars
from batchgen.planning.naming import collision_key
from batchgen.session.directories import spool_directory
from batchgen.session.estimate import check_budgets
from batchgen.session.fresh_prices import PriceChanges
from batchgen.session.preflight import check_disk, check_models, check_owners, short_balance
from batchgen.session.prepare import RunSpec, key_of
from batchgen.session.presenter import Presenter
from batchgen.session.proposal import PlanSummary, Proposal
from batchgen.session.storage import check_stores
from batchgen.session.unpriced import OpenPrices
from batchgen.system.failpoints import Point, hit
from batchgen.text import counted
from batchgen.urls import is_bucket, is_loopback

_OF_NEW_JOBS: Final = frozenset({Group.NEW, Group.REFUSED, Group.AT_FAULT})
"""Groups of jobs that the ledger may not know."""
_FEWEST_KNOWN: Final = 2
"""Known jobs of which most can vanish."""


@dataclass(frozen=True, slots=True)
class StagedPlan:
    """Staged jobs, with the notices that the plan produced."""

    staging: Staging
    urls: NeededUrls
    changes: PriceChanges
    open_prices: OpenPrices
    warnings: list[Fault]


def approve(
    spec: RunSpec, plan: StagedPlan, proposal: Proposal, presenter: Presenter, *, unpriced: int
) -> None:
    """Show the plan, run every check that may refuse it, and ask for confirmation.

    ``unpriced`` counts jobs of unknown price. Raises BatchgenError for a run that is refused or
    declined.
    """
    flags, profile = spec.overrides, spec.prepared.profile
    _show(spec, plan, proposal, presenter, unpriced)
    if not flags.yes:
        key = key_of(profile, spec.prepared.environment)
        check_models(profile, key, plan.staging.models_to_ask(proposal.batch))
        check_budgets(spec.name, proposal.estimate.cost, proposal.budgets)
        _check_prices(spec.name, plan.changes)
        if spec.prepared.loaded.manifest.rows is not None:
            check_keys(spec.name, proposal.groups)
    if proposal.batch is not None and not flags.overwrite:
        _check_providers(spec.name, profile.name, plan.staging.foreign_images(proposal.batch))
    _check_paths(spec, proposal, plan.staging.conn)
    if proposal.to_do and not flags.yes:
        short = short_balance(profile, spec.prepared.environment, proposal.estimate.cost)
        if short is not None:
            presenter.notice(f"warning: {short}")
        if not _is_confirmed(spec, proposal, presenter):
            raise StoppedError(f"{spec.name}: declined; nothing was sent or changed")
    hit(Point.APPROVED)


def _show(
    spec: RunSpec, plan: StagedPlan, proposal: Proposal, presenter: Presenter, unpriced: int
) -> None:
    profile = spec.prepared.profile
    for warning in plan.warnings:
        presenter.notice(f"warning: {warning}")
    for open_price in plan.open_prices.lines():
        presenter.notice(f"warning: {open_price}")
    for notice in plan.changes.lines(profile.price_source):
        presenter.notice(f"{spec.name}: {notice}")
    presenter.show_plan(
        PlanSummary(
            batch=spec.name,
            provider=profile.name,
            price_source=profile.price_source,
            proposal=proposal,
            unpriced=unpriced,
        )
    )


def _check_prices(name: str, changes: PriceChanges) -> None:
    if changes.risen:
        raise StoppedError(
            f"{name}: prices have risen by more than 1 % since the last run; nothing was sent."
            " Pass --yes to accept them"
        )


def check_keys(name: str, groups: Mapping[Group, GroupSum]) -> None:
    """Refuse to buy a table's images again under new keys. Raises StoppedError.

    A changed delimiter, a renamed column or another export gives every row another key.
    """
    jobs = {group: found.jobs for group, found in groups.items()}
    retired, new = jobs.get(Group.RETIRED, 0), jobs.get(Group.NEW, 0)
    known = sum(count for group, count in jobs.items() if group not in _OF_NEW_JOBS)
    if known < _FEWEST_KNOWN or retired * 2 <= known or new * 2 < retired:
        return
    raise StoppedError(
        f"{name}: {retired:,} of {counted(known, 'known job')} would be retired while {new:,} new"
        " ones appear, as if their keys had changed; nothing was sent. Check the key and the table"
        " (`batchgen check` reports how it is read), or pass --yes to buy the new ones"
    )


def _check_providers(name: str, provider: str, foreign: dict[str, int]) -> None:
    """Refuse to replace images that another provider made. Raises SettingsError."""
    for maker, count in foreign.items():
        raise SettingsError(
            f"{name}: this run would replace {counted(count, 'image')} that {maker!r} made with new"
            f" ones of {provider!r}; pass --overwrite, or give the batch another name"
        )


def _check_paths(spec: RunSpec, proposal: Proposal, conn: sqlite3.Connection) -> None:
    """Refuse a run whose images could not be written to their paths. Raises SettingsError."""
    base, storage = spec.prepared.base, spec.prepared.loaded.manifest.storage
    if not spec.overrides.overwrite:
        place = Place(spec.name, base, spec.prepared.ledger)
        check_owners(claimed_places(conn, place, collision_key), spec.name)
    if proposal.to_do:
        requests = min(spec.limits.concurrency, proposal.to_do)
        roots = staged_roots(conn)
        directories = [root for root in roots if not is_bucket(root)]
        check_disk(spool_directory(spec.prepared), base, directories, requests)
        check_stores(
            spec.prepared.stores(),
            filter(is_bucket, roots),
            single_writer=storage is not None and storage.single_writer,
        )


def _is_confirmed(spec: RunSpec, proposal: Proposal, presenter: Presenter) -> bool:
    """Ask before real money is spent; a local endpoint and a free run need no question."""
    host = urlsplit(spec.prepared.profile.base_url or "").hostname
    estimate = proposal.estimate
    if host is None or is_loopback(host) or not estimate.cost:
        return True
    requests = counted(estimate.requests, "request")
    return presenter.confirm(
        f"{spec.name}: send {requests} for about {rounded_dollars(estimate.cost)}?"
    )
