"""The buckets of a batch: their options, and their check before the money."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from batchgen.errors import SettingsError
from batchgen.ledger.batches import BatchRow
from batchgen.ledger.manifest_paths import manifest_path
from batchgen.manifest.loader import parse_manifest
from batchgen.manifest.model import Storage
from batchgen.session.settings import Environment
from batchgen.storage.probe import probe
from batchgen.storage.stores import Stores
from batchgen.urls import is_bucket

_VARIABLES: Final = {
    "s3": (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_ENDPOINT_URL",
        "AWS_SKIP_SIGNATURE",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
    ),
    "gs": ("GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_KEY", "GOOGLE_BASE_URL"),
    "az": (
        "AZURE_STORAGE_ACCOUNT_NAME",
        "AZURE_STORAGE_ACCOUNT_KEY",
        "AZURE_STORAGE_SAS_TOKEN",
        "AZURE_STORAGE_ENDPOINT",
        "AZURE_CLIENT_ID",
        "AZURE_CLIENT_SECRET",
        "AZURE_TENANT_ID",
    ),
}
"""Settings that may be in a ``.env`` file; obstore reads these and more in the environment."""


CREDENTIALS: Final = tuple(name for names in _VARIABLES.values() for name in names)


def stores_for(base: Path, storage: Storage | None, environment: Environment) -> Stores:
    """Return the stores of a manifest; nothing is opened yet."""
    return Stores(base, lambda: _options(storage, environment))


def _options(storage: Storage | None, environment: Environment) -> dict[str, dict[str, str]]:
    options = {
        scheme: {name.lower(): value for name in names if (value := environment.get(name))}
        for scheme, names in _VARIABLES.items()
    }
    if storage is not None and storage.endpoint is not None:
        options["s3"]["aws_endpoint_url"] = storage.endpoint
    if storage is not None and storage.region is not None:
        options["s3"]["aws_region"] = storage.region
    return options


def stores_of_batch(ledger: Path, batch: BatchRow) -> Stores:
    """Return the stores of an enrolled batch, from the manifest in its ledger.

    The manifest is read when the first bucket is opened. Raises SettingsError.
    """
    path = manifest_path(ledger, batch.manifest_path)

    def options() -> dict[str, dict[str, str]]:
        manifest = parse_manifest(batch.manifest.encode(), file=path.name, path=path).manifest
        return _options(manifest.storage, Environment.load(path.parent))

    return Stores(path.parent, options)


def check_opened(ledger: Path, batch: BatchRow, roots: Iterable[str]) -> None:
    """Open the buckets among some output directories; nothing is sent. Raises SettingsError."""
    stores = stores_of_batch(ledger, batch)
    for root in filter(is_bucket, roots):
        stores.of(root)


def check_stores(stores: Stores, roots: Iterable[str], *, single_writer: bool) -> None:
    """Refuse a run whose buckets cannot be written safely. Raises SettingsError."""
    for root in roots:
        found = probe(stores.of(root))
        if not found.is_safe and not single_writer:
            missing = "If-Match" if found.create_only else "If-None-Match"
            raise SettingsError(
                f"{root}: this service ignores conditional writes ({missing}), so objects of other"
                " programs could be replaced; expected S3, Google Cloud Storage, Azure or a current"
                " MinIO. If no other program writes there, set `storage: {single_writer: true}`;"
                " nothing was sent"
            )
