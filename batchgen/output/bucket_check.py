"""Compare the objects of buckets with the images that the ledger has there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from batchgen.ledger.saved_images import Saved
from batchgen.output.bucket_sidecar import sidecar_name
from batchgen.output.sidecar import is_sidecar_data
from batchgen.storage.stores import Stores

_THREADS: Final = 32
_AT_ONCE: Final = 2_000


def differing_objects(stores: Stores, images: Sequence[Saved]) -> Iterator[tuple[Saved, bool]]:
    """Yield the images whose objects are missing (False) or changed (True). Raises OSError."""

    def digest(saved: Saved) -> str | None:
        return stores.of(saved.root).digest(saved.path)

    with ThreadPoolExecutor(_THREADS) as threads:
        for start in range(0, len(images), _AT_ONCE):
            page = images[start : start + _AT_ONCE]
            for saved, present in zip(page, threads.map(digest, page), strict=True):
                if present != saved.sha256:
                    yield saved, present is not None


def foreign_objects(
    stores: Stores, name: str, images: Sequence[Saved], ours: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Yield root and name of objects that are neither images of the ledger nor their sidecars.

    ``ours`` are the directories that batchgen keeps other things in. Raises OSError.
    """
    for root in sorted({saved.root for saved in images}):
        store = stores.of(root)
        known = {saved.path for saved in images if saved.root == root}
        sidecars = {sidecar_name(saved.path): saved.key for saved in images if saved.root == root}
        for one in store.list():
            if one.name in known or any(f"/{place}/" in f"/{one.name}" for place in ours):
                continue
            key = sidecars.get(one.name)
            if key is None or not is_sidecar_data(store.read(one.name), name, key):
                yield root, one.name
