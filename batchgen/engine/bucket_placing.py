"""Move verified images into buckets, with the guarantees of `placing`.

The placement is recorded, then the object is put: create-only, or by the tag of the object that
was looked at and kept. After a kill in between, the digest identifies the object.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from batchgen.engine.context import RunContext
from batchgen.engine.placing import (
    PARTIAL_DIRECTORY,
    Placer,
    described_by_sidecar,
    partials_of,
)
from batchgen.engine.verification import read_placed
from batchgen.job import AttemptId, Job, SavedImage
from batchgen.ledger.attempts import read_provenance
from batchgen.ledger.copies import Original
from batchgen.ledger.images import Placement, clear_placement, record_placements
from batchgen.ledger.path_owners import PathHistory, path_history
from batchgen.ledger.records import DueImage, OldImage, Provenance
from batchgen.output.bucket_names import free_object, remove_replaced_objects
from batchgen.output.bucket_sidecar import read_object, remove_sidecar_object, sidecar_name
from batchgen.output.bucket_versions import keep_edited_object
from batchgen.output.final_names import MAX_TRIES, Conflict
from batchgen.output.sidecar import is_edited, is_sidecar_data, sidecar_data
from batchgen.storage.store import StaleObjectError, Store
from batchgen.storage.stores import Stores
from batchgen.system.atomic_files import PRIVATE_DIRECTORY, PartFile, make_directories
from batchgen.system.failpoints import Point, hit
from batchgen.system.threads import in_disk_thread, in_store_thread
from batchgen.urls import is_bucket, path_below

T = TypeVar("T")

_UPLOADS: Final = "uploads"
"""Directory in the spool for images on their way to a bucket."""


class BucketPlacer(Placer):
    """Moves verified images to their output paths, of which some are in buckets."""

    def __init__(self, context: RunContext) -> None:
        super().__init__(context)
        assert context.stores is not None
        self._stores: Stores = context.stores
        self._uploads: Path = context.spool.directory / _UPLOADS

    async def call(self, function: Callable[..., T], *args: object) -> T:
        # A slow bucket must not hold up the writes of the spool, which share the disk threads.
        return await in_store_thread(function, *args)

    async def make_directory(self, root: str, path: str) -> Path:
        if not is_bucket(root):
            return await super().make_directory(root, path)
        await in_disk_thread(make_directories, self._uploads, PRIVATE_DIRECTORY)
        return self._uploads

    def is_taken(self, root: str, path: str) -> bool:
        return not is_bucket(root) and super().is_taken(root, path)

    async def write_sidecar(self, job: Job, saved: SavedImage, origin: Provenance) -> None:
        if not is_bucket(job.root):
            await super().write_sidecar(job, saved, origin)
            return
        store = self._stores.of(job.root)
        await in_store_thread(self._free_sidecar_object, store, job, saved, origin)
        name = sidecar_name(saved.path)
        data = sidecar_data(saved.path.rpartition("/")[2], job, saved, origin)
        await in_store_thread(store.put, name, data)

    async def remove_sidecar(self, job: Job, saved: SavedImage, origin: Provenance) -> None:
        if not is_bucket(job.root):
            await super().remove_sidecar(job, saved, origin)
            return
        store = self._stores.of(job.root)
        await in_store_thread(remove_sidecar_object, store, saved.path, origin.batch, job.key)

    async def place(
        self, job: Job, image: DueImage, part: PartFile, saved: SavedImage, *, taken: bool
    ) -> None:
        if not is_bucket(job.root):
            await super().place(job, image, part, saved, taken=taken)
            return
        try:
            await in_disk_thread(part.sync_blocking)  # a small image may be in memory only
            await self._place(job, image, part, saved)
        except (Conflict, OSError):
            with suppress(OSError):
                await in_disk_thread(self._keep_in_spool, image, part)
            raise

    async def _place(self, job: Job, image: DueImage, part: PartFile, saved: SavedImage) -> None:
        ledger, store = self._context.ledger, self._stores.of(job.root)
        if job.sidecar:
            origin = await ledger.run(read_provenance, image.attempt_id)
            await in_store_thread(self._free_sidecar_object, store, job, saved, origin)
        # Read before the placement is recorded, which makes any object there look like ours.
        known = await ledger.run(path_history, job.id, job.root, saved.path)
        tag: str | None = None
        if known.is_own:
            tag = await in_store_thread(self._free_object, store, job, saved, known)
        placement = Placement(image.id, job.root, saved)
        for _ in range(MAX_TRIES):
            await ledger.run_one_of_many(record_placements, placement)
            hit(Point.PLACING)
            if await in_store_thread(_put, store, saved, part.part, tag):
                hit(Point.PLACED)
                return
            await ledger.run(clear_placement, image.id)
            tag = await in_store_thread(self._free_object, store, job, saved, known)
        raise Conflict(f"{job.root}/{saved.path}")

    async def place_by(
        self,
        job: Job,
        image: DueImage,
        saved: SavedImage,
        put: Callable[[], Awaitable[bool]],
        known: PathHistory | None = None,
    ) -> bool:
        """Have another process put an image at its output path, if no object is there.

        ``put`` returns whether it did; its error leaves the placement recorded, as a kill does.
        ``known`` is what the ledger knew of the path before the request was sent; None if it was
        not looked up. Raises Conflict, OSError and LedgerWriteError.
        """
        ledger, store = self._context.ledger, self._stores.of(job.root)
        if job.sidecar:
            origin = await ledger.run(read_provenance, image.attempt_id)
            await in_store_thread(self._free_sidecar_object, store, job, saved, origin)
        if known is None:
            known = await ledger.run(path_history, job.id, job.root, saved.path)
        if known.is_own:
            return False
        placement = Placement(image.id, job.root, saved)
        await ledger.run_one_of_many(record_placements, placement)
        hit(Point.PLACING)
        if await put():
            hit(Point.PLACED)
            return True
        await ledger.run(clear_placement, image.id)
        return False

    def _free_object(
        self, store: Store, job: Job, saved: SavedImage, known: PathHistory
    ) -> str | None:
        """Keep the object at the output path; see `free_object`. Raises Conflict and OSError."""
        return free_object(
            store,
            saved.path,
            saved.sha256,
            known,
            keep_previous=job.keep_previous,
            overwrite=self._overwrite,
        )

    def _free_sidecar_object(
        self, store: Store, job: Job, saved: SavedImage, origin: Provenance
    ) -> None:
        """Keep the object at the path of the sidecar unless it is what batchgen wrote there.

        Raises Conflict for an object that is not the sidecar of the job, and OSError.
        """
        name = sidecar_name(saved.path)
        data = read_object(store, name)
        if data is None:
            return
        is_own = is_sidecar_data(data, origin.batch, job.key)
        if not (is_own or self._overwrite):
            raise Conflict(f"{job.root}/{name}")
        if not is_own or is_edited(data):
            keep_edited_object(store, name)

    def link(self, job: Job, image: DueImage, part: PartFile, saved: SavedImage) -> bool:
        return not is_bucket(job.root) and super().link(job, image, part, saved)

    def adopt_kept(self, image: DueImage, part: PartFile) -> bool:
        if not is_bucket(image.root):
            return super().adopt_kept(image, part)
        source = self._context.spool.images.find(image.attempt_id, image.position)
        if source is not None:
            part.adopt(source)
            return True
        return bool(image.path) and self._download(image.root, image.path, image.sha256, part)

    def copy_original(self, original: Original, part: PartFile) -> bool:
        if not is_bucket(original.root):
            return super().copy_original(original, part)
        return self._download(original.root, original.path, original.sha256, part)

    def _download(self, root: str, path: str | None, sha256: str | None, part: PartFile) -> bool:
        """Write an object to a part; return False if it is missing or changed."""
        try:
            data = self._stores.of(root).read(path or "")
        except FileNotFoundError:
            return False
        if hashlib.sha256(data).hexdigest() != sha256:
            return False
        part.write_blocking(data)
        return True

    def drop_kept(self, job: Job, image: DueImage, saved: SavedImage) -> None:
        if not is_bucket(image.root) and not is_bucket(job.root):
            super().drop_kept(job, image, saved)
            return
        self.drop_left_part(image)
        self._context.spool.images.drop(image.attempt_id, image.position)
        if image.path and path_below(image.root, image.path) != path_below(job.root, saved.path):
            store = self._stores.of(image.root)
            if store.digest(image.path) == saved.sha256:
                store.delete(image.path)

    def find_placed(self, job: Job, image: DueImage) -> SavedImage | None:
        if not is_bucket(image.root):
            return super().find_placed(job, image)
        make_directories(self._uploads, PRIVATE_DIRECTORY)
        copy = self._uploads / f".{image.attempt_id}.{image.position}.found"
        try:
            data = self._stores.of(image.root).read(image.path or "")
            if hashlib.sha256(data).hexdigest() != image.sha256:
                return None
            copy.write_bytes(data)
            saved = read_placed(copy, job, image)
        except FileNotFoundError:
            return None
        finally:
            copy.unlink(missing_ok=True)
        return saved if (image.root, image.path) == (job.root, saved.path) else None

    def _remove_replaced(
        self, job: Job, old: tuple[OldImage, ...], saved: list[SavedImage], batch: str
    ) -> None:
        super()._remove_replaced(
            job, tuple(image for image in old if not is_bucket(image.root)), saved, batch
        )
        described = described_by_sidecar(job, saved)
        remove_replaced_objects(
            self._stores,
            [image for image in old if is_bucket(image.root)],
            {path_below(job.root, image.path) for image in saved},
            {sidecar_name(path_below(job.root, path)) for path in described},
            keep_previous=job.keep_previous,
            batch=batch,
            key=job.key,
        )

    def _save_partials(self, job: Job, attempt: AttemptId, path: str) -> None:
        if not is_bucket(job.root):
            super()._save_partials(job, attempt, path)
            return
        store, stem = self._stores.of(job.root), path.rpartition(".")[0]
        for number, extension, data in partials_of(self._context.spool, attempt):
            store.put(f"{PARTIAL_DIRECTORY}/{stem}-{number}.{extension}", data)


def _put(store: Store, saved: SavedImage, part: Path, tag: str | None) -> bool:
    """Put an image under its final name; return False if another object is there.

    The response to a put may have been lost: an object with the content of the image is ours.
    """
    try:
        store.put_file(saved.path, part, create=tag is None, if_tag=tag)
    except (FileExistsError, StaleObjectError):
        return store.digest(saved.path) == saved.sha256
    return True
