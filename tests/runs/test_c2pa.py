"""Signed images of a provider survive a run byte for byte under any manifest."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.support import images, rig
from tests.support.c2pa import sign
from tests.support.responses import RED, encoded, image, saved
from tests.support.scripted_server import Scripted, scripted

METADATA = "output: {metadata: true}\n"
KINDS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}


def run(directory: Path, script: Scripted, *prompts: str, extra: str = METADATA) -> str:
    """Run jobs that each get the scripted response; gives what is shown."""
    path = rig.manifest(
        directory, f"{script.base}/v1", prompts or ["a mug"], options="{}", extra=extra
    )
    done = rig.batchgen("run", path, cwd=directory)
    return done.stdout + done.stderr


def sidecar(directory: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((directory / "out/batch/job-000.json").read_bytes())
    return found


@pytest.mark.parametrize(
    ("kind", "extra"),
    [
        *((kind, METADATA) for kind in KINDS),
        ("PNG", ""),
        ("WEBP", "output: {metadata: true, sidecar: true}\n"),
    ],
)
def test_signed_image_is_saved_byte_for_byte(kind: str, extra: str, tmp_path: Path) -> None:
    signed = sign(image("red", kind)) + b"label of a generator" * 3
    with scripted() as script:
        script.response({"b64_json": encoded(signed)})
        shown = run(tmp_path, script, extra=extra)
    files = saved(tmp_path)
    assert files.pop(f"job-000.{KINDS[kind]}") == signed
    assert set(files) == ({"job-000.json"} if extra else set())
    assert ("C2PA" in shown) == (extra == METADATA)
    if extra:
        found = sidecar(tmp_path)
        assert found["sha256"] == hashlib.sha256(signed).hexdigest()
        assert (found["prompt"], found["key"]) == ("a mug", "job-000")
    assert "as they were saved" in rig.batchgen("verify", "batch", cwd=tmp_path).stdout


def test_downloaded_images_get_sidecars_with_one_notice(tmp_path: Path) -> None:
    signed = sign(RED)
    with scripted() as script:
        script.files["1.png"] = signed
        script.response({"url": script.url("1.png")})
        shown = run(tmp_path, script, "one", "two", "three")
    assert shown.count("notice: ") == 1
    assert "metadata of out/batch/job-00" in shown
    assert "is in sidecars (.json): it is signed with content credentials (C2PA)" in shown
    names = {f"job-00{number}.{ending}" for number in range(3) for ending in ("png", "json")}
    assert set(saved(tmp_path)) == names


@pytest.mark.parametrize("point", ["placing", "placed", "saved"])
def test_sidecar_is_written_after_a_kill(point: str, tmp_path: Path) -> None:
    signed = sign(RED)
    with scripted() as script:
        script.response({"b64_json": encoded(signed)})
        path = rig.manifest(tmp_path, f"{script.base}/v1", ["a mug"], extra=METADATA)
        rig.batchgen("run", path, cwd=tmp_path, env={"BATCHGEN_FAILPOINT": point}, code=-9)
        rig.batchgen("run", path, cwd=tmp_path)
        assert len(script.posts) == 1
    assert (tmp_path / "out/batch/job-000.png").read_bytes() == signed
    assert sidecar(tmp_path)["prompt"] == "a mug"


def test_foreign_file_at_the_sidecar_path_costs_no_image(tmp_path: Path) -> None:
    signed = sign(RED)
    foreign = tmp_path / "out/batch/job-000.json"
    foreign.parent.mkdir(parents=True)
    foreign.write_text('{"mine": true}', encoding="utf-8")
    with scripted() as script:
        script.response({"b64_json": encoded(signed)})
        shown = run(tmp_path, script)
    assert "metadata of out/batch/job-000.png is not saved" in shown
    assert saved(tmp_path) == {"job-000.png": signed, "job-000.json": b'{"mine": true}'}


def test_replaced_signed_image_is_kept_and_restored(tmp_path: Path) -> None:
    """The sidecar describes the image that is there, so that it goes with the signed one."""
    signed = sign(images.encoded(images.drawing(64, 48), "WEBP"))
    second = sign(images.encoded(images.drawing(64, 47), "PNG"))
    third = images.encoded(images.drawing(64, 46), "PNG")
    with scripted() as script:
        script.response({"b64_json": encoded(signed)})
        run(tmp_path, script)
        script.response({"b64_json": encoded(second)})
        run(tmp_path, script, "another mug")
        found = sidecar(tmp_path)
        assert (found["prompt"], found["file"]) == ("another mug", "job-000.png")
        script.response({"b64_json": encoded(third)})
        run(tmp_path, script, "a third mug")
    (kept,) = (tmp_path / "out/batch/.previous").glob("*.png~1")
    assert kept.read_bytes() == second
    (kept,) = (tmp_path / "out/batch/.previous").glob("*.webp~1")
    assert kept.read_bytes() == signed
    assert not (tmp_path / "out/batch/job-000.json").exists()
    rig.batchgen("rollback", "batch", cwd=tmp_path)
    assert (tmp_path / "out/batch/job-000.png").read_bytes() == second


def test_shared_signed_image_is_copied_byte_for_byte(tmp_path: Path) -> None:
    signed = sign(RED)
    with scripted() as script:
        script.response({"b64_json": encoded(signed)})
        run(tmp_path, script, "a mug", "a mug", extra=f"{METADATA}share: true\n")
        assert len(script.posts) == 1
    files = saved(tmp_path)
    assert files["job-000.png"] == files["job-001.png"] == signed
    assert json.loads(files["job-001.json"])["key"] == "job-001"
