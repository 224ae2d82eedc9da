"""Local copies of tables in buckets: fetched before a plan, kept until the next one."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from batchgen.errors import ManifestError
from batchgen.manifest.loader import LoadedManifest
from batchgen.manifest.model import FileRows
from batchgen.storage.store import Store
from batchgen.storage.stores import Stores
from batchgen.system.atomic_files import (
    PART_SUFFIX,
    PRIVATE_FILE,
    make_private_directory,
    rename_durably,
)
from batchgen.system.file_sync import sync_file
from batchgen.urls import is_bucket, split_object_url

_KEPT_S: Final = 24 * 3600
"""Another run may still read an older copy, so it is removed a day after its last use."""


def with_table(loaded: LoadedManifest, stores: Stores, directory: Path) -> LoadedManifest:
    """Fetch the table of a manifest if it is in a bucket; a copy with the same tag is used again.

    ``directory`` takes the copies. Raises ManifestError if the table cannot be fetched, and
    SettingsError if the bucket cannot be opened.
    """
    url = _table_url(loaded)
    if url is None:
        return loaded
    store = stores.of(split_object_url(url)[0])
    try:
        copy = _fetch(store, url, directory)
    except OSError as exc:
        place = ("rows",) if isinstance(loaded.manifest.rows, str) else ("rows", "file")
        fault = loaded.places.fault(place, f"{url}: cannot be read: {exc.strerror or exc}")
        raise ManifestError([fault]) from exc
    return replace(loaded, copies={url: copy})


def with_kept_table(loaded: LoadedManifest, directory: Path) -> LoadedManifest:
    """Return the manifest with the copy of its table that the last plan used, if there is one.

    Nothing is fetched: the rows of the ledger's jobs are those of that copy.
    """
    url = _table_url(loaded)
    if url is None:
        return loaded
    kept = list(_copies(directory, url))
    return replace(loaded, copies={url: max(kept)[1]}) if kept else loaded


def _table_url(loaded: LoadedManifest) -> str | None:
    """Return the URL of a table in a bucket; None for any other source of rows."""
    rows = loaded.manifest.rows
    url = rows.file if isinstance(rows, FileRows) else rows
    return url if isinstance(url, str) and is_bucket(url) else None


def _fetch(store: Store, url: str, directory: Path) -> Path:
    """Return the copy of an object, which is named by its URL and its tag. Raises OSError."""
    _, name = split_object_url(url)
    info = store.info(name)
    if info is None:
        raise FileNotFoundError(2, "no such object", f"{store.url}/{name}")
    copy = directory / f"{_prefix(url)}{_short_hash(info.e_tag)}"
    try:
        if info.e_tag:
            os.utime(copy)
            return copy
    except FileNotFoundError:
        pass
    make_private_directory(directory)
    part = directory / f"{copy.name}.{os.urandom(4).hex()}{PART_SUFFIX}"
    try:
        content = _download(store, name, part)
        if not info.e_tag:
            copy = directory / f"{_prefix(url)}{content[:16]}"
        rename_durably(part, copy)
    finally:
        part.unlink(missing_ok=True)
    for used_at, old in _copies(directory, url, ended=False):
        if used_at < time.time() - _KEPT_S:
            old.unlink(missing_ok=True)
    return copy


def _download(store: Store, name: str, part: Path) -> str:
    """Write the content of an object to a file, and return its SHA-256 in hex."""
    content = hashlib.sha256()
    part.touch(PRIVATE_FILE)
    with part.open("wb") as file:
        for chunk in store.chunks(name):
            content.update(chunk)
            file.write(chunk)
        file.flush()
        sync_file(file.fileno())
    return content.hexdigest()


def _copies(directory: Path, url: str, *, ended: bool = True) -> Iterator[tuple[float, Path]]:
    """Yield the copies of an object with the times of their last use.

    Unless ``ended``, what a killed run left is yielded too.
    """
    for path in directory.glob(f"{_prefix(url)}*"):
        with suppress(FileNotFoundError):
            if not (ended and path.name.endswith(PART_SUFFIX)):
                yield path.stat().st_mtime, path


def _prefix(url: str) -> str:
    return f"table-{_short_hash('/'.join(split_object_url(url)))}-"


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
