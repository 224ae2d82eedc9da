"""The start of a run: plan with current prices, get approval, enroll jobs and run in the ledger."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace

from batchgen.errors import Fault
from batchgen.job import BatchId, OptionValue, RunId
from batchgen.ledger.batches import BatchRow, find_batch
from batchgen.ledger.database import open_for_writing
from batchgen.ledger.key_patterns import Only, resolve_jobs
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.open_work import unpriced_models as pending_unpriced
from batchgen.ledger.owners import Claim
from batchgen.ledger.price_lists import keep_price_list
from batchgen.ledger.reference_urls import NeededUrls
from batchgen.ledger.runs import start_run
from batchgen.ledger.staging import Staging
from batchgen.ledger.staging_rows import unpriced_models
from batchgen.money import Micros
from batchgen.output.relocate import relocate
from batchgen.session.approval import StagedPlan, approve
from batchgen.session.directories import spool_directory
from batchgen.session.draft_ledger import Draft
from batchgen.session.fresh_prices import (
    FetchedList,
    KnownPrices,
    PriceChanges,
    PriceLists,
    with_kept_prices,
)
from batchgen.session.notifications import check_channels
from batchgen.session.preflight import allow_open_files, check_log
from batchgen.session.prepare import RunSpec, belongs, key_of
from batchgen.session.presenter import Presenter
from batchgen.session.proposal import Proposal, propose
from batchgen.session.publish import publish_accepted
from batchgen.session.reference_downloads import ReferenceImages
from batchgen.session.run_claim import claim_of
from batchgen.session.stage_plan import PlanObserver, stage
from batchgen.session.unpriced import OpenPrices, refuse_unpriced, unpriced_jobs
from batchgen.spool.spool import Spool


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolledRun:
    """A run whose jobs are in the ledger."""

    spec: RunSpec
    batch: BatchId
    to_do: int
    """Jobs to request, to recover or to download."""
    estimate: Micros
    max_waste: Micros
    only: Only | None = None
    """Which pending jobs the run takes up; None for all."""
    at_fault: int = 0
    """Rows with a fault, in any state of their jobs."""
    run: RunId | None = None
    """The run in the ledger; None until it is written."""

    @property
    def name(self) -> str:
        """The name of the batch."""
        return self.spec.name

    def write(self, ledger: Ledger, claim: Claim) -> RunId:
        """Write the run within the caller's transaction, and return its id.

        Raises BatchLockedError if the owner of another run may be alive.
        """
        return start_run(
            ledger,
            self.batch,
            estimate=self.estimate,
            max_cost=self.spec.limits.max_cost,
            max_waste=self.max_waste,
            claim=claim,
        )


def validate(spec: RunSpec) -> None:
    """Check open files, key, log and notifications before planning. Raises SettingsError."""
    allow_open_files(spec.limits.concurrency, spec.limits.downloads)
    key_of(spec.prepared.profile, spec.prepared.environment)
    log = spec.prepared.environment.log_path(spec.overrides.log_file)
    if log is not None:
        check_log(log)
    check_channels(spec.prepared)


def begin(
    spec: RunSpec,
    presenter: Presenter,
    lists: PriceLists,
    images: ReferenceImages,
    *,
    write_run: bool = True,
) -> EnrolledRun:
    """Plan a batch with current prices, get approval, and enroll its jobs.

    Unless ``write_run`` is false, the same transaction writes the run. The caller holds the lock
    of the batch. A run that is refused or declined changes nothing. Raises BatchgenError.
    """
    fresh = lists.get(spec.prepared.profile)
    fetched = fresh if isinstance(fresh, FetchedList) else None
    with Draft(spec.prepared.ledger) as draft:
        conn, shipped = draft.conn, spec.prepared.profile
        profile = with_kept_prices(shipped, conn)
        known = KnownPrices(profile, were_kept=profile is not shipped)
        if fetched is not None:
            profile = replace(profile, prices=fetched.prices)
        elif fresh is not None:
            presenter.notice(
                f"no fresh price list: {fresh}; prices are from {profile.price_source}"
            )
        prepared = replace(spec.prepared, profile=profile)
        prepared = belongs(conn, prepared, adopt=spec.overrides.adopt)
        if prepared.adopted is not None:
            presenter.notice(prepared.adopted.notice(spec.name))
        spec = replace(spec, prepared=prepared)
        plan = _plan(draft, spec, presenter, known, images)
        models = unpriced_models(conn)
        refuse_unpriced(conn, spec, models)
        proposal = propose(conn, plan.staging, spec)
        approve(spec, plan, proposal, presenter, unpriced=unpriced_jobs(profile, models))
        conn = draft.approved(plan.staging)
        enrollment = _Enrollment(conn, spec, proposal, plan.staging, writes_run=write_run)
        if proposal.batch is not None:
            for notice in relocate(plan.staging, proposal.batch, prepared.base, prepared.stores()):
                presenter.notice(notice)

        def then(batch: BatchId) -> None:
            plan.urls.keep(conn)
            if fetched is not None:
                keep_price_list(conn, fetched.url, fetched.kept)
            enrollment.start(batch)

        batch = plan.staging.enroll(prepared.identity, then)
        _publish(conn, spec, presenter)
        return enrollment.result(batch)


def begin_again(
    spec: RunSpec, presenter: Presenter, row: BatchRow, images: ReferenceImages
) -> EnrolledRun:
    """Begin a run of an enrolled batch from the ledger alone. Raises BatchgenError."""
    prepared = spec.prepared
    with closing(open_for_writing(prepared.ledger)) as conn:
        only = resolve_jobs(conn, spec.overrides.only, row.id, spec.name)
        spec = replace(spec, selection=replace(spec.selection, only=only))
        staging = Staging(conn)
        staging.fill_from_ledger(row.id, prepared.profile.name, spec.selection)
        urls, refusals = images.restore(conn, prepared, row.id)
        staging.refuse(refusals)
        models = pending_unpriced(conn, row.id)
        refuse_unpriced(conn, spec, models)
        proposal = propose(conn, staging, spec, partial=True)
        same_prices = PriceChanges(KnownPrices(prepared.profile, were_kept=False))
        plan = StagedPlan(staging, urls, same_prices, OpenPrices(prepared.profile), [])
        unpriced = unpriced_jobs(prepared.profile, models)
        approve(spec, plan, proposal, presenter, unpriced=unpriced)
        enrollment = _Enrollment(conn, spec, proposal, staging)

        def then(batch: BatchId) -> None:
            urls.keep(conn)
            enrollment.start(batch)

        staging.go_on(row.id, then)
        _publish(conn, spec, presenter)
        return enrollment.result(row.id)


def _publish(conn: sqlite3.Connection, spec: RunSpec, presenter: Presenter) -> None:
    """Publish what was accepted while the batch was held, or before a kill."""
    row = find_batch(conn, spec.name)
    for trouble in publish_accepted(conn, row, spec.prepared.ledger).troubles.values():
        presenter.notice(f"warning: {trouble}")


def _plan(
    draft: Draft, spec: RunSpec, presenter: Presenter, known: KnownPrices, images: ReferenceImages
) -> StagedPlan:
    """Stage the jobs; if this fetches reference images, stage again with their content."""
    urls = NeededUrls(draft.conn, spec.prepared.references)
    plan = _stage(draft, spec, presenter, known, urls)
    if len(urls):
        missing = urls.missing
        fetched = images.bring(spec.prepared, urls)
        if missing or fetched.fetched or fetched.failed:
            plan.staging.close()
            plan = _stage(draft, spec, presenter, known, urls)
    return plan


def _stage(
    draft: Draft, spec: RunSpec, presenter: Presenter, known: KnownPrices, urls: NeededUrls
) -> StagedPlan:
    changes, warnings = PriceChanges(known), list[Fault]()
    open_prices = OpenPrices(spec.prepared.profile)

    def priced(
        model: str, options: Mapping[str, OptionValue], references: int, price: Micros, jobs: int
    ) -> None:
        changes.note(model, options, references, price, jobs)
        open_prices.note(model, options, references, price, jobs)

    with presenter.planning() as progress:
        staging = stage(
            draft.staging(),
            spec.prepared,
            accept_unknown_price=spec.overrides.accept_unknown_price,
            reference_urls=urls,
            selection=spec.selection,
            observer=PlanObserver(progress=progress, priced=priced, warned=warnings.append),
        )
    return StagedPlan(staging, urls, changes, open_prices, warnings)


@dataclass(slots=True)
class _Enrollment:
    """Writes the run of an approved proposal in the transaction that enrolls its jobs."""

    conn: sqlite3.Connection
    spec: RunSpec
    proposal: Proposal
    staging: Staging
    writes_run: bool = True
    run: RunId | None = None

    def start(self, batch: BatchId) -> None:
        """Write the run, unless there is nothing to do or the caller writes it later."""
        if self.proposal.to_do and self.writes_run:
            spool = Spool(spool_directory(self.spec.prepared))
            spool.prepare()
            claim = claim_of(self.spec, spool)
            self.run = self.result(batch).write(Ledger(self.conn), claim)

    def result(self, batch: BatchId) -> EnrolledRun:
        """Return the run as enrolled so far."""
        return EnrolledRun(
            spec=self.spec,
            batch=batch,
            to_do=self.proposal.to_do,
            estimate=self.proposal.estimate.cost,
            max_waste=self.proposal.max_waste,
            only=self.staging.only,
            at_fault=self.staging.rows_at_fault(),
            run=self.run,
        )
