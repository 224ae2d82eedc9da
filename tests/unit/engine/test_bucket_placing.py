"""Placing in buckets: what a killed run left, and what is removed."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from batchgen.engine.bucket_placing import BucketPlacer
from batchgen.engine.delivery import Delivery, DeliveryTools
from batchgen.engine.image_source import ImageSource
from batchgen.ledger.copies import Original
from batchgen.ledger.records import JobFinished, OldImage
from batchgen.ledger.saved_images import Rollback, Version
from batchgen.output.bucket_rollback import object_refusal, put_objects_back
from batchgen.storage.local import LocalStore
from batchgen.storage.store import Store
from batchgen.system.atomic_files import PartFile
from tests.support.adapters import ATTEMPT, JOB
from tests.support.bucket_desk import (
    DATA,
    ORIGIN,
    ROOT,
    LocalBuckets,
    bucket_context,
    bucket_placer,
    due_image,
    saved_image,
)

MUG = replace(JOB, root=ROOT, path="mug.{ext}")


def test_placed_image_of_a_task_is_found_in_a_bucket(tmp_path: Path) -> None:
    stores = LocalBuckets(tmp_path)
    stores.of(ROOT).put("mug.png", DATA)
    image = due_image(task="/v1/tasks/t1")
    assert bucket_placer(tmp_path, stores).find_placed(MUG, image) == saved_image()


def test_kept_source_in_the_same_place_stays(tmp_path: Path) -> None:
    stores = LocalBuckets(tmp_path)
    stores.of(ROOT).put("x/mug.png", DATA)
    job = replace(MUG, root=f"{ROOT}/x")
    image = due_image(path="x/mug.png")
    bucket_placer(tmp_path, stores).drop_kept(job, image, saved_image())
    assert stores.of(ROOT).read("x/mug.png") == DATA


def test_replaced_image_in_the_same_place_stays(tmp_path: Path) -> None:
    stores = LocalBuckets(tmp_path)
    stores.of(ROOT).put("x/mug.png", DATA)
    old = OldImage(id=1, root=ROOT, path="x/mug.png", sha256=saved_image().sha256)
    finished = JobFinished(attempt_id=ATTEMPT, replaced=(old,), has_spool_file=False)
    job = replace(MUG, root=f"{ROOT}/x")
    bucket_placer(tmp_path, stores).clean_up(job, finished, [saved_image()], "b")
    assert stores.of(ROOT).read("x/mug.png") == DATA


def test_rollback_keeps_an_object_under_another_root(tmp_path: Path) -> None:
    stores = LocalBuckets(tmp_path)
    stores.of(ROOT).put("x/mug.png", b"new")
    stores.of(ROOT).put(".previous/x/mug.png~1", DATA)
    old, new = saved_image(), saved_image(data=b"new")
    rollback = Rollback(
        job=1,
        key="mug",
        current=(Version(image=2, root=f"{ROOT}/x", path="mug.png", sha256=new.sha256),),
        earlier=(Version(image=1, root=ROOT, path="x/mug.png", sha256=old.sha256),),
    )
    assert object_refusal(stores, rollback) is None
    put_objects_back(stores, "b", rollback)
    assert stores.of(ROOT).read("x/mug.png") == DATA


@pytest.mark.anyio
async def test_edited_sidecar_object_is_kept(tmp_path: Path) -> None:
    stores = LocalBuckets(tmp_path)
    placer, store = bucket_placer(tmp_path, stores), stores.of(ROOT)
    await placer.write_sidecar(MUG, saved_image(), ORIGIN)
    written = store.read("mug.json")
    await placer.write_sidecar(MUG, saved_image(), ORIGIN)
    assert store.info(".previous/mug.json~edited1") is None
    store.put("mug.json", written.replace(b"gpt-image-2", b"edited"))
    await placer.write_sidecar(MUG, saved_image(), ORIGIN)
    assert store.read("mug.json") == written
    assert b"edited" in store.read(".previous/mug.json~edited1")


class _Watched(LocalStore):
    """A store that records the threads of its operations."""

    def __init__(self, root: Path, threads: set[str]) -> None:
        super().__init__(root)
        self._threads = threads

    def read(self, name: str) -> bytes:
        self._threads.add(threading.current_thread().name)
        return super().read(name)

    def digest(self, name: str) -> str | None:
        self._threads.add(threading.current_thread().name)
        return super().digest(name)


class _WatchedBuckets(LocalBuckets):
    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self.threads = set[str]()

    def _open(self, root: str) -> Store:
        return _Watched(self.base / "bucket", self.threads)


@pytest.mark.anyio
async def test_bucket_is_waited_for_on_threads_of_its_own(tmp_path: Path) -> None:
    stores = _WatchedBuckets(tmp_path)
    stores.of(ROOT).put("mug.png", DATA)
    image, unused = due_image(), cast(Any, None)
    original = Original(root=ROOT, path="mug.png", sha256=saved_image().sha256)
    old = OldImage(id=1, root=ROOT, path="old.png", sha256="s")
    finished = JobFinished(attempt_id=ATTEMPT, replaced=(old,), has_spool_file=False)
    steps = {"mark_images_saved": None, "find_original": original, "read_provenance": ORIGIN}
    context = bucket_context(tmp_path, stores, steps)
    placer = BucketPlacer(context)
    source = ImageSource(context, unused, placer)
    tools = DeliveryTools(
        executor=unused, source=source, placer=placer, tasks=unused, redelivery=unused
    )
    delivery = Delivery(context, tools)

    await delivery._deliver_image(MUG, image)  # finds it where a killed run had placed it
    async with PartFile(tmp_path / "one") as part:
        assert await source.write_to(image, part) is None
    async with PartFile(tmp_path / "two") as part:
        copy = due_image(path=None, copy_of=ATTEMPT)
        assert await source.write_to(copy, part) is None
    await delivery._finish_job(MUG, finished, [saved_image()], ())
    assert stores.threads
    assert all(name.startswith("store_") for name in stores.threads), stores.threads
