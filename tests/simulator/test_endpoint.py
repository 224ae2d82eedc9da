"""The embedded endpoint over real sockets: strict, honest about its bill, and faulty on demand."""

from __future__ import annotations

import base64
import gzip
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from starlette.routing import Route

from batchgen.simulator.app import create_app
from batchgen.simulator.faults import DOWNLOAD_FAULTS, POST_FAULTS, Behavior
from batchgen.simulator.orders import Terms
from batchgen.simulator.request_pipeline import Gateway
from tests.support import rig
from tests.support.endpoint import KEY, PNG, PROMPT, ask, error_of, image_file

SWITCHES = ()


@pytest.mark.parametrize(
    ("size", "status"),
    [
        ("1024x1024", 200),
        ("auto", 200),
        ("1024x640", 200),
        ("816x816", 200),
        ("3840x1280", 200),
        ("1920x1080", 400),
        ("1080x1080", 400),
        ("512x512", 400),
        ("800x800", 400),
        ("3840x2176", 400),
        ("3856x1024", 400),
        ("3840x1264", 400),
        ("big", 400),
    ],
)
def test_sizes_are_taken_and_refused_as_documented(
    size: str, status: int, served: rig.Endpoint
) -> None:
    before = len(served.bill())
    response = ask(served, size=size)
    assert response.status_code == status
    assert len(served.bill()) - before == (status == 200)


@pytest.mark.parametrize(
    "body",
    [
        {"response_format": "b64_json"},
        {"style": "vivid"},
        {"input_fidelity": "high"},
        {"background": "transparent"},
        {"quality": "standard"},
        {"output_compression": 80},
        {"output_compression": 101, "output_format": "webp"},
        {"partial_images": 2},
        {"output_format": "gif"},
        {"n": 0},
        {"n": 11},
        {"prompt": None},
        {"prompt": "x" * 32_001},
    ],
)
def test_what_the_provider_refuses_is_refused_and_free(
    body: dict[str, Any], served: rig.Endpoint
) -> None:
    before = len(served.bill())
    assert ask(served, **body).status_code == 400
    assert len(served.bill()) == before


@pytest.mark.parametrize("file_format", ["png", "jpeg", "webp"])
def test_images_are_real_and_as_requested(file_format: str, served: rig.Endpoint) -> None:
    response = ask(served, size="1344x768", output_format=file_format).json()
    (item,) = response["data"]
    assert item["b64_json"] == item["revised_prompt"] == ""
    data = httpx.get(item["url"]).content
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert (image.format, image.size) == (file_format.upper(), (1344, 768))
    assert (response["size"], response["output_format"]) == ("1344x768", file_format)


def test_inline_images_and_two_at_a_time(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path, "--response", "b64_json") as endpoint:
        items = ask(endpoint, n=2).json()["data"]
        images = {base64.b64decode(item["b64_json"]) for item in items}
        assert len(images) == 2
        (row,) = endpoint.bill()
        assert (row["n"], row["micros"]) == (2, 2 * rig.PRICE)


def test_a_file_can_be_fetched_in_parts(served: rig.Endpoint) -> None:
    url = ask(served).json()["data"][0]["url"]
    whole = httpx.get(url).content
    part = httpx.get(url, headers={"Range": "bytes=100-199"})
    assert part.status_code == 206
    assert part.content == whole[100:200]


def test_keys_models_and_paths_are_checked(served: rig.Endpoint) -> None:
    assert ask(served, headers={}).status_code == 401
    assert error_of(ask(served, model="nonsense")) == (503, "model_not_found")
    assert httpx.get(f"{served.base_url}/nowhere", headers=KEY).status_code == 404
    models = httpx.get(f"{served.base_url}/models", headers=KEY).json()
    assert "gpt-image-2" in {model["id"] for model in models["data"]}
    prices = httpx.get(served.base_url.removesuffix("/v1") + "/api/pricing").json()
    (row,) = [row for row in prices["data"] if row["model_name"] == "gpt-image-2"]
    assert (row["model_price"], row["discount"]) == (0.058, 0.65)


def test_a_blocked_prompt_is_refused_and_free(served: rig.Endpoint) -> None:
    before = len(served.bill())
    assert error_of(ask(served, prompt="a forbidden-word here")) == (400, "moderation_blocked")
    assert len(served.bill()) == before


def test_edits_accept_images_and_mask_of_the_official_sdk(
    served: rig.Endpoint,
) -> None:
    def png(mode: str) -> bytes:
        buffer = io.BytesIO()
        Image.new(mode, (64, 64)).save(buffer, "PNG")
        return buffer.getvalue()

    with openai.OpenAI(base_url=served.base_url, api_key="sk-test", max_retries=0) as client:
        response = client.images.edit(
            model="gpt-image-2",
            prompt="put both on a table",
            image=[("a.png", png("RGB")), ("b.png", png("RGB"))],
            mask=("mask.png", png("RGBA")),
        )
        assert response.data
        with pytest.raises(openai.BadRequestError):
            client.images.edit(model="gpt-image-2", prompt="x", image=("a.png", b"no image"))


def test_a_rate_limit_is_a_strict_bucket(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path, "--rate", "6", "--burst", "2", "--retry-after") as limited:
        responses = [ask(limited, size="1024x640") for _ in range(4)]
        assert [response.status_code for response in responses] == [200, 200, 429, 429]
        assert int(responses[-1].headers["retry-after"]) >= 1
        assert len(limited.bill()) == 2


def test_it_ends_with_the_one_who_started_it(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-m', 'batchgen.simulator', '--state',"
        f" {str(tmp_path)!r}, '--stdin-lifeline'], stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "print(child.stdout.readline().decode(), flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        ready = json.loads(parent.stdout.readline())
        assert httpx.get(ready["base_url"] + "/models", headers=KEY).status_code == 200
        parent.kill()
        while True:
            try:
                httpx.get(ready["base_url"] + "/models", headers=KEY)
            except httpx.TransportError:
                break


def test_only_loopback_is_listened_on(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "batchgen.simulator", "--host", "0.0.0.0", "--state", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=rig.TIMEOUT_S,
    )
    assert done.returncode == 2
    assert "loopback" in done.stderr


def test_a_gzipped_body_is_read(served: rig.Endpoint) -> None:
    body = gzip.compress(json.dumps({"model": "gpt-image-2", "prompt": "squeezed"}).encode())
    headers = {**KEY, "Content-Type": "application/json", "Content-Encoding": "gzip"}
    url = f"{served.base_url}/images/generations"
    assert httpx.post(url, content=body, headers=headers).status_code == 200
    assert served.bill()[-1]["prompt"] == "squeezed"
    assert httpx.post(url, content=body[:-9], headers=headers).status_code == 400


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"model": "gpt-image-2", "n": "1"}'])
def test_a_malformed_body_is_a_400_in_the_envelope(body: bytes, served: rig.Endpoint) -> None:
    headers = {**KEY, "Content-Type": "application/json"}
    response = httpx.post(f"{served.base_url}/images/generations", content=body, headers=headers)
    assert response.status_code == 400
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    assert len(response.headers["x-oneapi-request-id"]) == 31


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ([("image", ("a.png", PNG[1], "application/octet-stream"))], "unsupported_file_mimetype"),
        ([("image", ("a.png", PNG[1][:60], "image/png"))], "invalid_image_file"),
        ([("image", ("a.gif", image_file("RGB", 64, "GIF"), "image/png"))], "invalid_image_file"),
        ([("image[]", PNG)] * 17, "invalid_value"),
        ([("image", PNG), ("mask", PNG)], "invalid_value"),
        (
            [("image", PNG), ("mask", ("m.png", image_file("RGBA", 32), "image/png"))],
            "invalid_value",
        ),
        ([("mask", ("m.png", image_file("RGBA"), "image/png"))], "missing_required_parameter"),
    ],
)
def test_unfit_uploads_are_refused_and_free(
    files: list[tuple[str, tuple[str, bytes, str]]], code: str, served: rig.Endpoint
) -> None:
    before = len(served.bill())
    response = httpx.post(
        f"{served.base_url}/images/edits",
        data={"model": "gpt-image-2", "prompt": PROMPT},
        files=files,
        headers=KEY,
    )
    assert error_of(response) == (400, code)
    assert len(served.bill()) == before


def test_an_edit_obeys_its_text_parts(served: rig.Endpoint) -> None:
    fields = {"model": "gpt-image-2", "prompt": PROMPT, "n": "2", "output_format": "webp"}
    response = httpx.post(
        f"{served.base_url}/images/edits",
        data={**fields, "output_compression": "50", "stream": "false"},
        files=[("image[]", PNG)] * 16,
        headers=KEY,
        timeout=60,
    )
    assert (len(response.json()["data"]), response.json()["output_format"]) == (2, "webp")


def test_a_revoked_key_is_refused_until_it_is_given_back(served: rig.Endpoint) -> None:
    assert served.judge("revoke-key", {}) == {"revoked": True}
    refused = ask(served)
    assert served.judge("revoke-key", {}) == {"revoked": False}
    assert error_of(refused) == (401, "")
    error = refused.json()["error"]
    assert error["type"] == "new_api_error"
    request_id = refused.headers["x-oneapi-request-id"]
    assert error["message"].endswith(f"(request id: {request_id})")
    assert ask(served).status_code == 200


def test_a_named_key_is_the_only_one(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path, "--key", "sk-mine") as private:
        assert ask(private).status_code == 401
        assert ask(private, headers={"Authorization": "Bearer sk-mine"}).status_code == 200


@given(
    posts=st.lists(st.floats(0, 1 / len(POST_FAULTS)), min_size=len(POST_FAULTS)),
    downloads=st.lists(st.floats(0, 1 / len(DOWNLOAD_FAULTS)), min_size=len(DOWNLOAD_FAULTS)),
)
def test_behavior_is_reported_and_set_in_the_same_words(
    posts: list[float], downloads: list[float]
) -> None:
    rates = dict(
        zip(POST_FAULTS + DOWNLOAD_FAULTS, posts[: len(POST_FAULTS)] + downloads, strict=False)
    )
    behavior = Behavior(latency=0.5, burst=3, rates=rates)
    shown = json.loads(json.dumps(behavior.document()))
    assert Behavior().changed(shown).document() == behavior.document()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:80"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": ""}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "multipart/form-data; boundary=x"}, 415),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "[::1]:1"}, 200),
        ({"Content-Type": "application/json; charset=utf-8"}, 200),
        ({}, 200),
    ],
)
def test_a_page_of_another_site_changes_nothing(
    headers: dict[str, str], status: int, tuned: rig.Endpoint
) -> None:
    """Requests that a browser sends for any page: with a rebound name, or as a plain form."""
    root = tuned.base_url.removesuffix("/v1")
    sent = httpx.post(f"{root}/judge/faults", content=b'{"latency": 0.25}', headers=headers)
    assert sent.status_code == status
    in_force = tuned.judge("faults", {})
    assert (in_force["latency"] == 0.25) == (status == 200)
    assert httpx.get(f"{root}/judge/bill", headers=headers).status_code == status


def test_every_control_route_refuses_pages(served: rig.Endpoint, tmp_path: Path) -> None:
    terms = Terms(price=1, balance=None, key=None, block_word="x")
    gateway = Gateway(state=tmp_path, base_url="", terms=terms, behavior=Behavior())
    routes = [route for route in create_app(gateway).routes if isinstance(route, Route)]
    control = {route.path: route for route in routes if route.path.startswith("/judge/")}
    assert "/judge/log" in control
    for path, route in control.items():
        url = served.base_url.removesuffix("/v1") + path
        (method,) = (route.methods or set()) - {"HEAD"}
        foreign = httpx.request(method, url, headers={"Host": "evil.example"})
        form = httpx.request(method, url, content=b"{}", headers={"Content-Type": "text/plain"})
        assert (path, foreign.status_code, form.status_code) == (path, 403, 415)
