"""Drive one batch through placing and relocating, with kills in between."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, TypeVar, cast

import anyio
import pytest
from PIL import Image

from batchgen.commands.rollback import _put_back, _refusal
from batchgen.engine import bucket_placing as bucket_placing_module
from batchgen.engine import placing as placing_module
from batchgen.engine.bucket_placing import BucketPlacer
from batchgen.engine.context import RunContext
from batchgen.engine.linked_parts import part_path
from batchgen.engine.placing import Placer
from batchgen.job import (
    AttemptId,
    Billed,
    ImageRef,
    Job,
    JobId,
    Outcome,
    Publish,
    RunId,
    SavedImage,
)
from batchgen.ledger.batch_identity import BatchIdentity
from batchgen.ledger.batches import find_batch
from batchgen.ledger.database import open_for_writing
from batchgen.ledger.decisions import NewDecision, Reviewer, record_decisions
from batchgen.ledger.images import Placement, due_images, mark_images_saved
from batchgen.ledger.jobs import paid_jobs, pending_jobs, read_job
from batchgen.ledger.key_patterns import Only
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.newest_decisions import Decision
from batchgen.ledger.records import DueImage
from batchgen.ledger.runs import start_run
from batchgen.ledger.saved_images import Rollback, find_rollbacks, record_rollback
from batchgen.ledger.staging import Staging
from batchgen.money import ZERO, Micros
from batchgen.outcomes.classify import Classification
from batchgen.output import bucket_names as bucket_names_module
from batchgen.output import bucket_publishing as bucket_publishing_module
from batchgen.output import final_names as final_names_module
from batchgen.output import publishing as publishing_module
from batchgen.output import relocate as relocate_module
from batchgen.output.bucket_rollback import object_refusal, put_objects_back
from batchgen.output.final_names import Conflict
from batchgen.output.relocate import relocate
from batchgen.planning.naming import collision_key, image_path
from batchgen.session import publish as session_publish
from batchgen.session.publish import Published, publish_accepted
from batchgen.spool.spool import Spool
from batchgen.storage.local import LocalStore
from batchgen.storage.store import Store
from batchgen.storage.stores import Stores
from batchgen.system.atomic_files import PartFile
from batchgen.system.failpoints import Point
from tests.support.ledger_steps import record_response, reserve_attempt
from tests.support.rig import planned_job

T = TypeVar("T")


OK: Final = Classification(outcome=Outcome.OK, billed=Billed.YES)
IDENTITY: Final = BatchIdentity(
    name="b",
    provider="local",
    price_source="test",
    manifest_path="b.yaml",
    manifest_sha256="",
    manifest="",
)


class Killed(BaseException):
    """The process ends here."""


@contextmanager
def kill_at(point: Point | None, times: int = 1) -> Iterator[None]:
    """End what runs as a kill would, at the point."""
    left = [times]

    def hit(passed: Point) -> None:
        if passed is point:
            left[0] -= 1
            if not left[0]:
                raise Killed

    modules: list[Any] = [
        placing_module,
        relocate_module,
        final_names_module,
        publishing_module,
        bucket_placing_module,
        bucket_names_module,
        bucket_publishing_module,
    ]
    kept = [module.hit for module in modules]
    for module in modules:
        module.hit = hit
    try:
        yield
    except Killed:
        pass
    finally:
        for module, old in zip(modules, kept, strict=True):
            module.hit = old


def png(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (2, 2), (number >> 16, number >> 8 & 255, number & 255)).save(file, "PNG")
    return file.getvalue()


class Desk:
    """A batch whose images are made here, through the steps of a run."""

    def __init__(self, directory: Path, *, keep_previous: int = 1) -> None:
        self.directory = directory
        self.conn: sqlite3.Connection = open_for_writing(directory / "batchgen.db")
        self.ledger = Ledger(self.conn)
        self.spool = Spool(directory / "spool")
        self.keep_previous = keep_previous
        self.publish_when = Publish.AT_ONCE
        self.stores = Stores(directory, dict)
        self.made = 0
        self.plan: dict[str, tuple[str, str, int]] = {}
        self.batch: Any = None
        self.has_links = True
        """Whether the file system of the images has hard links."""

    def enroll(self, point: Point | None = None) -> list[str]:
        """Plan, move and enroll."""
        staging = Staging(self.conn)
        notices: list[str] = []
        try:
            staging.fill(
                [
                    planned_job(
                        key=key,
                        root=root,
                        path=path,
                        fingerprint=str(edition),
                        keep_previous=self.keep_previous,
                        publish=self.publish_when,
                    )
                    for key, (root, path, edition) in self.plan.items()
                ],
                price=lambda *_: Micros(1),
                collision_key=collision_key,
            )
            with kill_at(point):
                if self.batch is not None:
                    notices += relocate(staging, self.batch, self.directory, self.stores)
                self.batch = staging.enroll(IDENTITY)
        finally:
            staging.close()
        return notices

    def _start_run(self) -> RunId:
        """Start a run, which takes over the one before it as after a kill."""
        return start_run(self.ledger, self.batch, estimate=ZERO, max_cost=None, max_waste=ZERO)

    def buy(self) -> None:
        """Pay for an image of each pending job."""
        run = self._start_run()
        for job in pending_jobs(self.ledger, self.batch, after=JobId(0), limit=99):
            self.made += 1
            attempt = AttemptId(f"{self.made:032x}")
            reserve_attempt(self.ledger, run, job, attempt, provider="local")
            record_response(self.ledger, attempt, OK, [(ImageRef(index=0), None)], response="x")

    def deliver(self, overwrite: bool, point: Point | None) -> dict[str, bytes]:
        """Place what is paid; gives the bytes of each job that became done."""
        done: dict[str, bytes] = {}

        async def run(step: Callable[..., T], *args: object) -> T:
            return step(self.ledger, *args)

        async def run_one_of_many(step: Callable[..., list[T]], order: object) -> T:
            return step(self.ledger, [order])[0]

        context = cast(
            RunContext,
            SimpleNamespace(
                ledger=SimpleNamespace(run=run, run_one_of_many=run_one_of_many),
                spool=self.spool,
                stores=self.stores,
                base=self.directory,
                batch=self.batch,
                overwrite=overwrite,
            ),
        )

        async def place_all() -> None:
            placer = self.placer(context)
            await placer.sweep(self._start_run())
            for job in paid_jobs(self.ledger, self.batch):
                for image in due_images(self.ledger, job):
                    try:
                        data = await self._deliver_one(placer, image, job)
                    except (Conflict, OSError):
                        continue
                    done[read_job(self.ledger, job).key] = data

        with kill_at(point), pytest.MonkeyPatch.context() as patch:
            if not self.has_links:
                patch.setattr(placing_module, "link", lambda source, name: False)
            anyio.run(place_all)
        return done

    def paid(self) -> bool:
        """Whether a job waits for its image."""
        return bool(paid_jobs(self.ledger, self.batch))

    async def _deliver_one(self, placer: Placer, image: DueImage, id_: JobId) -> bytes:
        job = read_job(self.ledger, id_)
        data = png(int(image.attempt_id, 16))
        saved = SavedImage(
            path=image_path(job, "png", placed=image.path),
            sha256=sha256(data).hexdigest(),
            bytes=len(data),
            width=2,
            height=2,
            format="png",
        )
        (image,) = placer.find_linked(job, [image])
        placed = placer.find_placed(job, image) if image.path else None
        if placed is None:
            await self._place(placer, job, image, saved, data)
        placement = Placement(image.id, job.root, placed or saved)
        (finished,) = mark_images_saved(self.ledger, [placement])
        placer.drop_kept(job, image, saved)
        await placer.close()
        assert finished is not None
        placer.clean_up(job, finished, [placed or saved], "b")
        return data

    async def _place(
        self, placer: Placer, job: Job, image: DueImage, saved: SavedImage, data: bytes
    ) -> None:
        """Bring an image to its output path, by a link where that is possible."""
        path = part_path(job, image)
        directory = await placer.make_directory(job.root, path)
        async with PartFile(directory / path.rpartition("/")[2]) as part:
            if not (image.path and placer.adopt_kept(image, part)):
                await part.write(data)
            await part.seal(lambda path: None)
            linked = False
            if image.path is None and image.replaces is None:
                with suppress(FileExistsError):
                    linked = placer.link(job, image, part, saved)
            if linked:
                await placer.remove_later(part.part)
            else:
                await placer.place(job, image, part, saved, taken=True)

    def placer(self, context: RunContext) -> Placer:
        """Return what places images."""
        return Placer(context)

    def put_back(self, exchange: Rollback) -> bool:
        """Put the earlier image of a job back, if that can be done."""
        if _refusal(self.directory, exchange) is not None:
            return False
        _put_back(self.directory, "b", exchange)
        return True

    def roll_back(self, key: str) -> bool:
        """As the command does for one job."""
        for exchange in find_rollbacks(self.conn, self.batch, only=Only.of([key]), run=None):
            if self.put_back(exchange):
                record_rollback(self.conn, exchange)
                return True
        return False

    def decide(self, key: str, decision: Decision) -> bytes | None:
        """Decide about the newest image of a job; return its bytes, or None without one."""
        row = self.conn.execute(
            "SELECT images.id AS id, sha256, attempt_id FROM images JOIN jobs ON jobs.id = job_id"
            " WHERE key = ? AND images.state = 'saved' ORDER BY unpublished DESC, images.id DESC",
            (key,),
        ).fetchone()
        if row is None:
            return None
        made = NewDecision(image=row["id"], sha256=row["sha256"], decision=decision)
        record_decisions(self.conn, self.batch, [made], Reviewer(name="anna", session="s"))
        return png(int(row["attempt_id"], 16))

    def publish(self, point: Point | None = None) -> Published:
        """Publish what was accepted."""
        done = Published()
        with pytest.MonkeyPatch.context() as patch, kill_at(point):
            patch.setattr(session_publish, "stores_of_batch", lambda *_: self.stores)
            row = find_batch(self.conn, "b")
            done = publish_accepted(self.conn, row, self.directory / "batchgen.db")
        return done

    def place_of(self, key: str) -> Path | None:
        """Where the ledger says that the published image of a job is."""
        row = self.conn.execute(
            "SELECT images.root AS root, images.path AS path FROM images"
            " JOIN jobs ON jobs.id = job_id WHERE key = ? AND images.state = 'saved'"
            " AND unpublished = 0",
            (key,),
        ).fetchone()
        return None if row is None else self.directory / directory_of(row["root"]) / row["path"]


BUCKET: Final = "s3://b/"


def directory_of(root: str) -> str:
    """Return the directory below that of the desk that is used for an output directory."""
    return root.removeprefix(BUCKET)


class BucketDesk(Desk):
    """A batch whose images go to buckets, which are directories here."""

    def __init__(self, directory: Path, *, keep_previous: int = 1) -> None:
        super().__init__(directory, keep_previous=keep_previous)
        self.stores = _DirectoryStores(directory, dict)

    def placer(self, context: RunContext) -> Placer:
        return BucketPlacer(context)

    def deliver(self, overwrite: bool, point: Point | None) -> dict[str, bytes]:
        async def here(function: Callable[..., T], *args: object) -> T:
            return function(*args)

        with pytest.MonkeyPatch.context() as patch:
            # A kill ends the process, not one of its threads.
            for name in ("in_store_thread", "in_disk_thread"):
                patch.setattr(bucket_placing_module, name, here)
            return super().deliver(overwrite, point)

    def put_back(self, exchange: Rollback) -> bool:
        if object_refusal(self.stores, exchange) is not None:
            return False
        put_objects_back(self.stores, "b", exchange)
        return True


class _DirectoryStores(Stores):
    def _open(self, root: str) -> Store:
        return LocalStore(self._base / directory_of(root))
