"""Move an image to another path where one of the two is in a bucket."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import PurePosixPath

from batchgen.ledger.relocations import Relocation
from batchgen.output.bucket_sidecar import read_object, sidecar_name
from batchgen.output.sidecar import renamed_sidecar, sidecar_digest
from batchgen.storage.store import Store
from batchgen.storage.stores import Stores
from batchgen.urls import path_below


def move_object(one: Relocation, stores: Stores) -> str:
    """Move one image and its sidecar; return why it can't be moved, or an empty string.

    The object is created at its new path, then deleted at its old one. After a kill in between,
    the next call deletes it. Raises OSError.
    """
    if path_below(one.root, one.path) == path_below(one.new_root, one.new_path):
        return ""  # one object: ``s3://b/out`` and ``x/mug.png``, ``s3://b/out/x`` and ``mug.png``
    source, target = stores.of(one.root), stores.of(one.new_root)
    there = target.digest(one.new_path)
    if there is None:
        try:
            data = source.read(one.path)
        except FileNotFoundError:
            return "file not found"
        if hashlib.sha256(data).hexdigest() != one.sha256:
            return "it was changed since it was saved"
        try:
            target.put(one.new_path, data, create=True)
        except FileExistsError:  # another program's object, or ours: the response was lost
            there = target.digest(one.new_path)
        else:
            there = one.sha256
    if there != one.sha256:
        return f"{one.new_root}/{one.new_path} already exists"
    _move_sidecar(one, source, target)
    if source.digest(one.path) == one.sha256:
        source.delete(one.path)
    return ""


def _move_sidecar(one: Relocation, source: Store, target: Store) -> None:
    old, new = sidecar_name(one.path), sidecar_name(one.new_path)
    data = read_object(source, old)
    if data is None or sidecar_digest(data) != one.sha256:
        return
    with suppress(FileExistsError):
        target.put(new, renamed_sidecar(data, PurePosixPath(one.new_path).name), create=True)
    if sidecar_digest(target.read(new)) == one.sha256:
        source.delete(old)
