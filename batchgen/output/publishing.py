"""Give accepted images their final names, with the guarantees of placing.

The published image is kept first. The file moves before the ledger follows. After a kill in
between, the hash identifies the image at its final name, and a second call continues.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

from batchgen.ledger.unpublished import Publication
from batchgen.output.final_names import (
    MAX_TRIES,
    Conflict,
    Rename,
    check_sidecar_path,
    free_path,
    has_content,
    remove_replaced,
)
from batchgen.output.previous_versions import find_kept
from batchgen.output.sidecar import describes, free_sidecar_path, remove_sidecar, sidecar_of
from batchgen.storage.stores import Stores
from batchgen.system.atomic_files import make_directory_below, rename_durably, sync_directory
from batchgen.system.claiming import claim, is_one_name
from batchgen.system.failpoints import Point, hit
from batchgen.urls import is_bucket


def publish_image(base: Path, stores: Stores, one: Publication) -> None:
    """Give an accepted image its final name, in a directory or a bucket.

    Raises as `publish_file` and `publish_object` do.
    """
    is_object = is_bucket(one.root)
    same = tuple(old for old in one.replaced if is_bucket(old.root) == is_object)
    moved = [old for old in one.replaced if is_bucket(old.root) != is_object]
    kept: Kept = {"keep_previous": one.keep_previous, "batch": one.batch, "key": one.key}
    if is_object:
        from batchgen.output.bucket_publishing import publish_object  # most runs use no bucket

        publish_object(stores, replace(one, replaced=same))
        remove_replaced(base, moved, (), (), **kept)
    else:
        publish_file(base, replace(one, replaced=same))
    if moved and not is_object:
        from batchgen.output.bucket_names import remove_replaced_objects

        remove_replaced_objects(stores, moved, (), (), **kept)


class Kept(TypedDict):
    """What is done with the images that one replaces."""

    keep_previous: int
    batch: str
    key: str


def publish_file(base: Path, one: Publication) -> None:
    """Move an accepted image to its final name, and remove the images that it replaces.

    The caller holds the batch. Raises Conflict if a file that is not an image of the job has the
    name, and OSError: FileNotFoundError if the accepted bytes are missing.
    """
    root = base / one.root
    pending, final = root / one.pending, root / one.path
    if one.sidecar:
        check_sidecar_path(final, one.batch, one.key)
    if has_content(final, one.sha256):
        if has_content(pending, one.sha256) and not is_one_name(pending, final):
            pending.unlink()
            sync_directory(pending.parent)
    else:
        _take_name(root, one)
    _publish_sidecar(root, one)
    remove_replaced(
        base,
        one.replaced,
        [final],
        {sidecar_of(final)},
        keep_previous=one.keep_previous,
        batch=one.batch,
        key=one.key,
    )
    hit(Point.PUBLISHED)


def _publish_sidecar(root: Path, one: Publication) -> None:
    """Move the sidecar of the image, or remove that of the image before it; see `Placer.describe`.

    A second call after a kill does nothing more.
    """
    pending, final = root / one.pending, root / one.path
    if describes(final, one.sha256):
        return
    if not describes(pending, one.sha256):
        remove_sidecar(root, final, one.batch, one.key)
        return
    try:
        check_sidecar_path(final, one.batch, one.key)
    except Conflict:
        return  # the job has no sidecars: another file at its path is left alone
    free_sidecar_path(root, final, one.batch, one.key)
    rename_durably(sidecar_of(pending), sidecar_of(final))


def _take_name(root: Path, one: Publication) -> None:
    """Move the accepted bytes to the final name, without losing any other file."""
    final = root / one.path
    source = root / one.pending
    if not has_content(source, one.sha256):
        kept = find_kept(root, one.pending, one.sha256)
        if kept is None:
            raise FileNotFoundError(f"{source}: missing, or changed since it was saved")
        source = kept
    make_directory_below(root, final.parent)
    for _ in range(MAX_TRIES):
        rename: Rename = claim
        if os.path.lexists(final):
            rename = free_path(
                root, one.path, one.sha256, one.known, keep_previous=one.keep_previous
            )
        hit(Point.PUBLISHING)
        try:
            rename(source, final)
        except FileExistsError:
            continue
        sync_directory(source.parent)
        return
    raise Conflict(final)
