"""Compare the objects of buckets with the images that the ledger has there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from batchgen.ledger.saved_images import Saved
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
