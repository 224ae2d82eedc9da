"""Version history of replaced images, and of files that a person edited, in ``.previous/``.

``mug.png~1`` is the version before the current one, ``mug.png~2`` the one before that.
``mug.png~edited1`` is a file that differed from the ledger's record; it is never removed. No output
path can have such a name, and a directory that could gets another ``~``. Versions that earlier
releases kept as ``mug.png`` and ``mug.2.png`` are still found.

An image is hard-linked into the history before it is replaced, so that it exists at all times.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import count as count_from
from pathlib import Path, PurePosixPath
from typing import Final

from batchgen.system.atomic_files import (
    PART_SUFFIX,
    make_directory_below,
    sha256_of,
    sync_directory,
)
from batchgen.system.claiming import claim, copy_to, replace

PREVIOUS_DIRECTORY: Final = ".previous"
MAX_KEPT: Final = 99
LONGEST_SUFFIX: Final = "~edited999"
_LIKE_A_VERSION: Final = re.compile(r"~(?:edited)?[0-9]+~*\Z")


def keep(root: Path, path: str, *, count: int) -> None:
    """Keep the image at ``root/path`` and up to ``count`` versions in total. Raises OSError.

    Calling it again after a kill does not keep the same image twice.
    """
    slots = [root / slot for slot in version_names(path, count)]
    make_directory_below(root, slots[0].parent)
    current = root / path
    if slots[0].exists() and _same(slots[0], current):
        return
    copy = slots[0].with_name(f".{slots[0].name}{PART_SUFFIX}")
    copy.unlink(missing_ok=True)
    try:
        os.link(current, copy)
    except OSError:  # a file system without hard links, or another one
        copy_to(current, copy)
    free = next((at for at, slot in enumerate(slots) if not slot.exists()), len(slots) - 1)
    for at in range(free, 0, -1):
        slots[at - 1].replace(slots[at])
    copy.replace(slots[0])
    sync_directory(slots[0].parent)


def keep_edited(root: Path, path: str) -> Path:
    """Move a file that differs from its record into the history, for good. Raises OSError."""
    place = _history_path(path)
    make_directory_below(root, (root / place).parent)
    for number in count_from(1):
        kept = root / place.with_name(f"{place.name}~edited{number}")
        try:
            claim(root / path, kept)
        except FileExistsError:
            continue
        sync_directory((root / path).parent)
        return kept
    raise AssertionError("unreachable: count() is infinite")


def _same(one: Path, other: Path) -> bool:
    """Return whether two files have the same content."""
    if one.samefile(other):
        return True
    return one.stat().st_size == other.stat().st_size and sha256_of(one) == sha256_of(other)


def find_kept(root: Path, path: str, sha256: str) -> Path | None:
    """Return the kept version of an image with this content, if it exists."""
    place = _history_path(path)
    directory = root / place.parent
    others = directory.iterdir() if directory.is_dir() else ()
    edited = (other for other in others if other.name.startswith(f"{place.name}~edited"))
    slots = (root / slot for slot in (*version_names(path, MAX_KEPT + 1), *_old_slots(path)))
    for kept in (*slots, *edited):
        if kept.is_file() and sha256_of(kept) == sha256:
            return kept
    return None


def put_back(root: Path, path: str, sha256: str) -> None:
    """Restore a kept image to its path. Raises OSError: FileNotFoundError if it is not kept."""
    kept = find_kept(root, path, sha256)
    if kept is None:
        raise FileNotFoundError(f"{path}: no kept version has this content")
    make_directory_below(root, (root / path).parent)
    replace(kept, root / path)


def _history_path(path: str) -> PurePosixPath:
    """Return the path below which versions are kept; no directory in it looks like a version."""
    *directories, name = path.split("/")
    safe = [f"{part}~" if _LIKE_A_VERSION.search(part) else part for part in directories]
    return PurePosixPath(PREVIOUS_DIRECTORY, *safe, name)


def edited_name(path: str, number: int) -> str:
    """Return the name of an edited version below the output directory."""
    place = _history_path(path)
    return str(place.with_name(f"{place.name}~edited{number}"))


def version_names(path: str, count: int) -> Iterator[str]:
    """Yield the names of the last versions below the output directory, the newest first."""
    place = _history_path(path)
    for number in range(1, count + 1):
        yield str(place.with_name(f"{place.name}~{number}"))


def _old_slots(path: str) -> Iterator[str]:
    """Yield the paths that earlier releases used."""
    place = PurePosixPath(PREVIOUS_DIRECTORY) / path
    yield str(place)
    for number in range(2, MAX_KEPT + 2):
        yield str(place.with_name(f"{place.stem}.{number}{place.suffix}"))
