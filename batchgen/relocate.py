"""Pictures that are done and planned for another place are moved there, not bought again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from batchgen.files import make_folder, put_in_place, sha256_of
from batchgen.job import BatchId
from batchgen.ledger.enrol import Move, Staging
from batchgen.naming import final_path
from batchgen.picture import PictureFormat
from batchgen.sidecar import move_sidecar

_PAGE: Final = 500


def relocate(staging: Staging, batch: BatchId, base: Path) -> Iterator[str]:
    """Move pictures to where the plan wants them; give a notice for each that can't be moved.

    Files go first and the ledger follows, a page at a time. After a kill in between the file is
    known at its new place by its hash.
    """
    last = 0
    while page := staging.moves(batch, after=last, limit=_PAGE):
        last = page[-1].image
        places = []
        for move in page:
            path = final_path(move.new_path, PictureFormat(move.format).extension, move.rank)
            trouble = _move(move, base, path)
            if trouble:
                yield f"{move.key}: stays at {move.root}/{move.path}: {trouble}"
            else:
                places.append((move.new_root, path, move.image))
        staging.moved(places)


def _move(move: Move, base: Path, path: str) -> str:
    """Move one file; say what is in the way, or nothing."""
    old = base / move.root / move.path
    root = base / move.new_root
    new = root / path
    try:
        if new.exists() or new.is_symlink():
            same = new.is_file() and not new.is_symlink() and sha256_of(new) == move.sha256
            return "" if same and not old.exists() else f"{new} is there already"
        if not old.is_file():
            return "it is not there"
        make_folder(root, new.parent)
        put_in_place(old, new)
        move_sidecar(old, new, move.sha256)
    except OSError as exc:
        return str(exc)
    return ""
