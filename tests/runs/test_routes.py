"""Other routes than the plain one, as whole runs: streams, native Gemini, and video tasks."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import rig
from tests.support.mp4 import VIDEO
from tests.support.responses import RED, encoded, image, saved
from tests.support.scripted_server import Scripted, scripted
from tests.support.sse import COMPLETED, PARTIAL, stream

STREAM = "{stream: true, partial_images: 1}"
TASK = json.dumps({"task_id": "t1", "status": "processing"}).encode()
QUERY = "v1/video/query?id=t1"


@pytest.fixture
def script() -> Iterator[Scripted]:
    """A server with scripted responses."""
    with scripted() as server:
        yield server


def manifest(
    directory: Path, script: Scripted, *, model: str = "gpt-image-2", **words: str
) -> Path:
    """One job for a model, at a price that every model has."""
    path = directory / "batch.yaml"
    route = words.pop("route", "")
    routes = f", routes: {{{model}: {route}}}" if route else ""
    words = {"limits": "{poll: 0.01, max_waste: '0', download_wait: 1}", **words}
    lines = "".join(f"{name}: {value}\n" for name, value in words.items())
    path.write_text(
        f"name: batch\nmodel: {model}\n"
        f"provider: {{name: local, base_url: '{script.base}/v1', price: '0.0377'{routes}}}\n"
        f"{lines}jobs:\n  - {{key: mug, prompt: a mug}}\n",
        encoding="utf-8",
    )
    return path


def event_stream(script: Scripted, *payloads: Any) -> None:
    """Respond with these events."""
    body = stream(*payloads)
    script.content_type = "text/event-stream"
    script.reply = lambda: (200, body)


def test_a_streamed_image_is_saved(script: Scripted, tmp_path: Path) -> None:
    finished = {**COMPLETED, "b64_json": encoded(RED)}
    event_stream(script, {**PARTIAL, "b64_json": encoded(b"half")}, finished)
    rig.batchgen("run", manifest(tmp_path, script, options=STREAM), cwd=tmp_path)
    assert script.posts[0]["stream"] is True
    assert list(saved(tmp_path).values()) == [RED]


@pytest.mark.parametrize("asked", [True, False])
def test_unfinished_images_are_kept_only_if_asked(
    asked: bool, script: Scripted, tmp_path: Path
) -> None:
    half = image("grey")
    event_stream(
        script,
        {**PARTIAL, "b64_json": encoded(half)},
        {**PARTIAL, "b64_json": encoded(half[:-20])},
        {**COMPLETED, "b64_json": encoded(RED)},
    )
    path = manifest(
        tmp_path, script, options=STREAM, output=f"{{keep_partials: {str(asked).lower()}}}"
    )
    rig.batchgen("run", path, cwd=tmp_path)
    kept = {path.name: path.read_bytes() for path in (tmp_path / "out").rglob(".partial/*")}
    assert kept == ({"mug-1.png": half} if asked else {})


def test_stream_cut_after_its_image_loses_nothing(script: Scripted, tmp_path: Path) -> None:
    event_stream(script, {**COMPLETED, "b64_json": encoded(RED)})
    script.cut = len(b"data: [DONE]\n\n") + 1
    rig.batchgen("run", manifest(tmp_path, script, options=STREAM), cwd=tmp_path)
    assert list(saved(tmp_path).values()) == [RED]
    assert not rig.spooled(tmp_path)


def test_stream_that_breaks_off_before_its_image_is_uncertain(
    script: Scripted, tmp_path: Path
) -> None:
    event_stream(script, PARTIAL, {**COMPLETED, "b64_json": encoded(RED)})
    script.cut = 200
    rig.batchgen("run", manifest(tmp_path, script, options=STREAM), cwd=tmp_path, code=1)
    assert rig.status(tmp_path)["jobs"]["uncertain"] == 1
    assert len(script.posts) == 1


def test_a_server_that_ignores_stream_is_understood(script: Scripted, tmp_path: Path) -> None:
    script.response({"b64_json": encoded(RED)})
    rig.batchgen("run", manifest(tmp_path, script, options=STREAM), cwd=tmp_path)
    assert list(saved(tmp_path).values()) == [RED]


def test_native_gemini_is_asked_where_the_profile_says_so(script: Scripted, tmp_path: Path) -> None:
    part = {"inlineData": {"mimeType": "image/png", "data": encoded(RED)}}
    document = {"candidates": [{"content": {"parts": [part]}}]}
    script.reply = lambda: (200, json.dumps(document).encode())
    path = manifest(
        tmp_path, script, model="nano-banana", route="gemini", options="{aspect_ratio: '16:9'}"
    )
    rig.batchgen("run", path, cwd=tmp_path)
    assert script.paths == ["/v1beta/models/nano-banana:generateContent"]
    assert script.posts[0]["generationConfig"]["imageConfig"] == {"aspectRatio": "16:9"}
    assert list(saved(tmp_path).values()) == [RED]


def states(script: Scripted, *documents: dict[str, Any]) -> None:
    """Report these states of the task in turn, and repeat the last."""
    left = list(documents)
    script.files[QUERY] = lambda: json.dumps(left.pop(0) if left[1:] else left[0]).encode()
    script.reply = lambda: (200, TASK)


def state(status: str, **fields: str) -> dict[str, Any]:
    """A state in the newer shape."""
    return {"code": "success", "message": "", "data": {"task_id": "t1", "status": status, **fields}}


@pytest.mark.fault("H30")
def test_video_is_polled_until_it_is_made(script: Scripted, tmp_path: Path) -> None:
    made = state("SUCCESS", artifact_url=script.url("1.mp4"))
    states(script, state("queued"), state("processing"), state("processing"), made)
    script.files["1.mp4"] = VIDEO
    path = manifest(tmp_path, script, model="veo-3.1", options="{duration: 8, size: 720P}")
    rig.batchgen("run", path, cwd=tmp_path)
    assert saved(tmp_path) == {"mug.mp4": VIDEO}
    assert script.paths == ["/v1/video/create"]
    asked = [
        headers
        for path, headers in zip(script.gets, script.get_headers, strict=True)
        if path == f"/{QUERY}"
    ]
    assert all(headers["Authorization"].startswith("Bearer ") for headers in asked)
    (image,) = rig.query(tmp_path / "batchgen.db", "SELECT * FROM images")
    assert (image["format"], image["width"], image["height"]) == ("mp4", 1280, 720)


@pytest.mark.fault("H30")
def test_a_killed_run_asks_for_its_task_and_never_makes_another(
    script: Scripted, tmp_path: Path
) -> None:
    states(script, state("processing"))
    path = manifest(tmp_path, script, model="veo-3.1", options="{duration: 8}")
    with rig.start("run", path, "--json", cwd=tmp_path) as process:
        for event in rig.events(process):
            if event["event"] == "attempt_ended":
                break
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=rig.TIMEOUT_S)
    assert rig.status(tmp_path)["jobs"]["paid"] == 1
    script.files[QUERY] = json.dumps(state("SUCCESS", url=script.url("1.mp4"))).encode()
    script.files["1.mp4"] = VIDEO
    rig.batchgen("run", path, cwd=tmp_path)
    assert saved(tmp_path) == {"mug.mp4": VIDEO}
    assert len(script.posts) == 1


def test_a_signal_leaves_a_task_to_the_next_run(script: Scripted, tmp_path: Path) -> None:
    states(script, state("processing"))
    path = manifest(tmp_path, script, model="veo-3.1", options="{duration: 8}")
    with rig.start("run", path, "--json", cwd=tmp_path) as process:
        for event in rig.events(process):
            if event["event"] == "attempt_ended":
                break
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=rig.TIMEOUT_S)
    assert process.returncode == 130
    assert rig.status(tmp_path)["jobs"]["paid"] == 1


@pytest.mark.parametrize(
    ("reason", "held"), [("upstream broke", "failed"), ("our safety system", "blocked")]
)
def test_a_task_that_fails_may_have_cost_its_price(
    reason: str, held: str, script: Scripted, tmp_path: Path
) -> None:
    states(script, state("FAILURE", fail_reason=reason))
    path = manifest(tmp_path, script, model="veo-3.1", options="{duration: 8}")
    rig.batchgen("run", path, cwd=tmp_path, code=1)
    found = rig.status(tmp_path)
    assert found["jobs"][held] == 1
    assert found["cost"] | {"estimated": ""} == {
        "currency": "USD",
        "estimated": "",
        "charged": "0.000000",
        "maybe": "0.037700",
        "unpriced": 0,
    }
    assert found["attempts"]["maybe"] == 1


def test_an_unknown_task_is_named(script: Scripted, tmp_path: Path) -> None:
    states(script, {"code": "task_not_exist", "message": "no", "data": None})
    path = manifest(tmp_path, script, model="veo-3.1", options="{duration: 8}")
    done = rig.batchgen("run", path, cwd=tmp_path, code=1)
    assert "does not know this task" in done.stderr + done.stdout
    assert rig.status(tmp_path)["cost"]["charged"] == "0.037700"


def test_cut_video_is_not_saved(script: Scripted, tmp_path: Path) -> None:
    states(script, state("SUCCESS", url=script.url("1.mp4")))
    script.files["1.mp4"] = VIDEO[:-10]
    path = manifest(tmp_path, script, model="veo-3.1", options="{duration: 8}")
    rig.batchgen("run", path, cwd=tmp_path, code=1)
    assert not list((tmp_path / "out").rglob("*.mp4"))


def test_what_the_response_says_it_cost_is_what_is_charged(
    script: Scripted, tmp_path: Path
) -> None:
    usage = {
        "input_tokens": 20,
        "output_tokens": 1756,
        "input_tokens_details": {"text_tokens": 20, "image_tokens": 0},
    }
    document = {"created": 1, "data": [{"b64_json": encoded(RED)}], "usage": usage}
    script.reply = lambda: (200, json.dumps(document).encode())
    path = tmp_path / "batch.yaml"
    path.write_text(
        f"name: batch\nprovider: {{name: openai, base_url: '{script.base}/v1'}}\n"
        "options: {size: 1024x1024, quality: medium}\njobs: [{key: mug, prompt: a mug}]\n",
        encoding="utf-8",
    )
    rig.batchgen("run", path, cwd=tmp_path, env={"OPENAI_API_KEY": "sk-test"})
    cost = rig.status(tmp_path)["cost"]
    assert (cost["charged"], cost["maybe"]) == ("0.052780", "0.000000")


@pytest.mark.parametrize(
    ("cost", "jobs", "maybe"), [("free", "failed", "0.000000"), ("maybe", "uncertain", "0.037700")]
)
def test_a_server_error_costs_what_the_manifest_says(
    cost: str, jobs: str, maybe: str, script: Scripted, tmp_path: Path
) -> None:
    error = {"error": {"code": "do_request_failed", "message": "no", "type": "new_api_error"}}
    script.reply = lambda: (500, json.dumps(error).encode())
    path = manifest(tmp_path, script)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("price:", f"server_errors: {cost}, price:"), encoding="utf-8")
    rig.batchgen("run", path, cwd=tmp_path, code=1)
    found = rig.status(tmp_path)
    assert (found["jobs"][jobs], found["cost"]["maybe"]) == (1, maybe)


@pytest.mark.parametrize("response", ["url", "b64_json", "mixed"])
def test_streams_agree_with_the_bill_despite_faults(response: str, tmp_path: Path) -> None:
    switches = ("--response", response, "--fast-images", "--ping-interval", "0.01", "--seed", "7")
    chaos = ("--stream-error", "0.1", "--bill-stream-error", "0.1", "--bill-stream-cut", "0.1")
    with rig.endpoint(tmp_path / "state", *switches, *chaos, "--latency", "0.03") as served:
        path = rig.manifest(
            tmp_path,
            served.base_url,
            [f"mug {number}" for number in range(40)],
            options="{size: 1024x640, stream: true, partial_images: 2}",
            limits='{concurrency: 8, max_waste: "0"}',
        )
        rig.batchgen("run", path, cwd=tmp_path, code=1)
        rig.judge(tmp_path, served.bill(), finished=True)
        assert 5 < rig.status(tmp_path)["jobs"]["done"] < 40
