"""The final names of images: what may be replaced, what is kept, and what is cleared away."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from batchgen.engine.worker import RunContext
from batchgen.images.formats import BadImage, ImageInfo
from batchgen.images.inspect import decode, inspect
from batchgen.images.mp4 import inspect_mp4
from batchgen.job import AttemptId, Job, SavedImage, Verify
from batchgen.ledger.copies import Original
from batchgen.ledger.ledger import DueImage, JobFinished, OldImage, Provenance
from batchgen.ledger.path_owners import Own, own
from batchgen.output.previous_versions import keep, keep_edited
from batchgen.output.sidecar import is_sidecar, sidecar_of
from batchgen.planning.naming import final_path
from batchgen.providers.adapters.registry import adapter_of
from batchgen.system.atomic_files import (
    PartFile,
    make_directory,
    sha256_of,
    sync_directory,
    write_whole,
)
from batchgen.system.claiming import claim, is_one_name, replace
from batchgen.system.failpoints import Point, reach
from batchgen.system.threads import on_disk

PARTIAL_DIRECTORY: Final = ".partial"
_DIRECTORIES_KNOWN: Final = 64
_TRIES: Final = 3
"""How often a name is looked at again that another file took in the meantime."""
OF_ONE_PATH: Final = frozenset(
    {errno.ELOOP, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EISDIR, errno.EEXIST, errno.EILSEQ}
)
"""Errors that say nothing about other paths on the same disk."""
Put = Callable[[Path, Path], None]
"""Moves a part to its final name."""
_MAPPED: Final = threading.BoundedSemaphore(2)
"""Files that are mapped at once; their pages count as ours, and two keep two processors busy."""


class Conflict(Exception):
    """A file that is not ours stands where the image belongs."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path


class Placer:
    """Puts verified images under their final names."""

    def __init__(self, context: RunContext, base: Path, *, overwrite: bool = False) -> None:
        self._context = context
        self._base = base
        self._overwrite = overwrite
        self._directories: dict[tuple[str, str], Path] = {}

    def forget_directories(self) -> None:
        """Make directories again where they are needed: one of them is gone."""
        self._directories.clear()

    async def directory(self, root: str, path: str) -> Path:
        """The directory of a path below a root, made once; who finds it gone makes it anew."""
        inner = path.rpartition("/")[0]
        directory = self._directories.get((root, inner))
        if directory is None:
            directory = self._base / root / inner
            await on_disk(make_directory, self._base / root, directory)
            if len(self._directories) >= _DIRECTORIES_KNOWN:
                self._directories.clear()
            self._directories[root, inner] = directory
        return directory

    async def place(
        self, job: Job, image: DueImage, part: PartFile, saved: SavedImage, *, taken: bool
    ) -> None:
        """Give a verified image its final name, which no other file loses.

        Raises Conflict, OSError and LedgerWriteError. What the part holds is kept then.
        """
        ledger = self._context.ledger
        try:
            directory = await self.directory(job.root, saved.path)
            final = directory / saved.path.rpartition("/")[2]
            if job.sidecar:
                origin = await ledger(lambda ledger: ledger.provenance(image.attempt_id))
                await on_disk(self._make_way_beside, job, sidecar_of(final), origin)
            for _ in range(_TRIES):
                put: Put = claim
                if taken:
                    known = await ledger(
                        lambda ledger: own(ledger.conn, job.id, job.root, saved.path)
                    )
                    put = await on_disk(self._make_way, job, final, saved, known)
                await ledger(lambda ledger: ledger.placing(image.id, job.root, saved))
                reach(Point.PLACING)
                try:
                    await part.commit(final, put)
                except FileExistsError:
                    await ledger(lambda ledger: ledger.not_placed(image.id))
                    taken = True
                else:
                    reach(Point.PLACED)
                    return
            raise Conflict(final)
        except (Conflict, OSError):
            with suppress(OSError):
                await on_disk(self._keep_bytes, image, part)
            raise

    def _make_way(self, job: Job, final: Path, saved: SavedImage, known: Own) -> Put:
        """Keep what has the final name; gives how the image gets it. Raises Conflict, OSError."""
        try:
            before = os.lstat(final)
        except FileNotFoundError:
            return claim
        if not stat.S_ISREG(before.st_mode):
            raise Conflict(final)
        present = sha256_of(final)
        is_empty_claim = known.is_own and not before.st_size
        if present == saved.sha256 or present in known.hashes or is_empty_claim:
            if job.keep_previous and not is_empty_claim and present != saved.sha256:
                keep(self._base / job.root, saved.path, count=job.keep_previous)
                reach(Point.KEPT)
            return lambda part, name: _replace_unchanged(part, name, before)
        if not (known.is_own or self._overwrite):
            raise Conflict(final)
        keep_edited(self._base / job.root, saved.path)
        reach(Point.KEPT)
        return claim

    def _keep_bytes(self, image: DueImage, part: PartFile) -> None:
        """Keep verified bytes in the spool that found no place, unless they are there already."""
        if image.url is not None and part.part.exists():
            self._context.spool.images.keep(image.attempt_id, image.position, part.part)

    def has_kept(self, image: DueImage) -> bool:
        """Whether its bytes may be on disk already; costs no look at the disk."""
        return image.path is not None or self._context.spool.images.has(
            image.attempt_id, image.position
        )

    def adopt_kept(self, image: DueImage, part: PartFile) -> bool:
        """Take verified bytes from the spool, or from a place that the job has left."""
        source = self._context.spool.images.find(image.attempt_id, image.position)
        if source is None and image.path and image.sha256:
            left = self._base / image.root / image.path
            if left.is_file() and not left.is_symlink() and sha256_of(left) == image.sha256:
                source = left
        if source is None:
            return False
        part.adopt(source)
        return True

    def copy_original(self, original: Original, part: PartFile) -> bool:
        """Copy the saved image of another job; False where it is missing or was changed."""
        source = self._base / original.root / original.path
        if not source.is_file() or source.is_symlink() or sha256_of(source) != original.sha256:
            return False
        part.copy(source)
        return True

    def forget_kept(self, job: Job, image: DueImage, saved: SavedImage) -> None:
        """Remove what an image was taken from, now that it has its final name."""
        self._context.spool.images.drop(image.attempt_id, image.position)
        if image.path and (image.root, image.path) != (job.root, saved.path):
            left = self._base / image.root / image.path
            is_ours = left.is_file() and not left.is_symlink() and sha256_of(left) == saved.sha256
            if is_ours and not is_one_name(left, self._base / job.root / saved.path):
                left.unlink()

    def _make_way_beside(self, job: Job, sidecar: Path, origin: Provenance) -> None:
        if not os.path.lexists(sidecar) or is_sidecar(sidecar, origin.batch, job.key):
            return
        if not self._overwrite or sidecar.is_symlink() or not sidecar.is_file():
            raise Conflict(sidecar)
        root = self._base / job.root
        keep_edited(root, sidecar.relative_to(root).as_posix())

    def already_placed(self, job: Job, image: DueImage) -> SavedImage | None:
        """The image that a killed run had renamed but not written down, if that is its place."""
        final = self._base / image.root / (image.path or "")
        if not final.is_file() or final.is_symlink() or sha256_of(final) != image.sha256:
            return None
        info, sha256 = examine(final, job.verify, image.task is not None)
        planned = final_path(job.path, info.format.extension, image.rank)
        if (image.root, image.path) != (job.root, planned):
            return None
        sync_directory(final.parent)
        return SavedImage(
            path=image.path or "",
            sha256=sha256,
            bytes=info.size_bytes,
            width=info.width,
            height=info.height,
            format=info.format.value,
        )

    def tidy(self, job: Job, finished: JobFinished, saved: list[SavedImage], batch: str) -> None:
        """What is left to do on disk once the job is done."""
        self._clear_away(job, finished.replaced, {image.path for image in saved}, batch)
        if job.keep_partials and saved:
            self._keep_partials(job, finished.attempt_id, saved[0].path)

    def _clear_away(self, job: Job, old: tuple[OldImage, ...], new: set[str], batch: str) -> None:
        """Remove replaced images that stand under another name than the new ones."""
        root = self._base / job.root
        sidecars = {sidecar_of(root / path) for path in new} if job.sidecar else set()
        for image in old:
            path = self._base / image.root / image.path
            if image.root == job.root and image.path in new:
                continue
            if not path.is_file() or path.is_symlink() or sha256_of(path) != image.sha256:
                continue  # gone, or the work of a person
            if job.keep_previous:
                keep(self._base / image.root, image.path, count=job.keep_previous)
            path.unlink()
            sidecar = sidecar_of(path)
            if sidecar not in sidecars and is_sidecar(sidecar, batch, job.key):
                sidecar.unlink()

    def _keep_partials(self, job: Job, attempt: AttemptId, path: str) -> None:
        """Put the unfinished images of a response where ``NAME.png`` becomes ``NAME-1.png``."""
        response = self._context.spool.find(attempt)
        if response is None:
            return
        adapter = adapter_of(response.route)
        for number, data in enumerate(adapter.partial_images(response.body(), response.headers), 1):
            try:
                info = inspect(data)
            except BadImage:
                continue
            root = self._base / job.root
            final = root / PARTIAL_DIRECTORY / path
            final = final.with_name(f"{final.stem}-{number}.{info.format.extension}")
            make_directory(root, final.parent)
            write_whole(final, data)


def _replace_unchanged(part: Path, name: Path, before: os.stat_result) -> None:
    """Replace a file that is kept, unless somebody has changed it since it was looked at."""
    try:
        now = os.lstat(name)
    except FileNotFoundError:
        claim(part, name)
        return
    if _trace(now) != _trace(before):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(name))
    replace(part, name)


def _trace(found: os.stat_result) -> tuple[int, int, int, int]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def examine(path: Path, verify: Verify, video: bool) -> tuple[ImageInfo, str]:
    """Verify an image or a video and hash it, in one reading. Raises BadImage and OSError."""
    with _MAPPED, path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            inspect(b"")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            info = inspect_mp4(data) if video else inspect(data)
            digest = hashlib.sha256(data).hexdigest()
    if verify is Verify.DECODE and not video:
        decode(path)
    return info, digest
