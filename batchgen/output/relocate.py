"""Move images that are done and planned for another place; nothing is bought again.

Places may depend on each other: a chain is moved from its end, and what is left, such as two
images that swap their names, goes through ``.moving/``. Files go first and the ledger follows, a
page at a time. After a kill in between, a file is found at its old place, its new one or in
``.moving/`` by its hash.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from batchgen.images.formats import ImageFormat
from batchgen.job import BatchId
from batchgen.ledger.moving import Relocation, Relocations
from batchgen.ledger.staging import Staging
from batchgen.output.sidecar import move_sidecar
from batchgen.planning.naming import final_path
from batchgen.system.atomic_files import make_directory, sha256_of, sync_directory
from batchgen.system.claiming import claim, is_one_name
from batchgen.system.failpoints import Point, reach

MOVING_DIRECTORY: Final = ".moving"
_PAGE: Final = 500


def relocate(staging: Staging, batch: BatchId, base: Path) -> Iterator[str]:
    """Move images to where the plan wants them; give a notice for each that can't be moved."""
    left = Relocations(staging.conn)
    _collect(staging, batch, base, left)
    troubles: dict[int, str] = {}
    for backwards in (False, True):
        _move_all(left, base, troubles, backwards=backwards)
    if any(True for _ in left.pages()):
        left.stay()
        _set_aside(left, base, troubles)
        _move_all(left, base, troubles)
    for page in left.pages():
        for one in page:
            trouble = troubles.get(one.image, "its new place is not free")
            yield f"{one.key}: stays at {one.root}/{one.path}: {trouble}"


def _collect(staging: Staging, batch: BatchId, base: Path, left: Relocations) -> None:
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
        left.add(one for one in found if not _is_there(one, base))


def _is_there(one: Relocation, base: Path) -> bool:
    """Whether an image has its planned place, and did not stay in ``.moving/``."""
    same = (one.root, one.path) == (one.new_root, one.new_path)
    return same and os.path.lexists(base / one.root / one.path)


def _move_all(
    left: Relocations, base: Path, troubles: dict[int, str], *, backwards: bool = False
) -> None:
    for page in left.pages(backwards=backwards):
        moved = []
        for one in page:
            trouble = _move(one, base, left)
            if trouble:
                troubles[one.image] = trouble
            else:
                moved.append(one)
        reach(Point.MOVED)
        left.done(moved)


def _move(one: Relocation, base: Path, left: Relocations) -> str:
    """Move one file; say what is in the way, or nothing."""
    root = base / one.new_root
    old, new = base / one.root / one.path, root / one.new_path
    try:
        source = _source(one, base)
        if source is None:
            return "it is not there"
        if source == new:
            return ""
        if os.path.lexists(new):
            if new.is_symlink() or not source.samefile(new):
                return f"{new} is there already"
            if not is_one_name(source, new):  # killed between link and unlink
                source.unlink()
                return ""
            source = _to_moving(one, base, source)  # only the case of its name changes
        make_directory(root, new.parent)
        claim(source, new)
        sync_directory(source.parent)
        move_sidecar(source, new, one.sha256)
        if source != old:
            move_sidecar(old, new, one.sha256)
            with suppress(OSError):  # others may be in it
                source.parent.rmdir()
    except OSError as exc:
        return str(exc)
    return ""


def _source(one: Relocation, base: Path) -> Path | None:
    """Where the file of an image is; its content is read only where that leaves a doubt."""
    old, new = base / one.root / one.path, base / one.new_root / one.new_path
    aside = _aside(one, base)
    if not os.path.lexists(new) and not aside.exists():
        return old if _is_plain(old) else None
    for place in (old, aside, new):
        if _is_plain(place) and sha256_of(place) == one.sha256:
            return place
    return old if _is_plain(old) else None


def _set_aside(left: Relocations, base: Path, troubles: dict[int, str]) -> None:
    """Free the places of images that are in each other's way."""
    for page in left.pages():
        for one in page:
            if not left.leaves(one.new_root, one.new_path):
                continue
            try:
                source = _source(one, base)
                if source is not None and source != _aside(one, base):
                    _to_moving(one, base, source)
                    reach(Point.SET_ASIDE)
            except OSError as exc:
                troubles[one.image] = str(exc)


def _aside(one: Relocation, base: Path) -> Path:
    return base / one.root / MOVING_DIRECTORY / f"{one.image}{Path(one.path).suffix}"


def _to_moving(one: Relocation, base: Path, source: Path) -> Path:
    aside = _aside(one, base)
    make_directory(base / one.root, aside.parent)
    claim(source, aside)
    sync_directory(source.parent)
    move_sidecar(source, aside, one.sha256)
    return aside


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()
