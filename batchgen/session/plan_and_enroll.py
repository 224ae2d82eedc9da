"""A run before anything is sent: planned, quoted, checked and approved, and only then enrolled."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from urllib.parse import urlsplit

from batchgen.console.progress import ask, planning, write_line
from batchgen.errors import Fault, SettingsError, StoppedError
from batchgen.job import BatchId, OptionValue, RunId
from batchgen.ledger.database import open_for_writing
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.only import Only, resolve_jobs
from batchgen.ledger.owners import Claim
from batchgen.ledger.path_owners import Place, claimed_places, staged_roots
from batchgen.ledger.price_lists import keep_price_list
from batchgen.ledger.queries import BatchRow
from batchgen.ledger.queries import unpriced_models as pending_unpriced
from batchgen.ledger.reference_urls import NeededUrls
from batchgen.ledger.runs import start_run
from batchgen.ledger.staging import Staging
from batchgen.ledger.staging_rows import unpriced_models
from batchgen.manifest.model import Limits
from batchgen.money import Micros, rounded_dollars
from batchgen.output.relocate import relocate
from batchgen.planning.naming import collision_key
from batchgen.report.status import plan_heading, plan_text
from batchgen.session.directories import spool_directory
from batchgen.session.draft_ledger import Draft
from batchgen.session.fresh_prices import (
    FetchedList,
    KnownPrices,
    PriceChanges,
    PriceLists,
    with_kept_prices,
)
from batchgen.session.notifications import channels_of
from batchgen.session.preflight import (
    allow_open_files,
    check_disk,
    check_models,
    check_owners,
    short_balance,
)
from batchgen.session.prepare import (
    Overrides,
    Prepared,
    belongs,
    key_of,
    max_cost_of,
    stage,
    waste_of,
)
from batchgen.session.proposal import Proposal, propose
from batchgen.session.quote import DEFAULT_CONCURRENCY, check_budgets
from batchgen.session.reference_downloads import ReferenceImages
from batchgen.session.run_claim import claim_of
from batchgen.session.unpriced import OpenPrices, refuse_unpriced
from batchgen.spool.spool import Spool
from batchgen.system.failpoints import Point, hit
from batchgen.urls import is_loopback

DEFAULT_DOWNLOADS = 8


def _tell_stderr(text: str) -> None:
    write_line(sys.stderr, text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Faces:
    """How a run shows itself."""

    json: bool = False
    quiet: bool = False
    tell: Callable[[str], None] = _tell_stderr
    """Takes what there is to say before anything is sent."""
    runs_at_once: bool = True
    """Whether the run begins together with the enrollment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A batch that is enrolled, and what this run may do with it."""

    batch: BatchId
    name: str
    to_do: int
    """Jobs to request, to recover or to download."""
    estimate: Micros
    max_cost: Micros | None
    max_waste: Micros
    only: Only | None = None
    """Which pending jobs are taken up; None means all."""
    at_fault: int = 0
    """Rows with a fault, whatever became of their jobs before."""
    run: RunId | None = None
    """The run that its attempts will name; None while it is not written."""

    def write(self, ledger: Ledger, claim: Claim) -> RunId:
        """Write the run within the transaction of the caller.

        Raises BatchLockedError where the owner of another run may be alive.
        """
        return start_run(
            ledger,
            self.batch,
            estimate=self.estimate,
            max_cost=self.max_cost,
            max_waste=self.max_waste,
            claim=claim,
        )


def check(prepared: Prepared, overrides: Overrides) -> None:
    """Say what is wrong with key, budget, allowance or limits before anything is planned."""
    limits = prepared.loaded.manifest.limits
    allow_open_files(*width(limits, overrides))
    key_of(prepared.profile, prepared.environment)
    _ = overrides.selection, overrides.deadline(datetime.now().astimezone()), channels_of(prepared)
    max_cost_of(limits, overrides.max_cost)
    waste_of(limits, overrides.max_waste)


def width(limits: Limits, overrides: Overrides) -> tuple[int, int]:
    """Requests and downloads at the same time."""
    return (
        overrides.concurrency or limits.concurrency or DEFAULT_CONCURRENCY,
        limits.downloads or DEFAULT_DOWNLOADS,
    )


def begin(
    prepared: Prepared,
    overrides: Overrides,
    faces: Faces,
    lists: PriceLists,
    images: ReferenceImages,
) -> tuple[Prepared, Start]:
    """Plan a batch by the newest prices, have it approved, and enroll it with its run.

    Its lock is the caller's to hold. A run that is refused or declined changes nothing. Raises
    BatchgenError.
    """
    fresh = lists.get(prepared.profile.price_url)
    with Draft(prepared.ledger) as draft:
        conn = draft.conn
        profile = with_kept_prices(prepared.profile, conn)
        known = KnownPrices(profile, were_kept=profile is not prepared.profile)
        if isinstance(fresh, FetchedList):
            profile = replace(profile, prices=fresh.prices)
        elif fresh is not None:
            faces.tell(f"no fresh price list: {fresh}; prices are from {profile.price_source}")
        prepared = belongs(conn, replace(prepared, profile=profile), adopt=overrides.adopt)
        if prepared.adopted is not None:
            faces.tell(prepared.adopted.notice(prepared.loaded.name))
        run = _PlannedRun(draft, prepared, overrides, faces)
        plan = run.plan(known, images)
        refuse_unpriced(conn, prepared, overrides, unpriced_models(conn))
        proposal = propose(conn, plan.staging, prepared, overrides)
        _approve(prepared, overrides, faces, proposal, plan)
        fetched = fresh if isinstance(fresh, FetchedList) else None
        return prepared, run.enroll(plan, proposal, fetched)


@dataclass(frozen=True, slots=True)
class _Plan:
    """A staged plan, and what there is to say of it."""

    staging: Staging
    urls: NeededUrls
    changes: PriceChanges
    open_prices: OpenPrices
    warnings: list[Fault]


@dataclass(frozen=True, slots=True)
class _PlannedRun:
    """The steps around the approval of a manifest's run."""

    draft: Draft
    prepared: Prepared
    overrides: Overrides
    faces: Faces

    def plan(self, known: KnownPrices, images: ReferenceImages) -> _Plan:
        """Stage the jobs; fetch reference images, and stage again by what they are."""
        urls = NeededUrls(self.draft.conn, self.prepared.references)
        plan = self._plan(known, urls)
        if len(urls):
            missing = urls.missing
            fetched = images.bring(self.prepared, urls)
            if missing or fetched.fetched or fetched.failed:
                plan.staging.close()
                plan = self._plan(known, urls)
        return plan

    def _plan(self, known: KnownPrices, urls: NeededUrls) -> _Plan:
        changes, warnings = PriceChanges(known), list[Fault]()
        open_prices = OpenPrices(self.prepared.profile)

        def priced(
            model: str,
            options: Mapping[str, OptionValue],
            references: int,
            price: Micros,
            jobs: int,
        ) -> None:
            changes.note(model, options, references, price, jobs)
            open_prices.note(model, options, references, price, jobs)

        with planning(shown=not (self.faces.quiet or self.faces.json)) as progress:
            staging = stage(
                self.draft.staging(),
                self.prepared,
                accept_unknown_price=self.overrides.accept_unknown_price,
                progress=progress,
                priced=priced,
                warned=warnings.append,
                addresses=urls,
                selection=self.overrides.selection,
            )
        return _Plan(staging, urls, changes, open_prices, warnings)

    def enroll(self, plan: _Plan, proposal: Proposal, fresh: FetchedList | None) -> Start:
        """Write what was approved: the plan, what was fetched for it, and the run."""
        conn = self.draft.approved(plan.staging)
        if proposal.batch is not None:
            for notice in relocate(plan.staging, proposal.batch, self.prepared.loaded.base):
                self.faces.tell(notice)
        started = _Started(conn, self.prepared, self.overrides, self.faces, proposal, plan.staging)

        def then(batch: BatchId) -> None:
            plan.urls.keep(conn)
            if fresh is not None:
                keep_price_list(conn, fresh.url, fresh.kept)
            started.start(batch)

        return started.of(plan.staging.enroll(self.prepared.identity, then))


def begin_again(
    prepared: Prepared,
    overrides: Overrides,
    faces: Faces,
    row: BatchRow,
    images: ReferenceImages,
) -> Start:
    """As `begin`, for a batch that goes on by what the ledger keeps of it. Raises BatchgenError."""
    with closing(open_for_writing(prepared.ledger)) as conn:
        only = resolve_jobs(conn, overrides.only, row.id, prepared.loaded.name)
        overrides = replace(overrides, only=only)
        staging = Staging(conn)
        staging.fill_from_ledger(row.id, prepared.profile.name, overrides.selection)
        urls, refusals = images.restore(conn, prepared, row.id)
        staging.refuse(refusals)
        refuse_unpriced(conn, prepared, overrides, pending_unpriced(conn, row.id))
        proposal = propose(conn, staging, prepared, overrides, partial=True)
        same_prices = PriceChanges(KnownPrices(prepared.profile, were_kept=False))
        plan = _Plan(staging, urls, same_prices, OpenPrices(prepared.profile), [])
        _approve(prepared, overrides, faces, proposal, plan)
        started = _Started(conn, prepared, overrides, faces, proposal, staging)

        def then(batch: BatchId) -> None:
            urls.keep(conn)
            started.start(batch)

        staging.go_on(row.id, then)
        return started.of(row.id)


@dataclass(slots=True)
class _Started:
    """The run of an approved proposal."""

    conn: sqlite3.Connection
    prepared: Prepared
    overrides: Overrides
    faces: Faces
    proposal: Proposal
    staging: Staging
    run: RunId | None = None

    def start(self, batch: BatchId) -> None:
        """Write the run, unless there is nothing to do or its program begins it later."""
        if self.proposal.to_do and self.faces.runs_at_once:
            spool = Spool(spool_directory(self.prepared))
            spool.prepare()
            claim = claim_of(self.prepared, self.overrides, spool)
            self.run = self.of(batch).write(Ledger(self.conn), claim)

    def of(self, batch: BatchId) -> Start:
        return Start(
            batch=batch,
            name=self.prepared.loaded.name,
            to_do=self.proposal.to_do,
            estimate=self.proposal.quote.cost,
            max_cost=max_cost_of(self.prepared.loaded.manifest.limits, self.overrides.max_cost),
            max_waste=self.proposal.max_waste,
            only=self.staging.only,
            at_fault=self.staging.rows_at_fault(),
            run=self.run,
        )


def _approve(
    prepared: Prepared, overrides: Overrides, faces: Faces, proposal: Proposal, plan: _Plan
) -> None:
    """Show the quote, check all that may refuse the run, and ask the person; nothing is written.

    Raises BatchgenError for a run that is refused or declined.
    """
    name, profile = prepared.loaded.name, prepared.profile
    for warning in plan.warnings:
        faces.tell(f"warning: {warning}")
    for open_price in plan.open_prices.lines():
        faces.tell(f"warning: {open_price}")
    for notice in plan.changes.lines(profile.price_source):
        faces.tell(f"{name}: {notice}")
    if not (faces.quiet or faces.json):
        heading = plan_heading(name, profile.name, profile.price_source)
        text = plan_text(
            heading,
            proposal.groups,
            proposal.quote,
            proposal.budgets,
            repeats=proposal.repeats,
        )
        write_line(sys.stderr, text)
    if not overrides.yes:
        key = key_of(profile, prepared.environment)
        check_models(profile, key, plan.staging.models_to_ask(proposal.batch))
        check_budgets(name, proposal.quote.cost, proposal.budgets)
        _check_prices(name, plan.changes)
    if proposal.batch is not None and not overrides.overwrite:
        _check_providers(name, profile.name, plan.staging.foreign_images(proposal.batch))
    _check_places(prepared, overrides, proposal, plan.staging.conn)
    if proposal.to_do and not overrides.yes:
        short = short_balance(profile, prepared.environment, proposal.quote.cost)
        if short is not None:
            faces.tell(f"warning: {short}")
        if not _agreed(prepared, proposal, faces):
            raise StoppedError(f"{name}: declined; nothing was sent or changed")
    hit(Point.APPROVED)


def _check_prices(name: str, changes: PriceChanges) -> None:
    if changes.risen:
        raise StoppedError(
            f"{name}: prices have risen by more than 1 % since the last run; nothing was sent."
            " Say --yes to pay them"
        )


def _check_providers(name: str, provider: str, foreign: dict[str, int]) -> None:
    """Refuse to replace images that another provider made."""
    for maker, count in foreign.items():
        images = "1 image" if count == 1 else f"{count:,} images"
        raise SettingsError(
            f"{name}: this run would replace {images} that {maker!r} made with new ones of"
            f" {provider!r}; say --overwrite, or give the batch another name"
        )


def _check_places(
    prepared: Prepared, overrides: Overrides, proposal: Proposal, conn: sqlite3.Connection
) -> None:
    """Refuse a run whose images could not get their places."""
    base = prepared.loaded.base
    if not overrides.overwrite:
        place = Place(prepared.loaded.name, base, prepared.ledger)
        check_owners(claimed_places(conn, place, collision_key), prepared.loaded.name)
    if proposal.to_do:
        requests, _ = width(prepared.loaded.manifest.limits, overrides)
        requests = min(requests, proposal.to_do)
        check_disk(spool_directory(prepared), base, staged_roots(conn), requests)


def _agreed(prepared: Prepared, proposal: Proposal, faces: Faces) -> bool:
    """Whether a person, where there is one, agrees to spend real money."""
    host = urlsplit(prepared.profile.base_url or "").hostname
    if faces.json or faces.quiet or host is None or is_loopback(host):
        return True
    quote = proposal.quote
    if not quote.cost:
        return True
    requests = "1 request" if quote.requests == 1 else f"{quote.requests:,} requests"
    return ask(f"{prepared.loaded.name}: send {requests} for about {rounded_dollars(quote.cost)}?")


def reference_images(faces: Faces) -> ReferenceImages:
    """What fetches reference images for all manifests of a command."""
    return ReferenceImages(shown=not (faces.quiet or faces.json), told=not faces.quiet)
