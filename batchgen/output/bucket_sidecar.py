"""Sidecars in buckets."""

from __future__ import annotations

from contextlib import suppress
from pathlib import PurePosixPath

from batchgen.output.sidecar import is_sidecar_data
from batchgen.storage.store import Store


def sidecar_name(path: str) -> str:
    """Return the name of the sidecar: ``mug.json`` next to ``mug.png``."""
    return str(PurePosixPath(path).with_suffix(".json"))


def is_free_sidecar(store: Store, name: str, batch: str, key: str) -> bool:
    """Return whether a sidecar may be written: no object is there, or that of the job."""
    try:
        return is_sidecar_data(store.read(name), batch, key)
    except FileNotFoundError:
        return True


def remove_sidecar_object(store: Store, path: str, batch: str, key: str) -> None:
    """Delete the sidecar of an image if it is that of the job. Raises OSError."""
    name = sidecar_name(path)
    with suppress(FileNotFoundError):
        if is_sidecar_data(store.read(name), batch, key):
            store.delete(name)
