"""Give accepted images their final names in buckets, with the guarantees of placing.

An object has its final name before the one that waited is deleted, and the ledger follows last.
After a kill in between, the digest identifies the image at its final name, and a second call
continues.
"""

from __future__ import annotations

import hashlib

from batchgen.ledger.unpublished import Publication
from batchgen.output.bucket_names import free_object, remove_replaced_objects
from batchgen.output.bucket_sidecar import (
    is_free_sidecar,
    read_object,
    remove_sidecar_object,
    sidecar_name,
)
from batchgen.output.bucket_versions import find_kept_object, keep_edited_object
from batchgen.output.final_names import MAX_TRIES, Conflict
from batchgen.output.sidecar import is_edited, is_sidecar_data, sidecar_digest
from batchgen.storage.object_store import MULTIPART_BYTES
from batchgen.storage.store import StaleObjectError, Store
from batchgen.storage.stores import Stores
from batchgen.system.failpoints import Point, hit
from batchgen.urls import path_below


def publish_object(stores: Stores, one: Publication) -> None:
    """Move an accepted object to its final name, and delete the objects that it replaces.

    The caller holds the batch. Raises Conflict if an object that is not an image of the job has the
    name, SettingsError for a bucket that cannot be opened, and OSError: FileNotFoundError if the
    accepted bytes are missing.
    """
    store = stores.of(one.root)
    sidecar = sidecar_name(one.path)
    if one.sidecar and not is_free_sidecar(store, sidecar, one.batch, one.key):
        raise Conflict(f"{store.url}/{sidecar}")
    source = _waiting(store, one)
    if store.digest(one.path) != one.sha256:
        _take_name(store, one, source)
    hit(Point.NAMED)
    if source is not None:
        store.delete(source)
    _publish_sidecar(store, one)
    place = path_below(one.root, one.path)
    remove_replaced_objects(
        stores,
        one.replaced,
        {place},
        {sidecar_name(place)},
        keep_previous=one.keep_previous,
        batch=one.batch,
        key=one.key,
    )
    hit(Point.PUBLISHED)


def _waiting(store: Store, one: Publication) -> str | None:
    """Return the name under which the accepted bytes wait, or are kept; None if they are gone."""
    if store.digest(one.pending) == one.sha256:
        return one.pending
    return find_kept_object(store, one.pending, one.sha256)


def _take_name(store: Store, one: Publication, source: str | None) -> None:
    """Put the accepted bytes under the final name, without losing any other object.

    They pass through this machine, since no service copies with a condition.
    """
    data = b"" if source is None else store.read(source)
    if hashlib.sha256(data).hexdigest() != one.sha256:
        raise FileNotFoundError(
            2, "missing, or changed since it was saved", f"{store.url}/{one.pending}"
        )
    for _ in range(MAX_TRIES):
        tag = _free_name(store, one, len(data))
        hit(Point.PUBLISHING)
        try:
            store.put(one.path, data, create=tag is None, if_tag=tag)
        except (FileExistsError, StaleObjectError):
            # The response to a put may have been lost.
            if store.digest(one.path) == one.sha256:
                return
        else:
            return
    raise Conflict(f"{store.url}/{one.path}")


def _free_name(store: Store, one: Publication, size: int) -> str | None:
    """Keep the object at the final name; return the tag that may be replaced, None without one."""
    if size > MULTIPART_BYTES:
        there = store.info(one.path)
        # A large put claims its name with an empty object first, which stays after a kill.
        if there is not None and not there.bytes:
            return there.e_tag
    return free_object(store, one.path, one.sha256, one.known, keep_previous=one.keep_previous)


def _publish_sidecar(store: Store, one: Publication) -> None:
    """Move the sidecar of the image, or delete that of the image before it; see `Placer.describe`.

    A second call after a kill does nothing more.
    """
    final, pending = sidecar_name(one.path), sidecar_name(one.pending)
    waiting, before = read_object(store, pending), store.info(final)
    there = read_object(store, final) if before is not None else None
    waits = waiting is not None and sidecar_digest(waiting) == one.sha256
    if there is None or before is None or sidecar_digest(there) != one.sha256:
        if waiting is None or not waits:
            remove_sidecar_object(store, one.path, one.batch, one.key)
            return
        if there is not None:
            if not is_sidecar_data(there, one.batch, one.key):
                return  # the job has no sidecars: another object at its name is left alone
            if is_edited(there):
                keep_edited_object(store, final)
        tag = None if before is None else before.e_tag
        try:
            store.put(final, waiting, create=tag is None, if_tag=tag)
        except (FileExistsError, StaleObjectError):
            raise Conflict(f"{store.url}/{final}") from None
    if waits:
        store.delete(pending)
