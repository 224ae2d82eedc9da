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
from batchgen.output.sidecar import is_sidecar, remove_sidecar, sidecar_of
from batchgen.system.atomic_files import sha256_of
from batchgen.system.claiming import claim, is_one_name, replace
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


def check_sidecar_path(image: Path, batch: str, key: str, *, overwrite: bool = False) -> None:
    """Raise Conflict if the file at the path of a sidecar is not the sidecar of the job."""
    sidecar = sidecar_of(image)
    if not os.path.lexists(sidecar):
        return
    is_own = is_sidecar(sidecar, batch, key)
    if not (is_own or overwrite) or sidecar.is_symlink() or not sidecar.is_file():
        raise Conflict(sidecar)


def remove_replaced(
    base: Path,
    old: Sequence[OldImage],
    new: Sequence[Path],
    sidecars: Collection[Path],
    *,
    keep_previous: int,
    batch: str,
    key: str,
) -> None:
    """Remove replaced images of a job whose paths differ from those of the ``new`` ones.

    ``sidecars`` are those of the new images. Raises OSError.
    """
    for image in old:
        path = base / image.root / image.path
        if any(_is_one_place(path, place) for place in new):
            continue
        if not has_content(path, image.sha256):
            continue  # removed or edited by a person
        if keep_previous:
            keep(base / image.root, image.path, count=keep_previous)
        path.unlink()
        if sidecar_of(path) not in sidecars:
            remove_sidecar(base / image.root, path, batch, key)


def has_content(path: Path, sha256: str | None) -> bool:
    """Return whether a path is a regular file with this hash."""
    return path.is_file() and not path.is_symlink() and sha256_of(path) == sha256


def _is_one_place(one: Path, other: Path) -> bool:
    """Return whether two paths that may not exist are spellings of one."""
    try:
        return one == other or is_one_name(one, other)
    except FileNotFoundError:
        return False


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
