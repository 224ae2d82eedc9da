"""Responses and images in codings that were not requested: read, or kept until they can be."""

from __future__ import annotations

import json
from pathlib import Path

import brotli
import pytest
import zstandard

from tests.support import canary, rig
from tests.support.images import drawing
from tests.support.images import encoded as written
from tests.support.responses import RED, encoded, image, saved
from tests.support.scripted_server import Scripted, scripted

MISSING = """
import sys
sys.modules["brotli"] = sys.modules["brotlicffi"] = None
"""
"""Makes the libraries of Brotli look as if they were not installed."""
LIMITS = '{max_waste: "100%", download_wait: 0, poll: 0.01}'
NOISE = written(drawing(64, 64), "PNG")
"""Its base64 is stored in a file of its own."""


def manifest(directory: Path, script: Scripted, *prompts: str) -> Path:
    return rig.manifest(
        directory, f"{script.base}/v1", prompts or ["a mug"], options="{}", limits=LIMITS
    )


def packed(script: Scripted, *items: dict[str, str], status: int = 200) -> None:
    """Respond in Brotli, in spite of the request."""
    script.headers["Content-Encoding"] = "br"
    body = json.dumps({"created": 1, "data": items}).encode()
    script.reply = lambda: (status, brotli.compress(body))


@pytest.mark.parametrize("coding", ["br", "zstd"])
def test_compressed_response_and_image_are_read(coding: str, tmp_path: Path) -> None:
    compress = {"br": brotli.compress, "zstd": zstandard.compress}[coding]
    with scripted() as script:
        body = json.dumps({"created": 1, "data": [{"url": script.url("1.png")}]}).encode()
        script.headers["Content-Encoding"] = coding
        script.reply = lambda: (200, compress(body))
        script.files["1.png"] = compress(RED)
        rig.batchgen("run", manifest(tmp_path, script), cwd=tmp_path)
        assert len(script.posts) == 1
        assert script.get_headers[0]["Accept-Encoding"] == "identity"
    assert saved(tmp_path) == {"job-000.png": RED}


@pytest.mark.parametrize("form", ["URL", "inline", "large inline", "two images"])
def test_response_is_kept_until_its_library_is_there(form: str, tmp_path: Path) -> None:
    blue = image("blue")
    with scripted() as script:
        script.files["1.png"] = RED
        items = {
            "URL": [{"url": script.url("1.png")}],
            "inline": [{"b64_json": encoded(RED)}],
            "large inline": [{"b64_json": encoded(NOISE)}],
            "two images": [{"url": script.url("1.png")}, {"b64_json": encoded(blue)}],
        }[form]
        packed(script, *items)
        path = manifest(tmp_path, script)
        shown = rig.run_changed(MISSING, path, code=1)
        assert shown.count("notice: a response is compressed with br") == 1
        assert "pip install 'brotli>=1.2'" in shown
        status = rig.status(tmp_path)
        assert (status["jobs"]["paid"], status["cost"]["charged"]) == (1, "0.037700")
        reason = rig.batchgen("status", "batch", cwd=tmp_path).stdout
        assert "response: compressed with br, which was not requested" in reason
        (kept,) = rig.spooled(tmp_path)
        assert kept.read_bytes().endswith(script.reply()[1])
        rig.run_changed(MISSING, path, code=1)
        rig.batchgen("run", path, cwd=tmp_path)
        assert len(script.posts) == 1, "it was rebought"
    expected = {"job-000.png": NOISE if form == "large inline" else RED}
    if form == "two images":
        expected["job-000-extra.png"] = blue
    assert saved(tmp_path) == expected
    rig.batchgen("verify", "batch", cwd=tmp_path)
    assert rig.spooled(tmp_path) == []


@pytest.mark.parametrize("point", ["received", "saved"])
def test_kill_while_a_kept_response_is_read_loses_nothing(point: str, tmp_path: Path) -> None:
    with scripted() as script:
        packed(script, {"b64_json": encoded(NOISE)})
        path = manifest(tmp_path, script)
        if point == "received":  # killed before the first delivery
            killed = f"import os\nos.environ['BATCHGEN_FAILPOINT'] = {point!r}\n{MISSING}"
            rig.run_changed(killed, path, code=-9)
        else:
            rig.run_changed(MISSING, path, code=1)
            rig.batchgen("run", path, cwd=tmp_path, env={"BATCHGEN_FAILPOINT": point}, code=-9)
        rig.batchgen("run", path, cwd=tmp_path)
        assert len(script.posts) == 1
    assert saved(tmp_path) == {"job-000.png": NOISE}


def test_kept_response_without_an_image_is_settled(tmp_path: Path) -> None:
    """What was taken for an image turns out to be an error, which also hides the key."""
    said = f"insufficient credits of {canary.CANARY} " * 20
    with scripted() as script:
        script.headers["Content-Encoding"] = "br"
        error = {"error": {"message": said, "code": "insufficient_user_quota"}}
        script.reply = lambda: (200, brotli.compress(json.dumps(error).encode()))
        path = manifest(tmp_path, script)
        rig.run_changed(MISSING, path, code=1)
        (kept,) = rig.spooled(tmp_path)
        assert b'"coding":"br"' in kept.read_bytes()
        shown = rig.batchgen("run", path, cwd=tmp_path, code=3)
        assert len(script.posts) == 1
    assert "no_money" in shown.stderr + shown.stdout
    status = rig.status(tmp_path)
    assert (status["jobs"]["pending"], status["cost"]["charged"]) == (1, "0.000000")
    assert canary.found_in(tmp_path) == []


def test_refusal_in_an_unknown_coding_counts_by_its_status(tmp_path: Path) -> None:
    with scripted() as script:
        packed(script, status=400)
        shown = rig.run_changed(MISSING, manifest(tmp_path, script), code=1)
    assert "failed: http_400: a body compressed with br" in shown
    assert rig.status(tmp_path)["cost"]["charged"] == "0.000000"


def test_image_in_an_unknown_coding_waits_for_its_library(tmp_path: Path) -> None:
    with scripted() as script:
        script.response({"url": script.url("1.png")})
        script.get_reply_headers["Content-Encoding"] = "br"
        script.files["1.png"] = brotli.compress(written(drawing(40, 30), "PNG") + b"x" * 40)
        path = manifest(tmp_path, script)
        shown = rig.run_changed(MISSING, path, code=1)
        assert "download: compressed with br, which was not requested" in shown
        assert rig.status(tmp_path)["jobs"]["paid"] == 1
        rig.batchgen("run", path, cwd=tmp_path)
        assert len(script.posts) == 1
    assert rig.status(tmp_path)["jobs"]["done"] == 1
