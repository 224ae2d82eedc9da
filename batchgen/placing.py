"""The final names of images: what may be replaced, what is kept, and what is cleared away."""

from __future__ import annotations

import hashlib
import mmap
import os
import threading
from pathlib import Path
from typing import Final

from batchgen.failpoints import Point, reach
from batchgen.files import PartFile, make_folder, sha256_of, sync_folder, write_whole
from batchgen.handoff import on_disk
from batchgen.job import AttemptId, Job, SavedPicture, Verify
from batchgen.ledger.ledger import DuePicture, JobFinished, OldPicture, Provenance
from batchgen.mp4 import inspect_mp4
from batchgen.picture import BadPicture, PictureInfo, decode, inspect
from batchgen.previous import keep
from batchgen.providers.adapters import adapter_of
from batchgen.sidecar import is_sidecar, sidecar_of
from batchgen.worker import RunContext

PARTIAL_FOLDER: Final = ".partial"
_FOLDERS_KNOWN: Final = 64
_MAPPED: Final = threading.BoundedSemaphore(2)
"""Files that are mapped at once; their pages count as ours, and two keep two processors busy."""


class Conflict(Exception):
    """A file that is not ours stands where the picture belongs."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path


class Placer:
    """Puts verified images under their final names."""

    def __init__(self, context: RunContext, base: Path, *, overwrite: bool = False) -> None:
        self._context = context
        self._base = base
        self._overwrite = overwrite
        self._folders: dict[tuple[str, str], Path] = {}

    def forget_folders(self) -> None:
        """Make directories again where they are needed: one of them is gone."""
        self._folders.clear()

    async def folder(self, root: str, path: str) -> Path:
        """The folder of a path below a root, made once; who finds it gone makes it anew."""
        inner = path.rpartition("/")[0]
        folder = self._folders.get((root, inner))
        if folder is None:
            folder = self._base / root / inner
            await on_disk(make_folder, self._base / root, folder)
            if len(self._folders) >= _FOLDERS_KNOWN:
                self._folders.clear()
            self._folders[root, inner] = folder
        return folder

    async def place(
        self, job: Job, picture: DuePicture, part: PartFile, saved: SavedPicture, *, taken: bool
    ) -> None:
        """Give a verified image its final name. Raises Conflict, OSError and LedgerWriteError."""
        ledger = self._context.ledger
        folder = await self.folder(job.root, saved.path)
        final = folder / saved.path.rpartition("/")[2]
        if taken:
            owned = await ledger(lambda ledger: ledger.owns(job.id, job.root, saved.path))
            await on_disk(self._make_way, job, final, saved, owned)
        if job.sidecar:
            origin = await ledger(lambda ledger: ledger.provenance(picture.attempt_id))
            self._make_way_beside(job, sidecar_of(final), origin)
        await ledger(lambda ledger: ledger.placing(picture.id, saved))
        reach(Point.PLACING)
        await part.commit(final)
        reach(Point.PLACED)

    def _make_way(self, job: Job, final: Path, saved: SavedPicture, owned: bool) -> None:
        if not (final.exists() or final.is_symlink()):
            return
        if final.is_dir() or final.is_symlink():
            raise Conflict(final)
        if not (owned or self._overwrite) and sha256_of(final) != saved.sha256:
            raise Conflict(final)
        if job.keep_previous:
            keep(self._base / job.root, saved.path, count=job.keep_previous)

    def _make_way_beside(self, job: Job, sidecar: Path, origin: Provenance) -> None:
        there = sidecar.exists() or sidecar.is_symlink()
        if there and not is_sidecar(sidecar, origin.batch, job.key):
            raise Conflict(sidecar)

    def already_placed(self, job: Job, picture: DuePicture) -> SavedPicture | None:
        """The picture that a killed run had renamed but not written down."""
        final = self._base / job.root / (picture.path or "")
        if not final.is_file() or sha256_of(final) != picture.sha256:
            return None
        info, sha256 = examine(final, job.verify, picture.task is not None)
        sync_folder(final.parent)
        return SavedPicture(
            path=picture.path or "",
            sha256=sha256,
            bytes=info.size_bytes,
            width=info.width,
            height=info.height,
            format=info.format.value,
        )

    def tidy(self, job: Job, finished: JobFinished, saved: list[SavedPicture], batch: str) -> None:
        """What is left to do on disk once the job is done."""
        self._clear_away(job, finished.replaced, {picture.path for picture in saved}, batch)
        if job.keep_partials and saved:
            self._keep_partials(job, finished.attempt_id, saved[0].path)

    def _clear_away(self, job: Job, old: tuple[OldPicture, ...], new: set[str], batch: str) -> None:
        """Remove replaced pictures that stand under another name than the new ones."""
        root = self._base / job.root
        sidecars = {sidecar_of(root / path) for path in new} if job.sidecar else set()
        for picture in old:
            path = self._base / picture.root / picture.path
            if picture.root == job.root and picture.path in new:
                continue
            if not path.is_file() or path.stat().st_size != picture.bytes:
                continue
            if job.keep_previous:
                keep(self._base / picture.root, picture.path, count=job.keep_previous)
            path.unlink()
            sidecar = sidecar_of(path)
            if sidecar not in sidecars and is_sidecar(sidecar, batch, job.key):
                sidecar.unlink()

    def _keep_partials(self, job: Job, attempt: AttemptId, path: str) -> None:
        """Put the unfinished pictures of an answer where ``NAME.png`` becomes ``NAME-1.png``."""
        answer = self._context.spool.find(attempt)
        if answer is None:
            return
        adapter = adapter_of(answer.route)
        for number, data in enumerate(adapter.partial_pictures(answer.body(), answer.headers), 1):
            try:
                info = inspect(data)
            except BadPicture:
                continue
            root = self._base / job.root
            final = root / PARTIAL_FOLDER / path
            final = final.with_name(f"{final.stem}-{number}.{info.format.extension}")
            make_folder(root, final.parent)
            write_whole(final, data)


def examine(path: Path, verify: Verify, video: bool) -> tuple[PictureInfo, str]:
    """Verify a picture or a video and hash it, in one reading. Raises BadPicture and OSError."""
    with _MAPPED, path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            inspect(b"")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            info = inspect_mp4(data) if video else inspect(data)
            digest = hashlib.sha256(data).hexdigest()
    if verify is Verify.DECODE and not video:
        decode(path)
    return info, digest
