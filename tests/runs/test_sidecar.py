"""Sidecars and metadata of whole runs: there with their image, and gone with it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from PIL import Image

from batchgen.output.sidecar import is_edited
from tests.support import rig

BOTH = "output: {sidecar: true, metadata: true}\n"


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_image_contains_its_description(
    output_format: str, served: rig.Endpoint, tmp_path: Path
) -> None:
    before = len(served.bill())
    options = f"{{size: 1024x640, output_format: {output_format}}}"
    path = rig.manifest(tmp_path, served.base_url, ["a mug"], options=options, extra=BOTH)
    rig.batchgen("run", path, cwd=tmp_path)

    rig.judge(tmp_path, served.bill()[before:], finished=True)
    found = json.loads((tmp_path / "out/batch/job-000.json").read_bytes())
    file = tmp_path / "out/batch" / found["file"]
    (attempt,) = rig.query(tmp_path / "batchgen.db", "SELECT request_id FROM attempts")
    assert found["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (found["batch"], found["key"], found["prompt"]) == ("batch", "job-000", "a mug")
    assert (found["cost"], found["request_id"]) == ("0.037700", attempt["request_id"])
    assert (found["run"], found["options"]["size"]) == (1, "1024x640")
    if output_format == "webp":
        return  # the endpoint writes XMP of its own into these, which stays as it is
    with Image.open(file) as image:
        shown = image.info.get("xmp") or image.info["XML:com.adobe.xmp"]
    text = shown.decode() if isinstance(shown, bytes) else shown
    for value in ("a mug", "job-000", "0.037700", attempt["request_id"], found["model"]):
        assert f">{value}<" in text
    assert (
        rig.batchgen("verify", "batch", cwd=tmp_path).stdout.strip().endswith("as they were saved")
    )


def test_a_sidecar_is_replaced_with_its_image(served: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["one"], extra=BOTH)
    rig.batchgen("run", path, cwd=tmp_path)
    webp = "{size: 1024x640, output_format: webp}"
    rig.manifest(tmp_path, served.base_url, ["two"], options=webp, extra=BOTH)
    rig.batchgen("run", path, cwd=tmp_path)

    names = sorted(file.name for file in (tmp_path / "out/batch").glob("job*"))
    assert names == ["job-000.json", "job-000.webp"]
    found = json.loads((tmp_path / "out/batch/job-000.json").read_bytes())
    assert (found["prompt"], found["file"]) == ("two", "job-000.webp")

    rig.manifest(tmp_path, served.base_url, ["three"], options="{size: 1024x640}")
    rig.batchgen("run", path, cwd=tmp_path)
    names = [file.name for file in (tmp_path / "out/batch").glob("job*")]
    assert names == ["job-000.png"], "a sidecar is left of an image that is gone"


def test_a_sidecar_follows_its_image(served: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["one"], extra=BOTH)
    rig.batchgen("run", path, cwd=tmp_path)
    moved = BOTH.replace("{", "{dir: elsewhere, ")
    rig.manifest(tmp_path, served.base_url, ["one"], extra=moved)
    rig.batchgen("run", path, cwd=tmp_path)
    names = sorted(file.name for file in (tmp_path / "elsewhere").iterdir())
    assert names == ["job-000.json", "job-000.png"]


def test_moved_sidecar_names_the_new_file(served: rig.Endpoint, tmp_path: Path) -> None:
    """Two images exchange their paths: the old name of each is that of the other one then."""

    def write(first: str, second: str) -> Path:
        (tmp_path / "rows.csv").write_text(f"key,file\na,{first}\nb,{second}\n", encoding="utf-8")
        path = tmp_path / "batch.yaml"
        path.write_text(
            f"provider: {{name: local, base_url: {served.base_url}}}\nrows: rows.csv\n"
            'prompt: "{{ key }}"\noptions: {size: 1024x640}\n'
            'output: {path: "{{ file }}.{{ ext }}", sidecar: true}\n',
            encoding="utf-8",
        )
        return path

    out = tmp_path / "out/batch"
    rig.batchgen("run", write("x", "y"), cwd=tmp_path)
    edited = {**json.loads((out / "y.json").read_bytes()), "note": "mine"}
    (out / "y.json").write_text(json.dumps(edited), encoding="utf-8")
    rig.batchgen("run", write("y", "x"), cwd=tmp_path)
    moved = json.loads((out / "y.json").read_bytes())
    assert (moved["key"], moved["file"]) == ("a", "y.png")
    assert moved["sha256"] == hashlib.sha256((out / "y.png").read_bytes()).hexdigest()
    assert not is_edited((out / "y.json").read_bytes())
    assert json.loads((out / "x.json").read_bytes()) == edited, "an edited one is not changed"
    assert {file.name for file in out.iterdir() if file.is_file()} == {
        "x.png",
        "y.png",
        "x.json",
        "y.json",
    }


def test_sidecar_follows_its_image_after_a_kill(served: rig.Endpoint, tmp_path: Path) -> None:
    def write(name: str) -> Path:
        extra = f'output: {{path: "{name}-{{{{ key }}}}.{{{{ ext }}}}", sidecar: true}}\n'
        return rig.manifest(tmp_path, served.base_url, ["a mug"], extra=extra)

    out = tmp_path / "out/batch"
    rig.batchgen("run", write("old"), cwd=tmp_path)
    (out / "old-job-000.png").rename(out / "new-job-000.png")
    rig.batchgen("run", write("new"), cwd=tmp_path)
    assert {file.name for file in out.iterdir() if file.is_file()} == {
        "new-job-000.png",
        "new-job-000.json",
    }


def test_foreign_file_at_the_sidecar_path_is_kept(served: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["one"], extra=BOTH)
    taken = tmp_path / "out/batch/job-000.json"
    taken.parent.mkdir(parents=True)
    taken.write_text('{"mine": true}', encoding="utf-8")
    posts = served.judge("stats")["posts"]
    done = rig.batchgen("run", path, cwd=tmp_path, code=1)
    assert "path_taken" in done.stdout
    assert taken.read_text(encoding="utf-8") == '{"mine": true}'
    assert served.judge("stats")["posts"] == posts
    rig.batchgen("run", path, "--overwrite", cwd=tmp_path)
    assert served.judge("stats")["posts"] == posts + 1
    assert json.loads(taken.read_bytes())["key"] == "job-000"
    kept = tmp_path / "out/batch/.previous/job-000.json~edited1"
    assert kept.read_text(encoding="utf-8") == '{"mine": true}'


def test_edited_sidecar_is_kept_when_its_image_is_replaced(
    served: rig.Endpoint, tmp_path: Path
) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["one", "1"], extra=BOTH)
    rig.batchgen("run", path, cwd=tmp_path)
    out = tmp_path / "out/batch"
    edited = (out / "job-000.json").read_text().replace('"one"', '"one, approved by Ann"')
    (out / "job-000.json").write_text(edited)
    rig.manifest(tmp_path, served.base_url, ["two", "2"], extra=BOTH)
    rig.batchgen("run", path, cwd=tmp_path)
    assert json.loads((out / "job-000.json").read_bytes())["prompt"] == "two"
    assert (out / ".previous/job-000.json~edited1").read_text() == edited
    assert not (out / ".previous/job-001.json~edited1").exists()
    (out / "job-000.json").write_text(edited.replace("Ann", "Bob"))
    rig.batchgen("rollback", "batch", cwd=tmp_path)
    assert "Bob" in (out / ".previous/job-000.json~edited2").read_text()
    assert not (out / "job-000.json").exists()
