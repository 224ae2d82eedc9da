"""Copies of images in buckets, on this machine: verified, private, bounded.

They are named by the SHA-256 of their content, in a directory next to the ledger that can be
deleted at any time.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from batchgen.output.bucket_versions import find_kept_object
from batchgen.storage.store import Store
from batchgen.storage.stores import Stores
from batchgen.system.atomic_files import PART_SUFFIX, PRIVATE_FILE, make_private_directory

OBJECTS_SUFFIX: Final = ".objects"
MOST_BYTES: Final = 2 << 30
_KEPT_SHARE: Final = 0.8
"""Of the bound, after the oldest copies were removed."""
_AT_ONCE: Final = 8
_NAME: Final = re.compile(r"[0-9a-f]{64}")


class ChangedObjectError(Exception):
    """The object has other content than the ledger recorded."""


class ObjectCopies:
    """The copies that belong to one ledger. For threads."""

    def __init__(self, ledger: Path, stores: Stores, most_bytes: int = MOST_BYTES) -> None:
        self._directory = ledger.with_name(ledger.name + OBJECTS_SUFFIX)
        self._stores = stores
        self._most_bytes = most_bytes
        self._slots = threading.Semaphore(_AT_ONCE)
        self._lock = threading.Lock()

    def locate(self, root: str, path: str, sha256: str, *, is_saved: bool) -> str:
        """Return the name of the object that has the content of an image.

        An image that was replaced is looked for among the kept versions. Raises
        ChangedObjectError, FileNotFoundError, other OSErrors, and SettingsError if the bucket
        cannot be opened.
        """
        store = self._stores.of(root)
        if is_saved:
            present = store.digest(path)
            if present == sha256:
                return path
            if present is not None:
                raise ChangedObjectError(path)
        kept = find_kept_object(store, path, sha256)
        if kept is None:
            raise FileNotFoundError(2, "not found", path)
        return kept

    def copy(self, root: str, name: str, sha256: str) -> Path:
        """Return a file with the content of an object, which must have this SHA-256.

        Raises ChangedObjectError, FileNotFoundError and other OSErrors.
        """
        place = self._directory / sha256
        with suppress(OSError):
            os.utime(place)  # the least recently used ones are removed first
            return place
        with self._slots:
            if not place.is_file():
                self._download(self._stores.of(root), name, place)
        return place

    def _download(self, store: Store, name: str, place: Path) -> None:
        make_private_directory(self._directory)
        part = place.with_name(f".{place.name}.{os.urandom(4).hex()}{PART_SUFFIX}")
        digest = hashlib.sha256()
        try:
            handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
            with os.fdopen(handle, "wb") as file:
                for chunk in store.chunks(name):
                    digest.update(chunk)
                    file.write(chunk)
            if digest.hexdigest() != place.name:
                raise ChangedObjectError(name)
            part.replace(place)
        finally:
            part.unlink(missing_ok=True)
        self._shrink(place)

    def _shrink(self, newest: Path) -> None:
        """Remove the least recently used copies once all of them exceed the bound."""
        with self._lock:
            found = sorted(_sizes(self._directory), key=lambda one: one[1])
            total = sum(size for _, _, size in found)
            if total <= self._most_bytes:
                return
            for path, _, size in found:
                if total <= self._most_bytes * _KEPT_SHARE:
                    return
                if path != newest:
                    path.unlink(missing_ok=True)
                    total -= size


def _sizes(directory: Path) -> Iterator[tuple[Path, float, int]]:
    with os.scandir(directory) as entries:
        for entry in entries:
            if _NAME.fullmatch(entry.name) is None:
                continue
            with suppress(FileNotFoundError):
                found = entry.stat()
                yield Path(entry.path), found.st_mtime, found.st_size
