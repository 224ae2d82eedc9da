"""Plan the jobs of a prepared manifest into an empty staging; nothing is sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from batchgen.errors import Fault, ManifestError, SettingsError
from batchgen.job import BatchId, OptionValue
from batchgen.ledger.batches import batch_id
from batchgen.ledger.newest_decisions import amendments
from batchgen.ledger.reference_paths import ReferencePaths
from batchgen.ledger.selection import EVERYTHING, Selection
from batchgen.ledger.staging import Staging
from batchgen.ledger.staging_rows import Price, Priced
from batchgen.money import ZERO, Micros
from batchgen.planning.amendments import Amendments
from batchgen.planning.faults import most_rows_at_fault
from batchgen.planning.naming import collision_key
from batchgen.planning.planner import Planner
from batchgen.planning.reference_images import ReferenceUrls
from batchgen.providers.profile import Profile
from batchgen.session.manifest_faults import rules_of
from batchgen.session.prepare import Prepared

_KEPT: Final = "a row at fault gives no key, so jobs that are not planned are kept, not retired"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanObserver:
    """Who is informed while a plan is made; None for what no one wants to know."""

    progress: Callable[[int], None] | None = None
    """Receives the number of jobs planned so far."""
    priced: Priced | None = None
    """Receives the price of jobs."""
    warned: Callable[[Fault], None] | None = None
    """Receives, at the end, warnings about jobs that are planned anyway."""
    table_read: Callable[[str], None] | None = None
    """Receives how the table was read, also before an error."""


_NO_OBSERVER: Final = PlanObserver()


def stage(
    staging: Staging,
    prepared: Prepared,
    *,
    accept_unknown_price: bool,
    reference_urls: ReferenceUrls | None = None,
    selection: Selection = EVERYTHING,
    observer: PlanObserver = _NO_OBSERVER,
) -> Staging:
    """Plan all jobs into an empty staging. Raises ManifestError and SettingsError.

    ``reference_urls`` resolves reference images given by URL; without it, none of them is known.
    """
    batch = batch_id(staging.conn, prepared.loaded.name)
    amended = _amendments(staging, batch, selection)
    planner = _planner(prepared, reference_urls, amended)
    try:
        staging.fill(
            map(ReferencePaths(prepared.loaded.base, prepared.ledger).stored, planner),
            price=_price_of(prepared.profile, accept_unknown_price=accept_unknown_price),
            priced=observer.priced,
            collision_key=collision_key,
            progress=observer.progress,
            selection=selection,
            batch=batch,
            strict=planner.strict,
        )
    finally:
        summary = planner.rows.summary()
        if observer.table_read is not None and summary is not None:
            observer.table_read(summary)
    staging.resolve(selection.only, prepared.loaded.name)
    staging.shares = prepared.loaded.manifest.share
    staging.keeps_unplanned = planner.rows.has_unknown_keys
    warnings = _checked(staging, prepared, planner, amended)
    if observer.warned is not None:
        for warning in warnings:
            observer.warned(warning)
    _refuse_no_jobs(staging, prepared)
    return staging


def _planner(
    prepared: Prepared, reference_urls: ReferenceUrls | None, amended: Amendments | None
) -> Planner:
    profile = prepared.profile
    return Planner(
        prepared.loaded,
        provider=profile.name,
        default_model=profile.default_model,
        rules=rules_of(profile, prepared.loaded),
        reference_urls=reference_urls,
        amendments=amended,
    )


def _checked(
    staging: Staging, prepared: Prepared, planner: Planner, amended: Amendments | None
) -> list[Fault]:
    """Return the warnings of a plan. Raises ManifestError where most rows are at fault."""
    places = prepared.loaded.places
    at_fault = [*planner.rows.all(), *staging.clashes]
    most = most_rows_at_fault(places, planner.rows.rows, staging.rows_at_fault())
    if most is not None:
        raise ManifestError([most, *at_fault])
    warnings = [*planner.warnings, *at_fault]
    if staging.keeps_unplanned:
        warnings.append(places.fault(("rows",), _KEPT))
    if amended is not None and amended.used:
        path = prepared.loaded.path.name
        warnings.append(Fault(path, 0, 0, "", _amended_text(amended.used)))
    return warnings


def _refuse_no_jobs(staging: Staging, prepared: Prepared) -> None:
    """Raise ManifestError for an empty plan: a broken export must not retire a whole catalog."""
    if staging.jobs:
        return
    loaded = prepared.loaded
    raise ManifestError(
        [
            loaded.places.fault(
                ("rows",) if loaded.manifest.rows else ("jobs",),
                "this makes no job at all: the table is empty, or `where` is true for no row",
            )
        ]
    )


def _amendments(staging: Staging, batch: BatchId | None, selection: Selection) -> Amendments | None:
    """Return the prompts that were changed in review; None without any."""
    if batch is None:
        return None
    found = amendments(staging.conn, batch, enrolled_only=selection.keep_rejected)
    return Amendments(found) if found else None


def _amended_text(keys: Sequence[str]) -> str:
    jobs = "1 job has" if len(keys) == 1 else f"{len(keys):,} jobs have"
    return (
        f"{jobs} a prompt from review that the manifest does not have (such as {keys[0]});"
        " edit the manifest, which then counts"
    )


def _price_of(profile: Profile, *, accept_unknown_price: bool) -> Price:
    def price(model: str, options: Mapping[str, OptionValue], references: int) -> Micros:
        known = profile.price(model, options, references)
        if known is None:
            if not accept_unknown_price:
                raise SettingsError(_unknown_price(profile, model))
            return ZERO  # unknown: no budget can contain it, so none may be set
        return known

    return price


def _unknown_price(profile: Profile, model: str) -> str:
    source = f" ({profile.price_source})" if profile.price_source else ""
    return (
        f"the price of {model} with these options at {profile.name} is not known{source}, so"
        " nothing can be estimated or kept within a budget; set it as `provider: {name: "
        f"{profile.name}, price: 0.05}}`, or run without budgets: --accept-unknown-price"
    )
