"""Put the versions of images before the present ones back in buckets."""

from __future__ import annotations

from batchgen.ledger.saved_images import Rollback, Version
from batchgen.output.bucket_sidecar import remove_sidecar_object
from batchgen.output.bucket_versions import find_kept_object, keep_edited_object, keep_object
from batchgen.output.previous_versions import MAX_KEPT
from batchgen.storage.store import StaleObjectError
from batchgen.storage.stores import Stores
from batchgen.urls import is_bucket, path_below


def object_refusal(stores: Stores, rollback: Rollback) -> str | None:
    """Return why the earlier images can't be put back; None if they can. Raises OSError."""
    versions = (*rollback.current, *rollback.earlier)
    if not all(is_bucket(one.root) for one in versions):
        return "one version is in a bucket and the other in a directory"
    ours = {path_below(one.root, one.path) for one in rollback.current}
    for earlier in rollback.earlier:
        store = stores.of(earlier.root)
        present = store.digest(earlier.path)
        if present == earlier.sha256:
            continue
        if present is not None and path_below(earlier.root, earlier.path) not in ours:
            return f"{earlier.path} is another image by now"
        if find_kept_object(store, earlier.path, earlier.sha256) is None:
            return f"{earlier.path} is not kept any more"
    return None


def put_objects_back(stores: Stores, name: str, rollback: Rollback) -> None:
    """Put the objects back; killed in between, each is in its place or kept. Raises OSError."""
    earlier_digests = {one.sha256 for one in rollback.earlier}
    for now in rollback.current:
        store = stores.of(now.root)
        present = store.digest(now.path)
        if present == now.sha256:
            keep_object(store, now.path, count=MAX_KEPT + 1)
        elif present is not None and present not in earlier_digests:
            keep_edited_object(store, now.path)
    for earlier in rollback.earlier:
        _put_back(stores, earlier)
    present_places = {path_below(one.root, one.path) for one in rollback.earlier}
    for now in rollback.current:
        store = stores.of(now.root)
        remove_sidecar_object(store, now.path, name, rollback.key)  # it describes the other image
        if path_below(now.root, now.path) not in present_places:
            store.delete(now.path)


def _put_back(stores: Stores, earlier: Version) -> None:
    store = stores.of(earlier.root)
    before = store.info(earlier.path)
    if before is not None and store.digest(earlier.path) == earlier.sha256:
        return
    kept = find_kept_object(store, earlier.path, earlier.sha256)
    if kept is None:
        raise FileNotFoundError(2, "no kept version has this content", earlier.path)
    data = store.read(kept)
    try:
        if before is None:
            store.put(earlier.path, data, create=True)
        else:
            store.put(earlier.path, data, if_tag=before.e_tag)
    except (FileExistsError, StaleObjectError):
        raise OSError(5, "another program has changed the object meanwhile", kept) from None
    store.delete(kept)
