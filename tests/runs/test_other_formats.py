"""GIF, AVIF and HEIC images are saved as what they are; a cut one is never accepted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import rig
from tests.support.images import HEIC, SMALL
from tests.support.responses import encoded, saved
from tests.support.scripted_server import Scripted, scripted

IMAGES = {
    kind: data
    for kind, data in {
        "gif": SMALL["gif animated"][1],
        "avif": SMALL.get("avif", ("", b""))[1],
        "heic": HEIC,
        "webp": SMALL["webp animated"][1],
    }.items()
    if data
}


def run(
    directory: Path,
    script: Scripted,
    *,
    code: int = 0,
    options: str = "{}",
    extra: str = "output: {sidecar: true}\n",
) -> str:
    """One job against the script."""
    limits = '{max_waste: "0", download_wait: 0}'
    path = rig.manifest(
        directory,
        f"{script.base}/v1",
        ["a mug"],
        limits=limits,
        options=options,
        extra=extra,
    )
    done = rig.batchgen("run", path, cwd=directory, code=code)
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("kind", "place"),
    [*((kind, "inline") for kind in IMAGES), ("gif", "URL"), ("avif", "URL"), ("heic", "body")],
)
def test_image_is_saved_as_what_it_is(kind: str, place: str, tmp_path: Path) -> None:
    if kind not in IMAGES:
        pytest.skip("this Pillow has no AVIF")
    data = IMAGES[kind]
    with scripted() as script:
        script.files["1.png"] = data
        script.response(
            {"b64_json": encoded(data)} if place == "inline" else {"url": script.url("1.png")}
        )
        if place == "body":
            script.content_type = "image/png"
            script.reply = lambda: (200, data)
        shown = run(tmp_path, script)
        assert len(script.posts) == 1
    files = saved(tmp_path)
    assert files.pop(f"job-000.{kind}") == data
    assert json.loads(files.pop("job-000.json"))["format"] == kind
    assert files == {}
    (row,) = rig.query(tmp_path / "batchgen.db", "SELECT format, warnings FROM images")
    assert row["format"] == kind
    is_usual = kind == "webp"
    assert (f"got {kind}, which was not requested" in (row["warnings"] or "")) != is_usual
    assert (f"got {kind}, which was not requested" in shown) != is_usual
    assert "as they were saved" in rig.batchgen("verify", "batch", cwd=tmp_path).stdout


def test_requested_format_causes_no_warning(tmp_path: Path) -> None:
    with scripted() as script:
        script.response({"b64_json": encoded(IMAGES["gif"])})
        shown = run(tmp_path, script, options="{output_format: gif}", extra="rules: warn\n")
    assert "got gif" not in shown
    (row,) = rig.query(tmp_path / "batchgen.db", "SELECT warnings FROM images")
    assert not json.loads(row["warnings"] or "[]")


def test_other_format_than_requested_is_one_warning(tmp_path: Path) -> None:
    with scripted() as script:
        script.response({"b64_json": encoded(IMAGES["gif"])})
        shown = run(tmp_path, script, options="{output_format: png}")
    assert "requested png, got gif" in shown
    assert "not requested" not in shown


@pytest.mark.parametrize(("kind", "cut"), [("gif", 1), ("avif", 1), ("heic", 16)])
def test_cut_image_is_never_saved(kind: str, cut: int, tmp_path: Path) -> None:
    with scripted() as script:
        script.files["1.png"] = IMAGES.get(kind, HEIC)[:-cut]
        script.response({"url": script.url("1.png")})
        run(tmp_path, script, code=1)
        assert len(script.posts) == 1
    assert not list((tmp_path / "out/batch").glob("job*"))
    assert rig.status(tmp_path)["jobs"]["paid"] == 1


def test_gif_whose_pixels_do_not_decode_is_spoiled(tmp_path: Path) -> None:
    """Its blocks are complete; only decoding finds that pixels are missing."""
    head = b"GIF89a\xc8\0\xc8\0\x80\0\0" + bytes(6)
    broken = head + b",\0\0\0\0\xc8\0\xc8\0\0" + bytes([2, 2, 0x4C, 1, 0]) + b";"
    with scripted() as script:
        script.response({"b64_json": encoded(broken)})
        shown = run(tmp_path, script, code=1)
    assert "the gif cannot be decoded" in shown
    assert saved(tmp_path) == {}
    assert rig.status(tmp_path)["cost"]["charged"] == "0.037700"


def test_image_without_metadata_is_described_in_a_sidecar(tmp_path: Path) -> None:
    with scripted() as script:
        script.response({"b64_json": encoded(IMAGES["gif"])})
        shown = run(tmp_path, script, extra="output: {metadata: true}\n")
    assert "is in sidecars (.json): gif images take none" in shown
    files = saved(tmp_path)
    assert files["job-000.gif"] == IMAGES["gif"]
    assert json.loads(files["job-000.json"])["prompt"] == "a mug"


def test_reference_image_must_have_a_usual_format(tmp_path: Path) -> None:
    """Before the money, only what every provider takes is accepted."""
    for kind in ("gif", "avif", "heic"):
        (tmp_path / "mug.png").write_bytes(IMAGES.get(kind, HEIC))
        path = rig.manifest(
            tmp_path, "http://127.0.0.1:9/v1", ["a mug"], extra="images: [mug.png]\n"
        )
        refused = rig.batchgen("check", path, cwd=tmp_path, code=2).stderr
        assert "not a PNG, JPEG or WebP image" in refused
