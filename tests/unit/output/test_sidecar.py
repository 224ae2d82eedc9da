"""Sidecars that a person edited are recognized and kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from batchgen.job import Job
from batchgen.output.bucket_sidecar import remove_sidecar_object
from batchgen.output.sidecar import (
    free_sidecar_path,
    is_edited,
    remove_sidecar,
    sidecar_data,
    write_sidecar,
)
from tests.support.adapters import JOB
from tests.support.bucket_desk import ORIGIN, ROOT, LocalBuckets, saved_image

SURROGATE = replace(JOB, prompt="a lone \ud800 surrogate", options={"x": 0.1})
WRITTEN = sidecar_data("mug.png", JOB, saved_image(), ORIGIN)
EDITS = {
    "value": WRITTEN.replace(b"gpt-image-2", b"gpt-image-3"),
    "new field": WRITTEN.replace(b'{\n  "batch"', b'{\n  "note": "good",\n  "batch"'),
    "no checksum": json.dumps({**json.loads(WRITTEN), "sidecar_sha256": None}).encode(),
    "layout": json.dumps(json.loads(WRITTEN)).encode(),
    "no JSON": WRITTEN[:-3],
}


@pytest.mark.parametrize("job", [JOB, SURROGATE])
def test_written_sidecar_is_not_edited(job: Job) -> None:
    assert not is_edited(sidecar_data("mug.png", job, saved_image(), ORIGIN))


@pytest.mark.parametrize("edited", EDITS.values(), ids=EDITS.keys())
def test_edited_sidecar_is_moved_out_of_the_way(edited: bytes, tmp_path: Path) -> None:
    (tmp_path / "mug.json").write_bytes(edited)
    free_sidecar_path(tmp_path, tmp_path / "mug.png", "b", JOB.key)
    assert (tmp_path / ".previous/mug.json~edited1").read_bytes() == edited
    assert not (tmp_path / "mug.json").exists()


def test_written_sidecar_stays_where_it_is(tmp_path: Path) -> None:
    write_sidecar(tmp_path / "mug.png", JOB, saved_image(), ORIGIN)
    free_sidecar_path(tmp_path, tmp_path / "mug.png", "b", JOB.key)
    assert (tmp_path / "mug.json").read_bytes() == WRITTEN


def test_sidecar_of_another_job_is_moved_out_of_the_way(tmp_path: Path) -> None:
    write_sidecar(tmp_path / "mug.png", JOB, saved_image(), ORIGIN)
    free_sidecar_path(tmp_path, tmp_path / "mug.png", "b", "another")
    assert (tmp_path / ".previous/mug.json~edited1").read_bytes() == WRITTEN


def test_removed_sidecar_is_kept_if_edited(tmp_path: Path) -> None:
    buckets = LocalBuckets(tmp_path)
    for data, kept in ((WRITTEN, False), (EDITS["value"], True)):
        (tmp_path / "mug.json").write_bytes(data)
        remove_sidecar(tmp_path, tmp_path / "mug.png", "b", JOB.key)
        assert not (tmp_path / "mug.json").exists()
        assert (tmp_path / ".previous/mug.json~edited1").exists() == kept
        store = buckets.of(ROOT)
        store.put("mug.json", data)
        remove_sidecar_object(store, "mug.png", "b", JOB.key)
        assert store.info("mug.json") is None
        assert (store.info(".previous/mug.json~edited1") is not None) == kept
