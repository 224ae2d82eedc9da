"""A run before anything is sent: planned, checked, quoted and enrolled."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime

from batchgen.commands.finish import channels_of
from batchgen.commands.preflight import allow_open_files, check_models
from batchgen.commands.prepare import (
    Overrides,
    Prepared,
    belongs,
    key_of,
    max_cost_of,
    stage,
    waste_of,
)
from batchgen.commands.pricing import (
    FetchedList,
    KnownPrices,
    PriceChanges,
    PriceLists,
    with_kept_prices,
)
from batchgen.commands.quoting import DEFAULT_CONCURRENCY, budgets_of, check_budgets, quote_of
from batchgen.commands.references import ReferenceImages
from batchgen.commands.unpriced import OpenPrices, refuse_unpriced
from batchgen.errors import Fault, SettingsError, StoppedError
from batchgen.job import BatchId, OptionValue
from batchgen.ledger.database import open_for_writing
from batchgen.ledger.enrol import Staging
from batchgen.ledger.only import Only, resolve_jobs
from batchgen.ledger.price_lists import keep_price_list
from batchgen.ledger.queries import batch_id, unfinished
from batchgen.ledger.queries import unpriced_models as pending_unpriced
from batchgen.ledger.reference_urls import NeededUrls
from batchgen.ledger.staging import unpriced_models
from batchgen.manifest.model import Limits
from batchgen.money import Micros
from batchgen.progress import planning, write_line
from batchgen.relocate import relocate
from batchgen.report.text import plan_text

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A batch that is enrolled, and what this run may do with it."""

    batch: BatchId
    name: str
    to_do: int
    """Jobs to ask for, to look after or to download."""
    estimate: Micros
    max_cost: Micros | None
    max_waste: Micros
    only: Only | None = None
    """Which pending jobs are taken up; None means all."""
    at_fault: int = 0
    """Rows with a fault, whatever became of their jobs before."""


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
    """Plan and enrol a batch by the newest prices; its lock is the caller's to hold.

    Raises BatchgenError.
    """
    fresh = lists.get(prepared.profile.price_url)
    with closing(open_for_writing(prepared.ledger)) as conn:
        profile = with_kept_prices(prepared.profile, conn)
        planned = KnownPrices(profile, were_kept=profile is not prepared.profile)
        if isinstance(fresh, FetchedList):
            profile = replace(profile, prices=fresh.prices)
        elif fresh is not None:
            faces.tell(f"no fresh price list: {fresh}; prices are from {profile.price_source}")
        prepared = belongs(conn, replace(prepared, profile=profile), adopt=overrides.adopt)
        if prepared.adopted is not None:
            faces.tell(prepared.adopted.notice(prepared.loaded.name))
        start = _enrol(conn, prepared, overrides, faces, planned, images)
        if isinstance(fresh, FetchedList):
            keep_price_list(conn, fresh.url, fresh.kept)
    return prepared, start


def _enrol(
    conn: sqlite3.Connection,
    prepared: Prepared,
    overrides: Overrides,
    faces: Faces,
    planned: KnownPrices,
    images: ReferenceImages,
) -> Start:
    name, profile = prepared.loaded.name, prepared.profile
    urls = NeededUrls(conn, prepared.references)
    plan = _plan(conn, prepared, overrides, faces, planned, urls)
    if len(urls):
        missing = urls.missing
        fetched = images.bring(prepared, urls)
        if missing or fetched.fetched or fetched.failed:
            plan.staging.close()
            plan = _plan(conn, prepared, overrides, faces, planned, urls)
    staging = plan.staging
    refuse_unpriced(conn, prepared, overrides, unpriced_models(conn))
    for warning in plan.warnings:
        faces.tell(f"warning: {warning}")
    for open_price in plan.open_prices.lines():
        faces.tell(f"warning: {open_price}")
    for notice in plan.changes.lines(profile.price_source):
        faces.tell(f"{name}: {notice}")
    if plan.changes.risen and not overrides.yes:
        raise StoppedError(
            f"{name}: prices have risen by more than 1 % since the last run; nothing was sent."
            " Say --yes to pay them"
        )
    batch = batch_id(conn, name)
    if batch is not None and not overrides.overwrite:
        for maker, count in staging.foreign_pictures(batch).items():
            raise SettingsError(
                f"{name}: this run would replace {count:,} pictures that {maker!r} made with ones"
                f" of {profile.name!r}; say --overwrite, or give the batch another name"
            )
    if not overrides.yes:
        key = key_of(profile, prepared.environment)
        check_models(profile, key, staging.models_to_ask(batch, only=staging.only))
    if not (faces.quiet or faces.json):
        groups = staging.compare(batch, only=staging.only, partial=prepared.loaded.manifest.partial)
        limits = prepared.loaded.manifest.limits
        quote = quote_of(conn, batch, profile.name, limits, overrides, groups)
        budgets = budgets_of(conn, limits, overrides)
        source = profile.price_source
        write_line(sys.stderr, plan_text(name, profile.name, source, groups, quote, budgets))
    if batch is not None:
        for notice in relocate(staging, batch, prepared.loaded.base):
            faces.tell(notice)
    overrides = replace(overrides, only=staging.only)
    start = start_of(conn, prepared, overrides, staging.enrol(prepared.identity))
    return replace(start, at_fault=staging.rows_at_fault())


@dataclass(frozen=True, slots=True)
class _Plan:
    """A plan, and what there is to say of it."""

    staging: Staging
    changes: PriceChanges
    open_prices: OpenPrices
    warnings: list[Fault]


def _plan(
    conn: sqlite3.Connection,
    prepared: Prepared,
    overrides: Overrides,
    faces: Faces,
    planned: KnownPrices,
    urls: NeededUrls,
) -> _Plan:
    changes, warnings = PriceChanges(planned), list[Fault]()
    open_prices = OpenPrices(prepared.profile)

    def priced(
        model: str, options: Mapping[str, OptionValue], references: int, price: Micros, jobs: int
    ) -> None:
        changes.note(model, options, references, price, jobs)
        open_prices.note(model, options, references, price, jobs)

    with planning(shown=not (faces.quiet or faces.json)) as progress:
        staging = stage(
            conn,
            prepared,
            accept_unknown_price=overrides.accept_unknown_price,
            progress=progress,
            priced=priced,
            warned=warnings.append,
            addresses=urls,
            selection=overrides.selection,
        )
    return _Plan(staging, changes, open_prices, warnings)


def reference_images(faces: Faces) -> ReferenceImages:
    """What fetches reference images for all manifests of a command."""
    return ReferenceImages(shown=not (faces.quiet or faces.json), told=not faces.quiet)


def start_of(
    conn: sqlite3.Connection, prepared: Prepared, overrides: Overrides, batch: BatchId
) -> Start:
    """What is left to do of an enrolled batch. Raises StoppedError where no budget holds it."""
    limits = prepared.loaded.manifest.limits
    refuse_unpriced(conn, prepared, overrides, pending_unpriced(conn, batch))
    only = resolve_jobs(conn, overrides.only, batch, prepared.loaded.name)
    open_work = unfinished(conn, batch, overrides.limit, only=only)
    if not overrides.yes:
        budgets = budgets_of(conn, limits, overrides)
        check_budgets(prepared.loaded.name, open_work.cost, budgets)
    return Start(
        batch=batch,
        name=prepared.loaded.name,
        to_do=open_work.jobs,
        estimate=open_work.cost,
        max_cost=max_cost_of(limits, overrides.max_cost),
        max_waste=waste_of(limits, overrides.max_waste).allowance(open_work.cost),
        only=only,
    )
