"""Sidecars in buckets."""

from __future__ import annotations

from pathlib import PurePosixPath

from batchgen.output.bucket_versions import keep_edited_object
from batchgen.output.sidecar import is_edited, is_sidecar_data
from batchgen.storage.store import Store


def sidecar_name(path: str) -> str:
    """Return the name of the sidecar: ``mug.json`` next to ``mug.png``."""
    return str(PurePosixPath(path).with_suffix(".json"))


def is_free_sidecar(store: Store, name: str, batch: str, key: str) -> bool:
    """Return whether a sidecar may be written: no object is there, or that of the job."""
    data = read_object(store, name)
    return data is None or is_sidecar_data(data, batch, key)


def remove_sidecar_object(store: Store, path: str, batch: str, key: str) -> None:
    """Delete the sidecar of an image if it is that of the job; an edited one is kept.

    Raises OSError.
    """
    name = sidecar_name(path)
    data = read_object(store, name)
    if data is not None and is_sidecar_data(data, batch, key):
        if is_edited(data):
            keep_edited_object(store, name)
        store.delete(name)


def read_object(store: Store, name: str) -> bytes | None:
    """Return the content of an object; None if it does not exist. Raises OSError."""
    try:
        return store.read(name)
    except FileNotFoundError:
        return None
