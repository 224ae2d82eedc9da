"""Restore images of returning or moving jobs whose paths other jobs have taken.

A job that left the manifest keeps its image on record. If another job got the path meanwhile, the
file there is not that of the job when it returns: its own is in ``.previous/``, or gone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from batchgen.ledger.relocations import Contested
from batchgen.output.final_names import has_content
from batchgen.output.previous_versions import find_kept, keep_edited
from batchgen.output.relocation_places import moving_path
from batchgen.output.sidecar import describes, sidecar_of
from batchgen.system.atomic_files import make_directory_below, sha256_of, sync_directory
from batchgen.system.claiming import claim
from batchgen.urls import is_bucket


def reclaim(images: Iterable[Contested], base: Path) -> set[int]:
    """Restore kept images; return those whose files are not at their recorded places.

    The file of a job that left the manifest is moved into the history. An image that is not kept is
    missing then, so that a run reports it. Buckets compare hashes themselves. Raises OSError.
    """
    return {one.image for one in images if not is_bucket(one.root) and _is_elsewhere(one, base)}


def _is_elsewhere(one: Contested, base: Path) -> bool:
    root = base / one.root
    place = root / one.path
    if has_content(place, one.sha256):
        return False
    if not one.is_in_use and place.is_file() and not place.is_symlink():
        if describes(place, sha256_of(place)):
            keep_edited(root, sidecar_of(place).relative_to(root).as_posix())
        keep_edited(root, one.path)
    kept = find_kept(root, one.path, one.sha256)
    if kept is None:
        return True
    is_free = not os.path.lexists(place)
    target = place if is_free else moving_path(root, one.image, one.path)
    make_directory_below(root, target.parent)
    claim(kept, target)
    sync_directory(kept.parent)
    return not is_free
