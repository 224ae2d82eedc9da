"""Placing in buckets: what a killed run left, and what is removed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from batchgen.ledger.records import JobFinished, OldImage
from batchgen.ledger.saved_images import Rollback, Version
from batchgen.output.bucket_rollback import object_refusal, put_objects_back
from tests.support.adapters import ATTEMPT, JOB
from tests.support.bucket_desk import (
    DATA,
    ORIGIN,
    ROOT,
    LocalBuckets,
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
