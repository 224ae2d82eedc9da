"""Datasets as the programs read them that people train with."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.support import rig
from tests.support.extras import require

require("pyarrow", "webdataset", "datasets", "img2dataset")

PROMPTS = {"a mug": "job-000", 'a "quoted" é mug': "job-001", "a bag": "job-002"}


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a batch of three images and its datasets of two images a part."""
    directory = tmp_path_factory.mktemp("batch")
    with rig.endpoint(directory / "state", "--fast-images") as endpoint:
        path = rig.manifest(directory, endpoint.base_url, list(PROMPTS))
        rig.batchgen("run", path, cwd=directory)
    for layout in ("webdataset", "imagefolder", "index"):
        export(directory, layout, layout)
    return directory


def export(directory: Path, layout: str, target: str) -> None:
    arguments = ("--layout", layout, "--part-images", "2")
    rig.batchgen("export", "batch", "--dataset", target, *arguments, cwd=directory)


def saved(batch: Path, key: str) -> bytes:
    return (batch / "out" / "batch" / f"{key}.png").read_bytes()


@pytest.mark.parametrize("layout", ["webdataset", "imagefolder", "index"])
def test_a_repeated_export_is_equal(layout: str, batch: Path) -> None:
    export(batch, layout, f"{layout}-again")
    assert rig.content(batch / f"{layout}-again") == rig.content(batch / layout)
    checked = subprocess.run(
        ["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=batch / layout, check=False
    )
    assert checked.returncode == 0


def python(script: str, *arguments: str | Path) -> str:
    """Run a reader in a process of its own: these libraries leave files and threads open."""
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=rig.TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_webdataset_reads_the_shards(batch: Path) -> None:
    script = (
        "import hashlib, json, sys, webdataset\n"
        "for one in webdataset.WebDataset(sys.argv[1:], shardshuffle=False):\n"
        "    image = hashlib.sha256(one['png']).hexdigest()\n"
        "    record = json.loads(one['json'])\n"
        "    print(json.dumps([one['__key__'], one['txt'].decode(), record['sha256'], image]))\n"
    )
    lines = python(script, *sorted((batch / "webdataset").glob("*.tar"))).splitlines()
    found = [json.loads(line) for line in lines]
    assert {prompt: key for key, prompt, _, _ in found} == PROMPTS
    for key, _, recorded, read in found:
        assert recorded == read == hashlib.sha256(saved(batch, key)).hexdigest()


def load(kind: str, cache: Path, **options: Any) -> list[dict[str, Any]]:
    script = (
        "import datasets, json, sys\n"
        "kind, cache, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])\n"
        "d = datasets.load_dataset(kind, split='train', cache_dir=cache, **options)\n"
        "rows = [{n: str(getattr(v, 'size', v)) for n, v in row.items()} for row in d]\n"
        "print(json.dumps(rows))\n"
    )
    rows: list[dict[str, Any]] = json.loads(
        python(script, kind, cache, json.dumps(options)).splitlines()[-1]
    )
    return rows


def test_hugging_face_reads_the_image_directories(batch: Path, tmp_path: Path) -> None:
    rows = load("imagefolder", tmp_path, data_dir=str(batch / "imagefolder"))
    assert {row["prompt"]: row["key"] for row in rows} == PROMPTS
    assert {row["image"] for row in rows} == {"(1024, 640)"}
    assert {row["cost"] for row in rows} == {"0.037700"}


@pytest.mark.parametrize("layout", ["imagefolder", "webdataset", "index"])
def test_hugging_face_recognizes_the_layout(layout: str, batch: Path, tmp_path: Path) -> None:
    rows = load(str(batch / layout), tmp_path)
    column = "txt" if layout == "webdataset" else "prompt"
    assert {row[column] for row in rows} == PROMPTS.keys()


def test_index_has_types_and_urls(batch: Path) -> None:
    import pyarrow.dataset

    rows = pyarrow.dataset.dataset(str(batch / "index"), exclude_invalid_files=True).to_table()
    for row in rows.to_pylist():
        assert row["url"] == (batch / "out" / "batch" / f"{row['key']}.png").as_uri()
        assert row["sha256"] == hashlib.sha256(saved(batch, row["key"])).hexdigest()
        assert row["cost"] == Decimal("0.037700")
        assert row["tags"] == []


def test_img2dataset_reads_the_index_and_our_hashes(batch: Path, tmp_path: Path) -> None:
    script = (
        "import img2dataset, sys\n"
        "img2dataset.download(url_list=sys.argv[1], output_folder=sys.argv[2],"
        " input_format='parquet', url_col='url', caption_col='prompt', output_format='files',"
        " verify_hash=['sha256', 'sha256'], processes_count=1, thread_count=2,"
        " resize_mode='no', save_additional_columns=['model'])\n"
    )
    python(script, batch / "index", tmp_path / "out")
    records = [json.loads(path.read_text()) for path in (tmp_path / "out").rglob("0*.json")]
    found = [one for one in records if "caption" in one]
    assert {one["caption"]: one["status"] for one in found} == dict.fromkeys(PROMPTS, "success")
