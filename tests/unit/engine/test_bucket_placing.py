"""Placing in buckets: what a killed run left, and what is removed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.support.adapters import JOB
from tests.support.bucket_desk import (
    DATA,
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
