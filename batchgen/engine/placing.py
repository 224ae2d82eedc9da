"""Move verified images to their output paths, and keep or remove the files they replace."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from batchgen.engine.context import RunContext
from batchgen.engine.linked_parts import (
    LeftPart,
    find_parts,
    local_roots,
    planned_part,
    remove_parts,
    sync_directories,
    with_place,
)
from batchgen.engine.stop_reasons import prevents_saving
from batchgen.engine.verification import read_placed
from batchgen.images.formats import BadImage
from batchgen.images.inspect import inspect
from batchgen.job import AttemptId, Job, RunId, SavedImage
from batchgen.ledger.attempts import read_provenance
from batchgen.ledger.copies import Original
from batchgen.ledger.images import (
    ImageName,
    Placement,
    clear_placement,
    finished_images,
    record_placements,
)
from batchgen.ledger.path_owners import PathHistory, path_history
from batchgen.ledger.records import DueImage, JobFinished, OldImage, Provenance
from batchgen.ledger.runs import previous_end
from batchgen.output.final_names import (
    MAX_TRIES,
    Conflict,
    Rename,
    check_sidecar_path,
    free_path,
    has_content,
    remove_replaced,
)
from batchgen.output.sidecar import (
    free_sidecar_path,
    remove_sidecar,
    sidecar_of,
    write_sidecar,
)
from batchgen.providers.adapters.registry import adapter_of
from batchgen.spool.spool import Spool
from batchgen.system.atomic_files import (
    PartFile,
    make_directory_below,
    sync_directory,
    write_atomically,
)
from batchgen.system.claiming import claim, is_one_name, link
from batchgen.system.directory_sync import sync_directory_together
from batchgen.system.failpoints import Point, hit
from batchgen.system.threads import in_disk_thread
from batchgen.text import counted
from batchgen.urls import is_bucket, path_below

T = TypeVar("T")

PARTIAL_DIRECTORY: Final = ".partial"
_MAX_KNOWN_DIRECTORIES: Final = 64
_REMOVE_TOGETHER: Final = 16
ERRORS_OF_ONE_PATH: Final = frozenset(
    {errno.ELOOP, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EISDIR, errno.EEXIST, errno.EILSEQ}
)
"""Errors that say nothing about other paths on the same disk."""


class Placer:
    """Moves verified images to their output paths."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._base = context.base
        self._overwrite = context.overwrite
        self._known_directories: dict[tuple[str, str], Path] = {}
        self._has_links = True
        """Whether the file systems are known to support hard links."""
        self._linked: list[Path] = []
        """Temporary names of recorded images, to be removed."""
        self._removed: deque[Path] = deque(maxlen=_MAX_KNOWN_DIRECTORIES)
        """Directories of the last ones that were removed."""
        self._left: dict[ImageName, LeftPart] = {}
        """Temporary files of images that are due, from earlier runs."""

    async def call(self, function: Callable[..., T], *args: object) -> T:
        """Call a blocking method of this placer on another thread."""
        return await in_disk_thread(function, *args)

    def forget_directories(self) -> None:
        """Create directories again when needed, after one was found missing."""
        self._known_directories.clear()

    async def make_directory(self, root: str, path: str) -> Path:
        """Create the directory of a path below a root, once, and return it. Raises OSError."""
        inner = path.rpartition("/")[0]
        directory = self._known_directories.get((root, inner))
        if directory is None:
            directory = self._base / root / inner
            await in_disk_thread(make_directory_below, self._base / root, directory)
            if len(self._known_directories) >= _MAX_KNOWN_DIRECTORIES:
                self._known_directories.clear()
            self._known_directories[root, inner] = directory
        return directory

    def is_taken(self, root: str, path: str) -> bool:
        """Return whether a file exists at an output path; a bucket says so when it is written."""
        return os.path.lexists(self._base / root / path)

    def link(self, job: Job, image: DueImage, part: PartFile, saved: SavedImage) -> bool:
        """Give a verified image its output path as a second name; blocks.

        The part stays then, to prove after a kill that the file is ours: remove it with
        `remove_later` once the image is recorded as saved. Return False if links are not possible
        here. Raises OSError: FileExistsError if the path is taken.
        """
        final = self._base / job.root / saved.path
        if not self._has_links or final.parent != part.part.parent:
            return False
        try:
            part.sync_blocking()
            hit(Point.PLACING)
            self._has_links = link(part.part, final)
        except FileExistsError:
            raise
        except OSError:
            with suppress(OSError):
                self._keep_in_spool(image, part)
            raise
        if self._has_links:
            part.keep_linked()
            sync_directory_together(final.parent)
            hit(Point.PLACED)
        return self._has_links

    async def remove_later(self, part: Path) -> None:
        """Remove the temporary name of a recorded image, several at a time."""
        self._linked.append(part)
        if len(self._linked) >= _REMOVE_TOGETHER:
            await self.remove_linked()

    async def remove_linked(self) -> None:
        """Remove the temporary names of recorded images; one that fails is tried again later.

        The next run does that for a killed one. The end of a run makes the removal durable.
        """
        parts, self._linked = self._linked, []
        if parts:
            self._linked += await in_disk_thread(remove_parts, parts)
            self._removed.extend(part.parent for part in parts)

    async def close(self) -> None:
        """Remove the temporary names of recorded images, durably; show which one remains."""
        await self.remove_linked()
        await self.remove_linked()  # what failed for a moment; no later run looks for it
        if self._linked:
            left = counted(len(self._linked), "temporary file")
            text = f"cannot remove {left} of saved images, such as {self._linked[0]}"
            self._context.notice("temporary files", text)
        if self._removed:
            await in_disk_thread(sync_directories, set(self._removed))

    async def sweep(self, run: RunId) -> None:
        """Remove what an interrupted run left of images that are saved; note the rest.

        Call it before any delivery. Raises LedgerWriteError.
        """
        ledger = self._context.ledger
        end = await ledger.run(previous_end, run)
        if not (end.was_killed or prevents_saving(end.stopped)):
            return
        roots = await ledger.run(local_roots, self._context.batch)
        parts = await in_disk_thread(find_parts, self._base, roots)
        finished = await ledger.run(finished_images, [part.image for part in parts])
        self._linked += [part.path for part in parts if part.image in finished]
        self._left = {part.image: part for part in parts if part.image not in finished}
        await self.remove_linked()

    def find_linked(self, job: Job, due: Sequence[DueImage]) -> tuple[DueImage, ...]:
        """Return due images with the places to which earlier tries linked them; blocks.

        Raises OSError.
        """
        return tuple(self._find_linked(job, image) for image in due)

    def _find_linked(self, job: Job, image: DueImage) -> DueImage:
        if image.path is not None:
            return image
        name = (image.attempt_id, image.position)
        left = self._left.get(name)
        if left is None and not is_bucket(job.root):
            left = planned_part(self._base, job, image)
            if not os.path.lexists(left.path):
                return image
            self._left[name] = left
        return image if left is None else with_place(self._base, job, image, left)

    async def describe(self, job: Job, image: DueImage, saved: SavedImage) -> None:
        """Write or remove the sidecar of a placed image. Raises OSError.

        An image that takes no metadata gets one although the job has none. Another file at its path
        is kept then: the image itself is saved, and that is enough.
        """
        if not (job.sidecar or saved.metadata_refused or image.replaces is not None):
            return
        origin = await self._context.ledger.run(read_provenance, image.attempt_id)
        if job.sidecar:
            await self.write_sidecar(job, saved, origin)
            return
        if not saved.metadata_refused:
            await self.remove_sidecar(job, saved, origin)
            return
        name, why = path_below(job.root, saved.path), saved.metadata_refused
        if await self.try_sidecar(job, saved, origin):
            text = f"metadata of {name} and images like it is in sidecars (.json): {why}"
        else:
            why = "another file is at the path of its sidecar"
            text = f"metadata of {name} is not saved: {why}"
        self._context.notice(f"metadata: {why}", text)

    async def write_sidecar(self, job: Job, saved: SavedImage, origin: Provenance) -> None:
        """Write the sidecar of a placed image. Raises Conflict and OSError."""
        await in_disk_thread(self._write_sidecar, job, saved, origin)

    def _write_sidecar(self, job: Job, saved: SavedImage, origin: Provenance) -> None:
        final = self._base / job.root / saved.path
        self._free_sidecar_path(job, final, origin)
        write_sidecar(final, job, saved, origin)

    async def try_sidecar(self, job: Job, saved: SavedImage, origin: Provenance) -> bool:
        """Write the sidecar of a placed image; return False if another file is at its path.

        Raises OSError.
        """
        try:
            await self.write_sidecar(job, saved, origin)
        except Conflict:
            return False
        return True

    async def remove_sidecar(self, job: Job, saved: SavedImage, origin: Provenance) -> None:
        """Remove a sidecar that describes the image which this one has replaced. Raises OSError."""
        root = self._base / job.root
        await in_disk_thread(remove_sidecar, root, root / saved.path, origin.batch, job.key)

    async def place(
        self, job: Job, image: DueImage, part: PartFile, saved: SavedImage, *, taken: bool
    ) -> None:
        """Move a verified image to its output path without losing any other file.

        ``taken`` says whether a file existed there. Raises Conflict, OSError and LedgerWriteError;
        the bytes of a downloaded image are then kept in the spool.
        """
        ledger = self._context.ledger
        try:
            directory = await self.make_directory(job.root, saved.path)
            final = directory / saved.path.rpartition("/")[2]
            if job.sidecar:
                origin = await ledger.run(read_provenance, image.attempt_id)
                await in_disk_thread(self._free_sidecar_path, job, final, origin)
            placement = Placement(image.id, job.root, saved)
            for _ in range(MAX_TRIES):
                rename: Rename = claim
                if taken:
                    known = await ledger.run(path_history, job.id, job.root, saved.path)
                    rename = await in_disk_thread(self._free_path, job, saved, known)
                await ledger.run_one_of_many(record_placements, placement)
                hit(Point.PLACING)
                try:
                    await part.commit(final, rename)
                except FileExistsError:
                    await ledger.run(clear_placement, image.id)
                    taken = True
                else:
                    hit(Point.PLACED)
                    return
            raise Conflict(final)
        except (Conflict, OSError):
            with suppress(OSError):
                await in_disk_thread(self._keep_in_spool, image, part)
            raise

    def _free_path(self, job: Job, saved: SavedImage, known: PathHistory) -> Rename:
        """Keep the file at the output path; return how to rename the new image to it.

        Raises Conflict and OSError.
        """
        return free_path(
            self._base / job.root,
            saved.path,
            saved.sha256,
            known,
            keep_previous=job.keep_previous,
            overwrite=self._overwrite,
        )

    def _free_sidecar_path(self, job: Job, final: Path, origin: Provenance) -> None:
        """Keep the file at the path of the sidecar unless it is what batchgen wrote there.

        Raises Conflict for a file that is not the sidecar of the job, and OSError.
        """
        check_sidecar_path(final, origin.batch, job.key, overwrite=self._overwrite)
        free_sidecar_path(self._base / job.root, final, origin.batch, job.key)

    def _keep_in_spool(self, image: DueImage, part: PartFile) -> None:
        """Keep the bytes of a downloaded image that could not be placed."""
        if image.url is not None:
            part.sync_blocking()
        if image.url is not None and part.part.exists():
            self._context.spool.images.keep(image.attempt_id, image.position, part.part)

    def may_have_bytes(self, image: DueImage) -> bool:
        """Return whether the bytes of an image may be on disk already, without I/O."""
        name = (image.attempt_id, image.position)
        is_left = image.path is not None or name in self._left
        return is_left or self._context.spool.images.has(*name)

    def adopt_kept(self, image: DueImage, part: PartFile) -> bool:
        """Fill a part with verified bytes from the spool, or from an earlier path of the image.

        Return False if no such bytes exist.
        """
        source = self._context.spool.images.find(image.attempt_id, image.position)
        if source is None and image.path and image.sha256:
            earlier = self._base / image.root / image.path
            if has_content(earlier, image.sha256):
                source = earlier
        if source is None:
            return False
        part.adopt(source)
        return True

    def copy_original(self, original: Original, part: PartFile) -> bool:
        """Copy the saved image of another job; return False if it is missing or changed."""
        source = self._base / original.root / original.path
        if not has_content(source, original.sha256):
            return False
        part.copy(source)
        return True

    def drop_kept(self, job: Job, image: DueImage, saved: SavedImage) -> None:
        """Remove the source of an image after it was placed. Raises OSError."""
        self._context.spool.images.drop(image.attempt_id, image.position)
        self.drop_left_part(image)
        if image.path and (image.root, image.path) != (job.root, saved.path):
            earlier = self._base / image.root / image.path
            is_ours = has_content(earlier, saved.sha256)
            if is_ours and not is_one_name(earlier, self._base / job.root / saved.path):
                earlier.unlink()

    def drop_left_part(self, image: DueImage) -> None:
        """Remove what an earlier run left of an image that is saved now. Raises OSError."""
        left = self._left.pop((image.attempt_id, image.position), None)
        if left is not None:
            left.path.unlink(missing_ok=True)

    def find_placed(self, job: Job, image: DueImage) -> SavedImage | None:
        """Return an image that a killed run placed but did not record, if it is where planned.

        Raises BadImage and OSError.
        """
        final = self._base / image.root / (image.path or "")
        if not has_content(final, image.sha256):
            return None
        saved = read_placed(final, job, image)
        if (image.root, image.path) != (job.root, saved.path):
            return None
        sync_directory(final.parent)
        return saved

    def clean_up(
        self, job: Job, finished: JobFinished, saved: list[SavedImage], batch: str
    ) -> None:
        """Remove replaced images and save partial ones, after the job is done. Raises OSError."""
        self._remove_replaced(job, finished.replaced, saved, batch)
        if job.keep_partials and saved:
            self._save_partials(job, finished.attempt_id, saved[0].path)

    def _remove_replaced(
        self, job: Job, old: tuple[OldImage, ...], saved: list[SavedImage], batch: str
    ) -> None:
        """Remove replaced images whose path differs from those of the new ones."""
        root = self._base / job.root
        sidecars = {sidecar_of(root / path) for path in described_by_sidecar(job, saved)}
        remove_replaced(
            self._base,
            old,
            [root / image.path for image in saved],
            sidecars,
            keep_previous=job.keep_previous,
            batch=batch,
            key=job.key,
        )

    def _save_partials(self, job: Job, attempt: AttemptId, path: str) -> None:
        """Save the partial images of a response as ``.partial/NAME-1.png`` and so on."""
        root = self._base / job.root
        for number, extension, data in partials_of(self._context.spool, attempt):
            final = root / PARTIAL_DIRECTORY / path
            final = final.with_name(f"{final.stem}-{number}.{extension}")
            make_directory_below(root, final.parent)
            write_atomically(final, data)


def partials_of(spool: Spool, attempt: AttemptId) -> Iterator[tuple[int, str, bytes]]:
    """Yield number, extension and bytes of the partial images of a response."""
    response = spool.find(attempt)
    if response is None:
        return
    partials = adapter_of(response.route).partial_images(response.body(), response.headers)
    for number, data in enumerate(partials, 1):
        try:
            info = inspect(data)
        except BadImage:
            continue
        yield number, info.format.extension, data


def described_by_sidecar(job: Job, saved: list[SavedImage]) -> set[str]:
    """Return the paths of the images that have a sidecar."""
    return {image.path for image in saved if job.sidecar or image.metadata_refused}
