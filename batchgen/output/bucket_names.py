"""Give an image its final name in a bucket without losing any other object."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from batchgen.ledger.path_owners import PathHistory
from batchgen.ledger.records import OldImage
from batchgen.output.bucket_sidecar import remove_sidecar_object, sidecar_name
from batchgen.output.bucket_versions import keep_edited_object, keep_object
from batchgen.output.final_names import Conflict
from batchgen.storage.store import Store
from batchgen.storage.stores import Stores
from batchgen.system.failpoints import Point, hit
from batchgen.urls import path_below


def free_object(
    store: Store,
    path: str,
    sha256: str,
    known: PathHistory,
    *,
    keep_previous: int,
    overwrite: bool = False,
) -> str | None:
    """Keep the object at ``path``; return the tag that an image with this hash may replace.

    None if the object has gone. Raises Conflict and OSError.
    """
    before = store.info(path)
    if before is None:
        return None
    present = store.digest(path)
    is_empty_claim = known.is_own and not before.bytes
    if present == sha256 or present in known.hashes or is_empty_claim:
        if keep_previous and not is_empty_claim and present != sha256:
            keep_object(store, path, count=keep_previous)
            hit(Point.KEPT)
        return before.e_tag
    if not (known.is_own or overwrite):
        raise Conflict(f"{store.url}/{path}")
    keep_edited_object(store, path)
    hit(Point.KEPT)
    return before.e_tag


def remove_replaced_objects(
    stores: Stores,
    old: Sequence[OldImage],
    new: Collection[str],
    sidecars: Collection[str],
    *,
    keep_previous: int,
    batch: str,
    key: str,
) -> None:
    """Delete replaced objects of a job whose URLs differ from those of the ``new`` ones.

    ``sidecars`` are those of the new images. Raises OSError.
    """
    for image in old:
        place = path_below(image.root, image.path)
        if place in new:
            continue
        store = stores.of(image.root)
        if store.digest(image.path) != image.sha256:
            continue  # removed or edited by a person
        if keep_previous:
            keep_object(store, image.path, count=keep_previous)
        store.delete(image.path)
        if sidecar_name(place) not in sidecars:
            remove_sidecar_object(store, image.path, batch, key)
