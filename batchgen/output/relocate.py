"""Move finished images whose planned output path has changed, at no cost.

Moves can depend on each other. A chain is moved from its end. The rest, such as two images that
swap their names, goes through ``.moving/``. Files move first and the ledger follows, one page at a
time. After a kill in between, the hash identifies a file at its old path, its new path or in
``.moving/``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Set
from contextlib import suppress
from pathlib import Path
from typing import Final

from batchgen.images.formats import ImageFormat
from batchgen.job import BatchId
from batchgen.ledger.relocations import Relocation, Relocations
from batchgen.ledger.staging import Staging
from batchgen.output.reclaim import reclaim
from batchgen.output.relocation_places import moving_path
from batchgen.output.sidecar import move_sidecar
from batchgen.planning.naming import final_path
from batchgen.storage.stores import Stores
from batchgen.system.atomic_files import make_directory_below, sha256_of, sync_directory
from batchgen.system.claiming import claim, is_one_name
from batchgen.system.failpoints import Point, hit
from batchgen.urls import is_bucket

_PAGE: Final = 500


def relocate(staging: Staging, batch: BatchId, base: Path, stores: Stores) -> Iterator[str]:
    """Move images to their planned paths; yield a notice for each that can't be moved."""
    left = Relocations(staging.conn)
    elsewhere = reclaim(staging.contested(batch), base)
    _collect(staging, batch, base, left, elsewhere)
    problems: dict[int, str] = {}
    for backwards in (False, True):
        _move_all(left, base, problems, stores, backwards=backwards)
    if any(True for _ in left.pages()):
        left.stay()
        _break_cycles(left, base, problems)
        _move_all(left, base, problems, stores)
    for page in left.pages():
        for one in page:
            problem = problems.get(one.image, "its new path is in use")
            yield f"{one.key}: not moved from {one.root}/{one.path}: {problem}"


def _collect(
    staging: Staging, batch: BatchId, base: Path, left: Relocations, elsewhere: Set[int]
) -> None:
    last = 0
    while page := staging.moves(batch, after=last, limit=_PAGE):
        last = page[-1].image
        found = [
            Relocation(
                move.image,
                move.job,
                move.key,
                move.root,
                move.path,
                move.sha256,
                move.new_root,
                final_path(move.new_path, ImageFormat(move.format).extension, move.rank),
            )
            for move in page
        ]
        left.add(one for one in found if _is_to_move(one, base, elsewhere))
        # Recorded at its planned place, an image that is gone is reported as missing.
        left.done([one for one in found if one.image in elsewhere and not _waits(one, base)])


def _is_to_move(one: Relocation, base: Path, elsewhere: Set[int]) -> bool:
    """Return whether the file of an image is not at its planned place."""
    if _waits(one, base):
        return True
    is_same = (one.root, one.path) == (one.new_root, one.new_path)
    return not is_same and one.image not in elsewhere


def _waits(one: Relocation, base: Path) -> bool:
    """Return whether an image is in ``.moving/``."""
    return not is_bucket(one.root) and _moving_path(one, base).exists()


def _move_all(
    left: Relocations,
    base: Path,
    problems: dict[int, str],
    stores: Stores,
    *,
    backwards: bool = False,
) -> None:
    for page in left.pages(backwards=backwards):
        moved = []
        for one in page:
            problem = _move_any(one, base, left, stores)
            if problem:
                problems[one.image] = problem
            else:
                moved.append(one)
        hit(Point.MOVED)
        left.done(moved)


def _move_any(one: Relocation, base: Path, left: Relocations, stores: Stores) -> str:
    """Move one file or object; return why it can't be moved, or an empty string."""
    if not _is_in_bucket(one):
        return _move(one, base, left)
    from batchgen.output.bucket_relocate import move_object  # most runs use no bucket

    try:
        return move_object(one, stores)
    except OSError as exc:
        return str(exc)


def _is_in_bucket(one: Relocation) -> bool:
    return is_bucket(one.root) or is_bucket(one.new_root)


def _move(one: Relocation, base: Path, left: Relocations) -> str:
    """Move one file; return why it can't be moved, or an empty string."""
    root = base / one.new_root
    old, new = base / one.root / one.path, root / one.new_path
    try:
        source = _source(one, base)
        if source is None:
            return "file not found"
        if source == new:
            move_sidecar(old, new, one.sha256)  # killed before that
            return ""
        if os.path.lexists(new):
            if new.is_symlink() or not source.samefile(new):
                return f"{new} already exists"
            if not is_one_name(source, new):  # killed between link and unlink
                source.unlink()
                return ""
            source = _to_moving(one, base, source)  # only the letter case of the name changes
        make_directory_below(root, new.parent)
        claim(source, new)
        sync_directory(source.parent)
        move_sidecar(source, new, one.sha256)
        if source != old:
            move_sidecar(old, new, one.sha256)
            with suppress(OSError):  # other images may be in it
                source.parent.rmdir()
    except OSError as exc:
        return str(exc)
    return ""


def _source(one: Relocation, base: Path) -> Path | None:
    """Return the current path of an image; read file contents only if the paths are ambiguous."""
    old, new = base / one.root / one.path, base / one.new_root / one.new_path
    moving = _moving_path(one, base)
    if not os.path.lexists(new) and not moving.exists():
        return old if _is_regular_file(old) else None
    # Only this image can be in ``.moving/``; other images may have the same content.
    if _is_regular_file(moving) and sha256_of(moving) == one.sha256:
        if _is_regular_file(old) and old.samefile(moving):
            old.unlink()  # killed between link and unlink
        return moving
    for place in (old, new):
        if _is_regular_file(place) and sha256_of(place) == one.sha256:
            return place
    return old if _is_regular_file(old) else None


def _break_cycles(left: Relocations, base: Path, problems: dict[int, str]) -> None:
    """Move images that block each other's paths to ``.moving/``."""
    for page in left.pages():
        for one in page:
            if _is_in_bucket(one) or not left.leaves(one.new_root, one.new_path):
                continue
            try:
                source = _source(one, base)
                if source is not None and source != _moving_path(one, base):
                    _to_moving(one, base, source)
                    hit(Point.BLOCKER_MOVED)
            except OSError as exc:
                problems[one.image] = str(exc)


def _moving_path(one: Relocation, base: Path) -> Path:
    return moving_path(base / one.root, one.image, one.path)


def _to_moving(one: Relocation, base: Path, source: Path) -> Path:
    moving = _moving_path(one, base)
    make_directory_below(base / one.root, moving.parent)
    claim(source, moving)
    sync_directory(source.parent)
    move_sidecar(source, moving, one.sha256)
    return moving


def _is_regular_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()
