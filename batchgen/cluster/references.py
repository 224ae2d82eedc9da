"""Reference images on their way to actors: once for each content, by way of the bucket.

The driver puts an object that is named after the SHA-256 of the image, before the first order that
needs it. An actor reads it once, and sends it from a file of its own. The objects of a batch are
deleted at the end of its run.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Final

from batchgen.cluster.intents import SPOOL_PREFIX
from batchgen.cluster.messages import Reference
from batchgen.providers.adapters.multipart import FilePiece
from batchgen.storage.store import Store
from batchgen.system.atomic_files import PRIVATE_DIRECTORY, make_directories
from batchgen.system.threads import in_disk_thread, in_store_thread

_KNOWN: Final = 4096
"""Contents that a driver remembers; it looks for others in the bucket again."""
_KEPT: Final = 256
"""Files of an actor."""


class SharedReferences:
    """The reference images of a batch, as its driver puts them."""

    def __init__(self, store: Store, batch: str) -> None:
        self._store = store
        # Two batches may share a bucket, and each deletes its own objects.
        name = hashlib.sha256(batch.encode()).hexdigest()[:16]
        self._prefix = f"{SPOOL_PREFIX}references/{name}/"
        self._known: OrderedDict[str, asyncio.Future[None]] = OrderedDict()

    async def put(self, piece: FilePiece) -> Reference:
        """Put an image if no order had it yet. Raises OSError, also if the file has changed."""
        name, sha256 = f"{self._prefix}{piece.sha256}", piece.sha256
        known = self._known.pop(sha256, None)
        if known is None:
            known = asyncio.ensure_future(in_store_thread(_put, self._store, name, piece))
        self._known[sha256] = known
        if len(self._known) > _KNOWN:
            self._known.popitem(last=False)
        try:
            await asyncio.shield(known)
        except OSError:
            if self._known.get(sha256) is known:
                del self._known[sha256]
            raise
        return Reference(name, sha256, piece.size, piece.base64)

    async def remove(self) -> None:
        """Delete the objects of the batch, also those of a killed driver. Raises OSError."""
        await in_store_thread(_remove, self._store, self._prefix)


class ReceivedReferences:
    """The reference images of an actor, in files."""

    def __init__(self, store: Store, directory: Path) -> None:
        self._store = store
        self._directory = directory
        self._files: OrderedDict[str, asyncio.Future[Path]] = OrderedDict()

    async def path_of(self, reference: Reference) -> Path:
        """Return the file of an image; read it from the bucket before. Raises OSError."""
        sha256 = reference.sha256
        known = self._files.pop(sha256, None)
        if known is None:
            known = asyncio.ensure_future(in_store_thread(self._read, reference))
        self._files[sha256] = known
        try:
            path = await asyncio.shield(known)
        except OSError:
            if self._files.get(sha256) is known:
                del self._files[sha256]
            raise
        if len(self._files) > _KEPT:
            _, oldest = self._files.popitem(last=False)
            with suppress(OSError):
                await in_disk_thread((await oldest).unlink)
        return path

    def _read(self, reference: Reference) -> Path:
        make_directories(self._directory, PRIVATE_DIRECTORY)
        path, digest = self._directory / reference.sha256, hashlib.sha256()
        with path.open("wb") as file:
            for chunk in self._store.chunks(reference.name):
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != reference.sha256:
            raise OSError(f"{reference.name}: its content differs from its name")
        return path


def _put(store: Store, name: str, piece: FilePiece) -> None:
    data = piece.path.read_bytes()
    if hashlib.sha256(data).hexdigest() != piece.sha256:
        raise OSError(f"{piece.path} changed after the request was built")
    try:
        store.put(name, data, create=True)
    except FileExistsError:
        found = store.info(name)
        if found is None or found.bytes != len(data):  # a kill left the claim of a large object
            store.put(name, data)


def _remove(store: Store, prefix: str) -> None:
    names = [one.name for one in store.list(prefix)]
    if names:
        store.delete_all(names)
