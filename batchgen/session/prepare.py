"""From a manifest to a staged plan with prices, for `run` and `plan`; nothing is sent."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final, Self

from batchgen.errors import Fault, ManifestError, SettingsError
from batchgen.job import BatchId, OptionValue
from batchgen.ledger.batch_identity import BatchIdentity
from batchgen.ledger.batches import batch_id
from batchgen.ledger.clock import utc_now
from batchgen.ledger.decisions import amendments
from batchgen.ledger.manifest_paths import Adoption, check_manifest, stored_path
from batchgen.ledger.selection import EVERYTHING, Selection
from batchgen.ledger.staging import Staging
from batchgen.ledger.staging_rows import Price, Priced
from batchgen.manifest.loader import LoadedManifest, load_manifest
from batchgen.money import ZERO, Micros
from batchgen.planning.amendments import Amendments
from batchgen.planning.faults import most_rows_at_fault
from batchgen.planning.naming import collision_key
from batchgen.planning.planner import Planner
from batchgen.planning.reference_images import ReferenceUrls
from batchgen.providers.account import ApiKey
from batchgen.providers.profile import Profile
from batchgen.providers.rules.model_rules import Rulebook
from batchgen.session.bucket_tables import with_copies
from batchgen.session.overrides import Overrides
from batchgen.session.provider_profile import resolve_profile
from batchgen.session.run_limits import RunLimits
from batchgen.session.settings import Environment

DEFAULT_PROVIDER: Final = "crazyrouter"
"""Provider of a manifest that names none."""

_KEPT: Final = "a row at fault gives no key, so jobs that are not planned are kept, not retired"

REFERENCES_SUFFIX: Final = ".references"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A parsed manifest with its resolved provider."""

    loaded: LoadedManifest
    environment: Environment
    profile: Profile
    ledger: Path
    adopted: Adoption | None = None
    """Set if the batch continues with a manifest at another path."""

    @property
    def references(self) -> Path:
        """Directory of reference images given by URL, named by their digests."""
        return references_directory(self.ledger)

    @property
    def identity(self) -> BatchIdentity:
        """Return what the ledger keeps of it."""
        loaded = self.loaded
        return BatchIdentity(
            name=loaded.name,
            provider=self.profile.name,
            price_source=self.profile.price_source,
            manifest_path=stored_path(loaded.path, self.ledger),
            adopted=self.adopted,
            manifest_sha256=loaded.sha256,
            manifest=loaded.text,
            partial=loaded.manifest.partial,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """A run to begin: its manifest, its flags, and the limits that both result in."""

    prepared: Prepared
    overrides: Overrides
    limits: RunLimits
    selection: Selection
    """Which jobs the run takes up, and which images it regenerates."""

    @classmethod
    def of(cls, prepared: Prepared, overrides: Overrides) -> Self:
        """Resolve the limits and the selection of a run that begins now. Raises SettingsError."""
        now = datetime.now().astimezone()
        limits = RunLimits.resolve(prepared.loaded.manifest.limits, overrides, now)
        return cls(
            prepared=prepared, overrides=overrides, limits=limits, selection=overrides.selection
        )

    @property
    def name(self) -> str:
        """The name of the batch."""
        return self.prepared.loaded.name


def prepare(manifest: Path, db: Path | None, *, ledger_directory: Path | None = None) -> Prepared:
    """Read the manifest and the settings. Raises ManifestError and SettingsError."""
    loaded = load_manifest(manifest)
    return settle_settings(loaded, db, ledger_directory=ledger_directory)


def settle_settings(
    loaded: LoadedManifest, db: Path | None, *, ledger_directory: Path | None = None
) -> Prepared:
    """Find ledger and provider of a manifest, and fetch a table that is in a bucket.

    Raises SettingsError, and ManifestError for such a table.
    """
    environment = Environment.load(loaded.base)
    ledger = environment.ledger_path(db, ledger_directory or loaded.base)
    return Prepared(
        loaded=with_copies(loaded, environment, references_directory(ledger)),
        environment=environment,
        profile=resolve_profile(loaded.manifest.provider, environment),
        ledger=ledger,
    )


def references_directory(ledger: Path) -> Path:
    """Return where copies of reference images and tables are kept: next to the ledger."""
    return ledger.with_name(ledger.name + REFERENCES_SUFFIX)


def belongs(conn: sqlite3.Connection, prepared: Prepared, *, adopt: bool) -> Prepared:
    """Check that the batch belongs to this manifest, or may from now on. Raises SettingsError."""
    loaded = prepared.loaded
    if loaded.manifest.partial:
        return prepared
    found = check_manifest(conn, loaded.name, loaded.path, prepared.ledger, adopt=adopt)
    return replace(prepared, adopted=found)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRef:
    """A provider that is contacted outside of a run."""

    profile: Profile
    environment: Environment
    ledger: Path
    prepared: Prepared | None = None
    """The manifest that names it; None if it was given by name."""


def find_endpoint(manifest: Path | None, provider: str | None, db: Path | None) -> EndpointRef:
    """Find the provider of a manifest, or by its name. Raises ManifestError and SettingsError."""
    if manifest is not None:
        if provider is not None:
            raise SettingsError("name a manifest or --provider, not both")
        prepared = prepare(manifest, db)
        return EndpointRef(
            profile=prepared.profile,
            environment=prepared.environment,
            ledger=prepared.ledger,
            prepared=prepared,
        )
    environment = Environment.load(Path.cwd())
    return EndpointRef(
        profile=resolve_profile(provider or DEFAULT_PROVIDER, environment),
        environment=environment,
        ledger=environment.ledger_path(db, None),
    )


def key_of(profile: Profile, environment: Environment) -> ApiKey | None:
    """Return the key for the provider; None if it needs none. Raises SettingsError."""
    if profile.key_variable is not None:
        return environment.key(profile.key_variable)
    return ApiKey(profile.open_key) if profile.open_key else None


def stage(
    staging: Staging,
    prepared: Prepared,
    *,
    accept_unknown_price: bool,
    progress: Callable[[int], None] | None = None,
    priced: Priced | None = None,
    warned: Callable[[Fault], None] | None = None,
    reference_urls: ReferenceUrls | None = None,
    selection: Selection = EVERYTHING,
) -> Staging:
    """Plan all jobs into an empty staging. Raises ManifestError and SettingsError.

    ``priced`` receives the price of jobs; ``warned`` receives, at the end, warnings of the
    provider's rules about jobs that are planned anyway. ``reference_urls`` resolves reference
    images given by URL; without it, none of them is known.
    """
    profile = prepared.profile
    rules = Rulebook(
        provider=profile.name,
        models=profile.known_models(),
        today=utc_now().date(),
        refuse=prepared.loaded.manifest.rules == "refuse",
    )
    batch = batch_id(staging.conn, prepared.loaded.name)
    amended = _amendments(staging, batch, selection)
    planner = Planner(
        prepared.loaded,
        provider=profile.name,
        default_model=profile.default_model,
        rules=rules,
        reference_urls=reference_urls,
        amendments=amended,
    )
    staging.fill(
        planner,
        price=_price_of(profile, accept_unknown_price=accept_unknown_price),
        priced=priced,
        collision_key=collision_key,
        progress=progress,
        selection=selection,
        batch=batch,
        strict=planner.strict,
    )
    staging.resolve(selection.only, prepared.loaded.name)
    staging.shares = prepared.loaded.manifest.share
    staging.keeps_unplanned = planner.rows.has_unknown_keys
    at_fault = [*planner.rows.all(), *staging.clashes]
    places = prepared.loaded.places
    most = most_rows_at_fault(places, planner.rows.rows, staging.rows_at_fault())
    if most is not None:
        raise ManifestError([most, *at_fault])
    if warned is not None:
        for warning in [*planner.warnings, *at_fault]:
            warned(warning)
        if staging.keeps_unplanned:
            warned(places.fault(("rows",), _KEPT))
        if amended is not None and amended.used:
            warned(Fault(prepared.loaded.path.name, 0, 0, "", _amended_text(amended.used)))
    if not staging.jobs:
        # A broken export must not retire a whole catalog.
        loaded = prepared.loaded
        raise ManifestError(
            [
                loaded.places.fault(
                    ("rows",) if loaded.manifest.rows else ("jobs",),
                    "this makes no job at all: the table is empty, or `where` is true for no row",
                )
            ]
        )
    return staging


def _amendments(staging: Staging, batch: BatchId | None, selection: Selection) -> Amendments | None:
    """Return the prompts that were changed in review; None if there are none."""
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
        f"{profile.name}, price: 0.05}}`, or go on without budgets: --accept-unknown-price"
    )
