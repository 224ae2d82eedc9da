"""From a manifest to its provider, ledger and limits; nothing is sent."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final, Self

from batchgen.errors import Fault, ManifestError, SettingsError
from batchgen.ledger.batch_identity import BatchIdentity
from batchgen.ledger.manifest_paths import Adoption, check_manifest, known_base, stored_path
from batchgen.ledger.selection import Selection
from batchgen.manifest.loader import BrokenManifestError, LoadedManifest, load_manifest
from batchgen.providers.account import ApiKey
from batchgen.providers.profile import Profile
from batchgen.session.bucket_tables import with_table
from batchgen.session.directories import references_directory
from batchgen.session.manifest_faults import more_faults
from batchgen.session.overrides import Overrides
from batchgen.session.provider_profile import resolve_profile
from batchgen.session.run_limits import RunLimits
from batchgen.session.settings import Environment
from batchgen.session.storage import stores_for
from batchgen.storage.stores import Stores

DEFAULT_PROVIDER: Final = "crazyrouter"
"""Provider of a manifest that names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A parsed manifest with its resolved provider."""

    loaded: LoadedManifest
    environment: Environment
    profile: Profile
    ledger: Path
    adopted: Adoption | None = None
    """Set if the batch continues with a manifest at another path."""
    batch_base: Path | None = None
    """The directory of the batch's own manifest, if this manifest is a partial one."""

    @property
    def base(self) -> Path:
        """Directory that output directories are relative to.

        A partial manifest may be in any directory, but its images belong to the batch, whose other
        images a run of it delivers too.
        """
        return self.batch_base or self.loaded.base

    @property
    def references(self) -> Path:
        """Directory of reference images given by URL, named by their digests."""
        return references_directory(self.ledger)

    def stores(self) -> Stores:
        """Return the stores that output directories and URLs of the manifest name."""
        return stores_for(self.base, self.loaded.manifest.storage, self.environment)

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
    """Read the manifest and the settings, to plan its jobs; fetch a table that is in a bucket.

    Raises ManifestError and SettingsError.
    """
    return with_fetched_table(_read(manifest, db, ledger_directory))


def _read(manifest: Path, db: Path | None, ledger_directory: Path | None = None) -> Prepared:
    try:
        loaded = load_manifest(manifest)
    except BrokenManifestError as error:
        sound = error.sound
        more = () if sound is None else _more_faults(sound, db, ledger_directory)
        raise ManifestError([*{*error.faults, *more}]) from None
    return settle_settings(loaded, db, ledger_directory=ledger_directory)


def _more_faults(
    sound: LoadedManifest, db: Path | None, ledger_directory: Path | None
) -> Sequence[Fault]:
    """Return the errors that planning finds in the sound part of a manifest, if it can begin."""
    try:
        prepared = settle_settings(sound, db, ledger_directory=ledger_directory)
        prepared = with_fetched_table(prepared)
    except SettingsError:
        return ()
    except ManifestError as error:
        return error.faults
    return more_faults(prepared.loaded, prepared.profile)


def settle_settings(
    loaded: LoadedManifest, db: Path | None, *, ledger_directory: Path | None = None
) -> Prepared:
    """Find ledger and provider of a manifest. Raises SettingsError."""
    environment = Environment.load(loaded.base)
    ledger = environment.ledger_path(db, ledger_directory or loaded.base)
    return Prepared(
        loaded=loaded,
        environment=environment,
        profile=resolve_profile(loaded.manifest.provider, environment, loaded.base),
        ledger=ledger,
    )


def with_fetched_table(prepared: Prepared) -> Prepared:
    """Fetch the table of a manifest if it is in a bucket. Raises ManifestError, SettingsError."""
    loaded = with_table(prepared.loaded, prepared.stores(), prepared.references)
    return replace(prepared, loaded=loaded)


def belongs(conn: sqlite3.Connection, prepared: Prepared, *, adopt: bool) -> Prepared:
    """Check that the batch belongs to this manifest, or may from now on. Raises SettingsError."""
    loaded = prepared.loaded
    if loaded.manifest.partial:
        return replace(prepared, batch_base=known_base(conn, loaded.name, prepared.ledger))
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
    """Find the provider of a manifest, or by its name; no table is read.

    Raises ManifestError and SettingsError.
    """
    if manifest is not None:
        if provider is not None:
            raise SettingsError("name a manifest or --provider, not both")
        prepared = _read(manifest, db)
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
