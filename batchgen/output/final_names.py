"""Give an image its final name without losing any other file."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final

from batchgen.ledger.path_owners import PathHistory
from batchgen.ledger.records import OldImage
from batchgen.output.previous_versions import keep, keep_edited
from batchgen.output.sidecar import is_sidecar, sidecar_of
from batchgen.system.atomic_files import sha256_of
from batchgen.system.claiming import claim, replace
from batchgen.system.failpoints import Point, hit

MAX_TRIES: Final = 3
"""How often placing is tried if another file takes the path meanwhile."""
Rename = Callable[[Path, Path], None]
"""Moves a file to its final path."""


class Conflict(Exception):
    """A file that is not an image of the job exists at the path."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(path)
        self.path = path


def free_path(
    root: Path,
    path: str,
    sha256: str,
    known: PathHistory,
    *,
    keep_previous: int,
    overwrite: bool = False,
) -> Rename:
    """Keep the file at ``root/path``; return how to move an image with this hash to it.

    Raises Conflict and OSError.
    """
    final = root / path
    try:
        before = os.lstat(final)
    except FileNotFoundError:
        return claim
    if not stat.S_ISREG(before.st_mode):
        raise Conflict(final)
    present = sha256_of(final)
    is_empty_claim = known.is_own and not before.st_size
    if present == sha256 or present in known.hashes or is_empty_claim:
        if keep_previous and not is_empty_claim and present != sha256:
            keep(root, path, count=keep_previous)
            hit(Point.KEPT)
        return lambda part, name: _replace_unchanged(part, name, before)
    if not (known.is_own or overwrite):
        raise Conflict(final)
    keep_edited(root, path)
    hit(Point.KEPT)
    return claim


def free_sidecar_path(
    root: Path, sidecar: Path, batch: str, key: str, *, overwrite: bool = False
) -> None:
    """Make sure that the sidecar of a job may be written. Raises Conflict and OSError."""
    if not os.path.lexists(sidecar) or is_sidecar(sidecar, batch, key):
        return
    if not overwrite or sidecar.is_symlink() or not sidecar.is_file():
        raise Conflict(sidecar)
    keep_edited(root, sidecar.relative_to(root).as_posix())


def remove_replaced(
    base: Path,
    old: Sequence[OldImage],
    new: Collection[tuple[str, str]],
    sidecars: Collection[Path],
    *,
    keep_previous: int,
    batch: str,
    key: str,
) -> None:
    """Remove replaced images of a job whose places differ from those of the ``new`` ones.

    A place is an output directory and a path below it. ``sidecars`` are those of the new images.
    """
    for image in old:
        if (image.root, image.path) in new:
            continue
        path = base / image.root / image.path
        if not has_content(path, image.sha256):
            continue  # removed or edited by a person
        if keep_previous:
            keep(base / image.root, image.path, count=keep_previous)
        path.unlink()
        sidecar = sidecar_of(path)
        if sidecar not in sidecars and is_sidecar(sidecar, batch, key):
            sidecar.unlink()


def has_content(path: Path, sha256: str | None) -> bool:
    """Return whether a path is a regular file with this hash."""
    return path.is_file() and not path.is_symlink() and sha256_of(path) == sha256


def _replace_unchanged(part: Path, name: Path, before: os.stat_result) -> None:
    """Replace a file that was kept. Raises FileExistsError if it has changed since."""
    try:
        now = os.lstat(name)
    except FileNotFoundError:
        claim(part, name)
        return
    if _identity(now) != _identity(before):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(name))
    replace(part, name)


def _identity(found: os.stat_result) -> tuple[int, int, int, int]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
