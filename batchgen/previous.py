"""Pictures that were replaced, below ``.previous/``: the newest under its own name, older numbered.

A picture is kept by a link before it is replaced, so that none is missing at any moment.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from batchgen.files import make_folder, put_in_place, sha256_of, sync_folder

PREVIOUS_FOLDER: Final = ".previous"
MAX_KEPT: Final = 99


def keep(root: Path, path: str, *, count: int) -> None:
    """Keep the picture at ``root/path``, and as many before it as make ``count``. Raises OSError.

    Done again after a kill, it keeps the same picture once.
    """
    slots = [root / slot for slot in _slots(path, count)]
    make_folder(root, slots[0].parent)
    current = root / path
    if slots[0].exists() and _same(slots[0], current):
        return
    free = next((at for at, slot in enumerate(slots) if not slot.exists()), len(slots) - 1)
    for at in range(free, 0, -1):
        slots[at - 1].replace(slots[at])
    slots[0].unlink(missing_ok=True)
    try:
        os.link(current, slots[0])
    except OSError:  # a file system without hard links
        shutil.copy2(current, slots[0])
    sync_folder(slots[0].parent)


def _same(one: Path, other: Path) -> bool:
    """Whether two files hold the same; as one file, or as copies."""
    if one.samefile(other):
        return True
    return one.stat().st_size == other.stat().st_size and sha256_of(one) == sha256_of(other)


def find_kept(root: Path, path: str, sha256: str) -> Path | None:
    """The kept version of a picture by its content, if it is there."""
    for slot in _slots(path, MAX_KEPT + 1):
        kept = root / slot
        if kept.exists() and sha256_of(kept) == sha256:
            return kept
    return None


def put_back(root: Path, path: str, sha256: str, current: str | None) -> None:
    """Put a kept picture in its place, after keeping the ``current`` one. Raises OSError.

    After a kill in between, each picture is still in its place or among the kept.
    """
    if current is not None and (root / current).exists():
        keep(root, current, count=MAX_KEPT + 1)
    kept = find_kept(root, path, sha256)
    if kept is None:
        raise FileNotFoundError(f"{path} is not kept any more")
    make_folder(root, (root / path).parent)
    put_in_place(kept, root / path)


def _slots(path: str, count: int) -> Iterator[str]:
    place = PurePosixPath(PREVIOUS_FOLDER) / path
    yield str(place)
    for number in range(2, count + 1):
        yield str(place.with_name(f"{place.stem}.{number}{place.suffix}"))
