"""Every form in which a response may come, from a server that is scripted over a real socket."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support import rig
from tests.support.responses import RED, encoded, image, saved
from tests.support.scripted_server import Scripted, scripted


def run(
    directory: Path,
    script: Scripted,
    *,
    code: int = 0,
    options: str = "{}",
    limits: str = '{max_waste: "0", download_wait: 4}',
) -> str:
    """One job against the script."""
    path = rig.manifest(
        directory,
        f"{script.base}/v1",
        ["a mug"],
        options=options,
        limits=limits,
    )
    done = rig.batchgen("run", path, cwd=directory, code=code)
    return done.stdout + done.stderr


FORMS = {
    "b64_json": {"b64_json": encoded(RED)},
    "empty strings next to it": {"url": "", "b64_json": encoded(RED), "revised_prompt": ""},
    "a data url in url": {"url": f"data:image/png;base64,{encoded(RED)}"},
    "a data url in b64_json": {"b64_json": f"data:image/png;base64,{encoded(RED)}"},
    "white space": {"b64_json": "\n".join([encoded(RED)[:40], encoded(RED)[40:]])},
    "no padding, URL-safe": {
        "b64_json": encoded(RED).rstrip("=").replace("+", "-").replace("/", "_")
    },
}


@pytest.mark.fault("B19", "B21", "N30")
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_inline_image_is_saved_in_any_form(form: dict[str, Any], tmp_path: Path) -> None:
    with scripted() as script:
        script.response(form)
        run(tmp_path, script)
    assert saved(tmp_path) == {"job-000.png": RED}


GATEWAYS = {
    "images": {"images": [{"url": "URL"}], "timings": {"inference": 1.2}},
    "texts in data": {"created": 1, "data": ["URL"]},
    "image in data": {"created": 1, "data": [{"image": encoded(RED)}]},
    "Markdown": {"choices": [{"message": {"role": "assistant", "content": "![image](URL)"}}]},
    "chat images": {
        "choices": [
            {
                "message": {
                    "images": [{"image_url": {"url": f"data:image/png;base64,{encoded(RED)}"}}]
                }
            }
        ]
    },
    "Responses": {"output": [{"type": "image_generation_call", "result": encoded(RED)}]},
    "data in data": {"data": {"data": [{"b64_json": encoded(RED)}]}, "code": 200, "msg": "ok"},
    "MiniMax": {"data": {"image_urls": ["URL"]}, "base_resp": {"status_code": 0}},
}


@pytest.mark.parametrize("status", [200, 201, 203])
@pytest.mark.parametrize("document", GATEWAYS.values(), ids=GATEWAYS.keys())
def test_image_of_a_gateway_is_saved(document: dict[str, Any], status: int, tmp_path: Path) -> None:
    with scripted() as script:
        script.files["one.png"] = RED
        text = json.dumps(document).replace("URL", script.url("one.png"))
        script.reply = lambda: (status, text.encode())
        run(tmp_path, script)
        assert len(script.posts) == 1
    assert saved(tmp_path) == {"job-000.png": RED}


def test_large_image_outside_data_is_saved(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((200, 200), 90).save(buffer, "PNG")
    noise = buffer.getvalue()
    assert len(noise) > 20_000  # the spool stores base64 of more than 4,096 characters decoded
    with scripted() as script:
        item = {"type": "image_generation_call", "result": encoded(noise)}
        script.reply = lambda: (200, json.dumps({"output": [item]}).encode())
        run(tmp_path, script)
    assert saved(tmp_path) == {"job-000.png": noise}


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_bytes_after_an_image_are_kept_with_a_warning(kind: str, tmp_path: Path) -> None:
    """A whole image is never a reason to pay again."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, kind)
    labelled = buffer.getvalue() + b"label: made by a gateway, and kept"
    with scripted() as script:
        script.files["one.png"] = labelled
        document = {"data": [{"url": script.url("one.png")}]}
        script.reply = lambda: (200, json.dumps(document).encode())
        shown = run(tmp_path, script)
        assert len(script.posts) == 1
    assert list(saved(tmp_path).values()) == [labelled]
    assert " bytes of other data follow the " in shown


def test_image_file_as_response_is_saved(tmp_path: Path) -> None:
    with scripted() as script:
        script.content_type = "image/png"
        script.reply = lambda: (200, RED)
        run(tmp_path, script)
    assert saved(tmp_path) == {"job-000.png": RED}


@pytest.mark.parametrize("status", [200, 202])
def test_task_with_polling_url_is_polled(status: int, tmp_path: Path) -> None:
    with scripted() as script:
        states = [{"status": "processing"}, {"status": "Ready", "result": {"sample": "URL"}}]
        text = json.dumps({"id": "task_1", "status": "queued", "polling_url": f"{script.base}/t/1"})
        script.reply = lambda: (status, text.encode())
        script.files["t/1"] = lambda: (
            json.dumps(states.pop(0) if len(states) > 1 else states[0])
            .replace("URL", script.url("one.png"))
            .encode()
        )
        script.files["one.png"] = RED
        run(tmp_path, script, limits="{max_waste: '0', poll: 0.01}")
        assert len(script.posts) == 1
    assert saved(tmp_path) == {"job-000.png": RED}


@pytest.mark.parametrize(
    ("status", "document"),
    [
        (202, {"id": "task_1", "status": "queued", "polling_url": "https://other.example/t/1"}),
        (202, {"id": "task_1"}),
        (200, {"code": 200, "data": {"taskId": "task_1"}}),
        (202, {"id": "task_1", "status": "queued", "polling_url": "/t/task_1"}),
    ],
)
def test_task_without_known_route_is_uncertain(
    status: int, document: dict[str, Any], tmp_path: Path
) -> None:
    with scripted() as script:
        script.reply = lambda: (status, json.dumps(document).encode())
        output = run(tmp_path, script, code=1, limits='{max_waste: "0", poll: 0.01}')
        assert len(script.posts) == 1
        assert set(script.gets) <= {"/t/task_1"}
    assert "task_1" in output
    assert "task_1" in rig.batchgen("status", "batch", cwd=tmp_path).stdout
    found = rig.status(tmp_path)
    assert found["jobs"]["uncertain"] == 1
    assert (found["cost"]["charged"], found["cost"]["maybe"]) == ("0.000000", "0.037700")


@pytest.mark.fault("B08")
def test_url_next_to_an_empty_b64_json_is_fetched_keyless(tmp_path: Path) -> None:
    with scripted() as script:
        script.files["one.png"] = RED
        script.response({"url": script.url("one.png"), "b64_json": ""})
        run(tmp_path, script)
        names = {name.lower() for headers in script.get_headers for name in headers}
    assert saved(tmp_path) == {"job-000.png": RED}
    assert not names & {"authorization", "cookie", "x-api-key"}


@pytest.mark.fault("B07")
def test_more_images_than_requested_are_all_kept(tmp_path: Path) -> None:
    others = [image("green"), image("blue")]
    with scripted() as script:
        script.files["two.png"] = others[0]
        script.response(
            {"b64_json": encoded(RED)},
            {"url": script.url("two.png")},
            {"b64_json": encoded(others[1])},
        )
        run(tmp_path, script)
    assert saved(tmp_path) == {
        "job-000.png": RED,
        "job-000-extra.png": others[0],
        "job-000-extra-2.png": others[1],
    }


@pytest.mark.fault("B12")
@pytest.mark.parametrize(("file_format", "ending"), [("JPEG", "jpg"), ("WEBP", "webp")])
def test_the_ending_is_that_of_the_true_format(
    file_format: str, ending: str, tmp_path: Path
) -> None:
    data = image("red", file_format)
    with scripted() as script:
        script.response({"b64_json": encoded(data)})
        run(tmp_path, script, options="{output_format: png}")
    assert saved(tmp_path) == {f"job-000.{ending}": data}
    (row,) = rig.query(tmp_path / "batchgen.db", "SELECT warnings, format FROM images")
    assert row["format"] in row["warnings"]


@pytest.mark.fault("B24")
def test_another_size_than_requested_is_a_warning_in_the_ledger(tmp_path: Path) -> None:
    with scripted() as script:
        script.response({"b64_json": encoded(RED)})
        output = run(tmp_path, script, options="{size: 1024x1024}")
    (row,) = rig.query(tmp_path / "batchgen.db", "SELECT warnings, width, height FROM images")
    assert (row["width"], row["height"]) == (64, 48)
    assert "1024x1024" in row["warnings"]
    assert "1024x1024" in output


@pytest.mark.fault("B09")
def test_missing_image_is_named_and_not_rebought(tmp_path: Path) -> None:
    with scripted() as script:
        script.response({"url": script.url("gone.png")})
        run(tmp_path, script, code=1)
        rig.batchgen("run", tmp_path / "batch.yaml", cwd=tmp_path, code=1)
        assert len(script.posts) == 1
        assert len(script.gets) > 2
    found = rig.status(tmp_path)
    assert found["jobs"]["paid"] == 1
    assert found["cost"]["charged"] == "0.037700"
    assert "paid, download: HTTP 404" in rig.batchgen("status", "batch", cwd=tmp_path).stdout


@pytest.mark.fault("B10")
def test_download_host_that_is_down_leaves_the_job_paid(tmp_path: Path) -> None:
    with scripted() as script:
        path = rig.manifest(tmp_path, f"{script.base}/v1", ["a mug"])
        script.response({"url": script.url("late.png")})
        script.files["late.png"] = 503
        with rig.start("run", path, "--json", cwd=tmp_path) as process:
            for event in rig.events(process):
                if event["event"] == "download_retried":
                    process.terminate()
                    break
            process.communicate(timeout=rig.TIMEOUT_S)
        assert rig.status(tmp_path)["jobs"]["paid"] == 1
        script.files["late.png"] = RED
        rig.batchgen("run", path, cwd=tmp_path)
        assert len(script.posts) == 1
    assert saved(tmp_path) == {"job-000.png": RED}


CUT = RED[:-7]
SPOILED = {
    "cut": {"b64_json": encoded(CUT)},
    "not base64": {"b64_json": "!!!!"},
    "a page": {"b64_json": encoded(b"<html>sorry</html>")},
    "a tiff": {"b64_json": encoded(image("red", "TIFF", (8, 8)))},
}


@pytest.mark.fault("B13", "B17", "B20")
@pytest.mark.parametrize("form", SPOILED.values(), ids=SPOILED.keys())
def test_a_spoiled_image_is_charged_kept_raw_and_never_saved(
    form: dict[str, Any], tmp_path: Path
) -> None:
    with scripted() as script:
        script.response(form)
        run(tmp_path, script, code=1)
        assert len(script.posts) == 1
    assert saved(tmp_path) == {}
    found = rig.status(tmp_path)
    assert found["jobs"]["failed"] == 1
    assert found["cost"]["charged"] == "0.037700"
    (kept,) = rig.spooled(tmp_path)
    assert json.dumps(form)[1:-1].encode() in kept.read_bytes()


def test_verify_decode_finds_what_structure_misses(
    tmp_path: Path,
) -> None:
    good = image("red", "WEBP", (256, 256))
    with scripted() as script:
        script.response({"b64_json": encoded(good)})
        path = rig.manifest(
            tmp_path, f"{script.base}/v1", ["a mug"], extra="output: {verify: decode}\n"
        )
        rig.batchgen("run", path, cwd=tmp_path)
    (row,) = rig.query(tmp_path / "batchgen.db", "SELECT verify FROM jobs")
    assert row["verify"] == "decode"


UNCERTAIN = {
    "a page": (200, b"<html>welcome</html>"),
    "nothing": (200, b""),
    "cut json": (200, b'{"data": [{"url": "http'),
    "a proxy's 504": (504, b"<html>Gateway Time-out</html>"),
    "an error without a source": (500, b"oops"),
}


@pytest.mark.fault("B01", "B03", "H22", "H25", "H31")
@pytest.mark.parametrize("reply", UNCERTAIN.values(), ids=UNCERTAIN.keys())
def test_response_that_cannot_be_trusted_is_uncertain(
    reply: tuple[int, bytes], tmp_path: Path
) -> None:
    with scripted() as script:
        script.reply = lambda: reply
        run(tmp_path, script, code=1)
        assert len(script.posts) == 1
    found = rig.status(tmp_path)
    assert found["jobs"]["uncertain"] == 1
    assert found["cost"] == {
        "currency": "USD",
        "estimated": "0.037700",
        "charged": "0.000000",
        "maybe": "0.037700",
        "unpriced": 0,
    }


@pytest.mark.fault("H06")
def test_unknown_model_stops_the_run_early(tmp_path: Path) -> None:
    error = {"error": {"code": "model_not_found", "type": "new_api_error", "message": "no carrier"}}
    with scripted() as script:
        script.reply = lambda: (503, json.dumps(error).encode())
        output = run(tmp_path, script, code=3)
        assert len(script.posts) == 1
    assert "is the model's name right?" in output


@pytest.mark.fault("H21")
def test_a_gateway_that_errs_once_is_asked_once_more(tmp_path: Path) -> None:
    error = {"error": {"code": "do_request_failed", "type": "new_api_error", "message": "again"}}
    with scripted() as script:
        replies = iter(
            [
                (500, json.dumps(error).encode()),
                (200, json.dumps({"data": [{"b64_json": encoded(RED)}]}).encode()),
            ]
        )
        script.reply = lambda: next(replies)
        run(tmp_path, script)
        assert len(script.posts) == 2
    assert rig.status(tmp_path)["attempts"] == {
        "total": 2,
        "billed": 1,
        "maybe": 0,
        "not_billed": 1,
    }


def test_what_is_sent_is_what_the_manifest_says(tmp_path: Path) -> None:
    with scripted() as script:
        script.response({"b64_json": encoded(RED)})
        options = "{size: 1024x640, output_format: webp, output_compression: 80}"
        run(tmp_path, script, options=options)
        (sent,) = script.posts
    assert sent == {
        "model": "gpt-image-2",
        "prompt": "a mug",
        "n": 1,
        "size": "1024x640",
        "output_format": "webp",
        "output_compression": 80,
    }


@pytest.mark.parametrize(
    ("worse", "why"),
    [
        (image("white", size=(64, 48)), "it has a single color"),
        (b"two sizes", "requested 1024x640, got 64x48"),
    ],
    ids=["blank", "wrong size"],
)
def test_a_good_image_is_never_replaced_by_a_worse_one(
    worse: bytes, why: str, tmp_path: Path
) -> None:
    options = "{}" if "color" in why else "{size: 1024x640}"
    good = io.BytesIO()
    Image.effect_noise((64, 48) if options == "{}" else (1024, 640), 60).save(good, "PNG")
    if options != "{}":
        small = io.BytesIO()
        Image.effect_noise((64, 48), 60).save(small, "PNG")
        worse = small.getvalue()
    with scripted() as script:
        script.response({"b64_json": encoded(good.getvalue())})
        run(tmp_path, script, options=options)
        script.response({"b64_json": encoded(worse)})
        path = rig.manifest(
            tmp_path,
            f"{script.base}/v1",
            ["a mug, again"],
            options=options,
            limits='{max_waste: "0"}',
        )
        shown = rig.batchgen("run", path, cwd=tmp_path, code=1)
        assert why in shown.stdout
        assert list(saved(tmp_path).values()) == [good.getvalue()]
        assert rig.status(tmp_path)["jobs"]["failed"] == 1
        assert len(script.posts) == 2


def test_repeated_size_warnings_are_shown_then_counted(
    tmp_path: Path,
) -> None:
    with scripted() as script:
        small = io.BytesIO()
        Image.effect_noise((64, 48), 60).save(small, "PNG")
        for _ in range(25):
            script.response({"b64_json": encoded(small.getvalue())})
        path = rig.manifest(
            tmp_path,
            f"{script.base}/v1",
            [f"mug {number}" for number in range(25)],
            options="{size: 1024x1024}",
        )
        shown = rig.batchgen("run", path, cwd=tmp_path).stderr
    assert shown.count("requested 1024x1024, got 64x48") == 20
    assert "5 more images with warnings; --json and --log-file list them all" in shown
