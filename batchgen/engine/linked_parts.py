"""Find images that an interrupted run linked to their output paths but did not record.

A plain image is written under a temporary name, ``.ATTEMPT.POSITION.part``, and gets its output
path as a second name, a hard link. One step then records its path and that it is saved, and the
temporary name is removed after that. Until then it proves whose file is at the output path.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from batchgen.engine.verification import read_placed
from batchgen.images.formats import BadImage
from batchgen.job import EXT_PLACEHOLDER, BatchId, Job
from batchgen.ledger.images import ImageName, finished_images
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.path_owners import roots_of
from batchgen.ledger.records import DueImage
from batchgen.output.final_names import has_content
from batchgen.planning.naming import PENDING_DIRECTORY, image_path
from batchgen.system.atomic_files import PART_SUFFIX, sync_directory
from batchgen.urls import is_bucket

_NAME: Final = re.compile(rf"\.([0-9A-Za-z_-]+)\.([0-9]+){re.escape(PART_SUFFIX)}")


@dataclass(frozen=True, slots=True)
class LeftPart:
    """A temporary file of an image below an output directory."""

    image: ImageName
    root: str
    path: Path


def part_path(job: Job, image: DueImage) -> str:
    """Return the path of an image's temporary file, without its suffix, below the output directory.

    It is in the directory of the output path. The extension is unknown until the image arrives.
    """
    # Not named after the job: truncated long names of two jobs could be equal.
    known = image_path(job, EXT_PLACEHOLDER, placed=image.path).partition(EXT_PLACEHOLDER)[0]
    directory, slash, _ = known.rpartition("/")
    return f"{directory}{slash}.{image.attempt_id}.{image.position}"


def planned_part(base: Path, job: Job, image: DueImage) -> LeftPart:
    """Return where an image has its temporary file, if its path is still the planned one."""
    path = base / job.root / f"{part_path(job, image)}{PART_SUFFIX}"
    return LeftPart((image.attempt_id, image.position), job.root, path)


def find_parts(base: Path, roots: Iterable[str]) -> list[LeftPart]:
    """Return the temporary files of images below output directories."""
    return [part for root in roots for part in _parts_below(base, root)]


def _parts_below(base: Path, root: str) -> Iterator[LeftPart]:
    for directory, directories, names in os.walk(base / root):
        directories[:] = [
            name for name in directories if name[0] != "." or name == PENDING_DIRECTORY
        ]
        for name in names:
            if (found := _NAME.fullmatch(name)) is not None:
                image = (found[1], int(found[2]))
                yield LeftPart(image, root, Path(directory, name))


def remove_finished(ledger: Ledger, base: Path, batch: BatchId) -> None:
    """Remove the temporary files that a killed run left of images that are saved."""
    parts = find_parts(base, local_roots(ledger, batch))
    finished = finished_images(ledger, [part.image for part in parts])
    left = [part.path for part in parts if part.image in finished]
    remove_parts(left)
    sync_directories({part.parent for part in left})


def local_roots(ledger: Ledger, batch: BatchId) -> list[str]:
    """Return the output directories that a batch has or had on disk."""
    return [root for root in roots_of(ledger.conn, batch) if not is_bucket(root)]


def remove_parts(parts: Iterable[Path]) -> list[Path]:
    """Remove temporary files; return those that cannot be removed."""
    failed = []
    for part in parts:
        try:
            part.unlink(missing_ok=True)
        except OSError:
            failed.append(part)
    return failed


def sync_directories(directories: Iterable[Path]) -> None:
    """Make removals durable, so that no temporary file is back after a power cut."""
    for directory in directories:
        with suppress(OSError):
            sync_directory(directory)


def with_place(base: Path, job: Job, image: DueImage, part: LeftPart) -> DueImage:
    """Return a due image with the place to which its temporary file was linked.

    It is unchanged if the file has no other name: its image did not get that far, or a person moved
    it. Raises OSError.
    """
    try:
        if not stat.S_ISREG(os.lstat(part.path).st_mode):
            return image
        found = read_placed(part.path, job, image)
    except (FileNotFoundError, BadImage):
        return image
    root, path = job.root, found.path
    if not has_content(base / root / path, found.sha256):
        other = _other_name(part.path)
        if other is None:
            return image
        root, path = part.root, other.relative_to(base / part.root).as_posix()
    return replace(image, root=root, path=path, sha256=found.sha256)


def _other_name(part: Path) -> Path | None:
    """Return the other name of a file in its directory; None if it has none."""
    own = os.lstat(part)
    if own.st_nlink < 2:
        return None
    with os.scandir(part.parent) as entries:
        for entry in entries:
            if (
                entry.inode() == own.st_ino
                and _NAME.fullmatch(entry.name) is None
                and os.path.samestat(entry.stat(follow_symlinks=False), own)
            ):
                return Path(entry.path)
    return None
