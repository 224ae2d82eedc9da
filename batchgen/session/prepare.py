"""What `run` and `plan` share: from a manifest to a staged plan with prices, nothing sent."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final, TypeVar

from batchgen.errors import Fault, ManifestError, SettingsError
from batchgen.job import OptionValue
from batchgen.ledger.clock import utc_now
from batchgen.ledger.manifest_paths import Adoption, check_manifest, stored_path
from batchgen.ledger.only import Only
from batchgen.ledger.queries import batch_id
from batchgen.ledger.staging import EVERYTHING, BatchIdentity, Selection, Staging
from batchgen.ledger.staging_rows import Price, Priced
from batchgen.manifest.loader import LoadedManifest, load_manifest
from batchgen.manifest.model import Limits, is_refresh
from batchgen.money import ZERO, Micros, parse_dollars
from batchgen.outcomes.retry_policy import Waste, parse_waste
from batchgen.planning.faults import most_rows_at_fault
from batchgen.planning.naming import collision_key
from batchgen.planning.planner import Planner
from batchgen.planning.reference_images import Addresses
from batchgen.providers.account import ApiKey
from batchgen.providers.profile import Profile
from batchgen.providers.rules.model_rules import Rulebook
from batchgen.session.provider_profile import resolve_profile
from batchgen.session.schedule import deadline_of
from batchgen.session.settings import Environment

T = TypeVar("T")
DEFAULT_PROVIDER: Final = "crazyrouter"
"""As in a manifest that names none."""

_KEPT: Final = "a row at fault gives no key, so jobs that are not planned are kept, not retired"

REFERENCES_SUFFIX: Final = ".references"


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """What the command line says over the manifest."""

    concurrency: int | None = None
    max_cost: str | None = None
    max_waste: str | None = None
    limit: int | None = None
    grace_s: float | None = None
    overwrite: bool = False
    accept_unknown_price: bool = False
    yes: bool = False
    """Whatever a person would be asked is answered already."""
    only: Only | None = None
    refresh: str | None = None
    since: datetime | None = None
    until: str | None = None
    log_file: Path | None = None
    again: str | None = None
    accepted: str | None = None
    db: Path | None = None
    adopt: bool = False
    """Whether a batch may continue with another manifest than its own."""
    take_over: bool = False
    """Whether a person says that a run which cannot be seen from here is dead."""

    def deadline(self, now: datetime) -> datetime | None:
        """After which no new request starts. Raises SettingsError."""
        if self.until is None:
            return None
        try:
            return deadline_of(self.until, now)
        except ValueError as exc:
            raise SettingsError(f"--until: {exc}") from exc

    @property
    def selection(self) -> Selection:
        """Which jobs are taken up, and which images are too old. Raises SettingsError."""
        if self.refresh is not None and not is_refresh(self.refresh):
            raise SettingsError(
                f"--refresh: {self.refresh!r} is not changed, always or an age like 30d"
            )
        return Selection(only=self.only, refresh=self.refresh, since=self.since)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A manifest that is read and a provider that is known."""

    loaded: LoadedManifest
    environment: Environment
    profile: Profile
    ledger: Path
    adopted: Adoption | None = None
    """Set where the batch continues with a manifest at another path."""

    @property
    def references(self) -> Path:
        """Where reference images that are given by address are kept, under their digests."""
        return self.ledger.with_name(self.ledger.name + REFERENCES_SUFFIX)

    @property
    def identity(self) -> BatchIdentity:
        """What the ledger keeps of it."""
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


def prepare(manifest: Path, db: Path | None, *, ledger_directory: Path | None = None) -> Prepared:
    """Read the manifest and the settings. Raises ManifestError and SettingsError."""
    loaded = load_manifest(manifest)
    return settle_settings(loaded, db, ledger_directory=ledger_directory)


def settle_settings(
    loaded: LoadedManifest, db: Path | None, *, ledger_directory: Path | None = None
) -> Prepared:
    """Find the ledger and the provider of a manifest. Raises SettingsError."""
    environment = Environment.load(loaded.base)
    return Prepared(
        loaded=loaded,
        environment=environment,
        profile=resolve_profile(loaded.manifest.provider, environment),
        ledger=environment.ledger_path(db, ledger_directory or loaded.base),
    )


def belongs(conn: sqlite3.Connection, prepared: Prepared, *, adopt: bool) -> Prepared:
    """Check that the batch belongs to this manifest, or may from now on. Raises SettingsError."""
    loaded = prepared.loaded
    if loaded.manifest.partial:
        return prepared
    found = check_manifest(conn, loaded.name, loaded.path, prepared.ledger, adopt=adopt)
    return replace(prepared, adopted=found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A provider that is asked something outside of a run."""

    profile: Profile
    environment: Environment
    ledger: Path
    prepared: Prepared | None = None
    """The manifest that it was named by."""


def address(manifest: Path | None, provider: str | None, db: Path | None) -> Address:
    """Find the provider of a manifest, or by its name. Raises ManifestError and SettingsError."""
    if manifest is not None:
        if provider is not None:
            raise SettingsError("name a manifest or --provider, not both")
        prepared = prepare(manifest, db)
        return Address(
            profile=prepared.profile,
            environment=prepared.environment,
            ledger=prepared.ledger,
            prepared=prepared,
        )
    environment = Environment.load(Path.cwd())
    return Address(
        profile=resolve_profile(provider or DEFAULT_PROVIDER, environment),
        environment=environment,
        ledger=environment.ledger_path(db, None),
    )


def key_of(profile: Profile, environment: Environment) -> ApiKey | None:
    """The key for the provider; None where none is sent. Raises SettingsError."""
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
    addresses: Addresses | None = None,
    selection: Selection = EVERYTHING,
) -> Staging:
    """Plan all jobs into an empty staging. Raises ManifestError and SettingsError.

    ``priced`` is told of the price of jobs; ``warned``, in the end,
    of what the provider's rules say of jobs that are planned all the same. ``addresses`` are asked
    for reference images that are given so; without them none is known.
    """
    profile = prepared.profile
    rules = Rulebook(
        provider=profile.name,
        models=profile.known_models(),
        today=utc_now().date(),
        refuse=prepared.loaded.manifest.rules == "refuse",
    )
    planner = Planner(
        prepared.loaded,
        provider=profile.name,
        default_model=profile.default_model,
        rules=rules,
        addresses=addresses,
    )
    staging.fill(
        planner,
        price=_price_of(profile, accept_unknown_price=accept_unknown_price),
        priced=priced,
        collision_key=collision_key,
        progress=progress,
        selection=selection,
        batch=batch_id(staging.conn, prepared.loaded.name),
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
    if not staging.jobs:
        # A broken export must not retire a whole catalogue.
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


def _price_of(profile: Profile, *, accept_unknown_price: bool) -> Price:
    def price(model: str, options: Mapping[str, OptionValue], references: int) -> Micros:
        known = profile.price(model, options, references)
        if known is None:
            if not accept_unknown_price:
                raise SettingsError(_unknown_price(profile, model))
            return ZERO  # unknown: no budget can hold it, and none may be set
        return known

    return price


def _unknown_price(profile: Profile, model: str) -> str:
    source = f" ({profile.price_source})" if profile.price_source else ""
    return (
        f"the price of {model} with these options at {profile.name} is not known{source}, so"
        " nothing can be estimated or kept within a budget; set it as `provider: {name: "
        f"{profile.name}, price: 0.05}}`, or go on without budgets: --accept-unknown-price"
    )


def max_cost_of(limits: Limits, flag: str | None) -> Micros | None:
    """The budget of a run. Raises SettingsError."""
    written = flag if flag is not None else limits.max_cost
    return None if written is None else _amount(str(written), "--max-cost", parse_dollars)


def waste_of(limits: Limits, flag: str | None) -> Waste:
    """The waste allowance of a run. Raises SettingsError."""
    written = flag if flag is not None else limits.max_waste
    return Waste() if written is None else _amount(str(written), "--max-waste", parse_waste)


def _amount(text: str, flag: str, parse: Callable[[str], T]) -> T:
    try:
        return parse(text)
    except ValueError as exc:
        raise SettingsError(f"{flag}: {exc}") from exc
