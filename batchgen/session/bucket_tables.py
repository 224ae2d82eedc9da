"""Fetch the table of a manifest from a bucket; a copy with the same tag is used again."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from batchgen.errors import ManifestError
from batchgen.manifest.loader import LoadedManifest
from batchgen.manifest.model import FileRows
from batchgen.session.settings import Environment
from batchgen.session.storage import stores_for
from batchgen.storage.store import Store
from batchgen.system.atomic_files import PRIVATE_FILE, make_private_directory, write_atomically
from batchgen.urls import is_bucket


def with_copies(
    loaded: LoadedManifest, environment: Environment, directory: Path
) -> LoadedManifest:
    """Return the manifest with a local copy of its table if that is in a bucket.

    ``directory`` takes the copies. Raises ManifestError if the table cannot be fetched.
    """
    rows = loaded.manifest.rows
    url = rows.file if isinstance(rows, FileRows) else rows
    if not isinstance(url, str) or not is_bucket(url):
        return loaded
    scheme, _, rest = url.partition("://")
    bucket, _, name = rest.partition("/")
    stores = stores_for(loaded.base, loaded.manifest.storage, environment)
    try:
        copy = _fetch(stores.of(f"{scheme.lower()}://{bucket}"), name, directory)
    except OSError as exc:
        place = ("rows",) if isinstance(rows, str) else ("rows", "file")
        fault = loaded.places.fault(place, f"{url}: cannot be read: {exc.strerror or exc}")
        raise ManifestError([fault]) from exc
    return replace(loaded, copies={url: copy})


def _fetch(store: Store, name: str, directory: Path) -> Path:
    """Return the copy of an object, which is named by the object and its tag. Raises OSError."""
    info = store.info(name)
    if info is None:
        raise FileNotFoundError(2, "no such object", f"{store.url}/{name}")
    of_object = hashlib.sha256(f"{store.url}/{name}".encode()).hexdigest()[:16]
    of_tag = hashlib.sha256(info.e_tag.encode()).hexdigest()[:16]
    copy = directory / f"table-{of_object}-{of_tag}"
    if not info.e_tag or not copy.exists():
        data = store.read(name)
        make_private_directory(directory)
        for old in directory.glob(f"table-{of_object}-*"):
            old.unlink(missing_ok=True)
        write_atomically(copy, data, mode=PRIVATE_FILE)
    return copy
