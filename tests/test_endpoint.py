"""The embedded endpoint over real sockets: strict, honest about its bill, and faulty on demand."""

from __future__ import annotations

import base64
import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from PIL import Image

from tests import rig

PROMPT = "A ceramic mug"
KEY = {"Authorization": "Bearer sk-test"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rig.Endpoint]:
    with rig.endpoint(tmp_path_factory.mktemp("endpoint")) as endpoint:
        yield endpoint


def ask(
    endpoint: rig.Endpoint, headers: dict[str, str] | None = None, **body: Any
) -> httpx.Response:
    """One generation."""
    fields = {"model": "gpt-image-2", "prompt": PROMPT, **body}
    return httpx.post(
        f"{endpoint.base_url}/images/generations",
        json={name: value for name, value in fields.items() if value is not None},
        headers=KEY if headers is None else headers,
        timeout=60,
    )


def error_of(response: httpx.Response) -> tuple[int, str]:
    """Status and code of an error."""
    return response.status_code, response.json()["error"]["code"] or ""


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
def test_pictures_are_real_and_as_asked_for(file_format: str, served: rig.Endpoint) -> None:
    answer = ask(served, size="1344x768", output_format=file_format).json()
    (item,) = answer["data"]
    assert item["b64_json"] == item["revised_prompt"] == ""
    data = httpx.get(item["url"]).content
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        assert (picture.format, picture.size) == (file_format.upper(), (1344, 768))
    assert (answer["size"], answer["output_format"]) == ("1344x768", file_format)


def test_inline_pictures_and_two_at_a_time(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path, "--answer", "b64_json") as endpoint:
        items = ask(endpoint, n=2).json()["data"]
        pictures = {base64.b64decode(item["b64_json"]) for item in items}
        assert len(pictures) == 2
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


def test_edits_take_several_pictures_and_a_mask_from_the_official_sdk(
    served: rig.Endpoint,
) -> None:
    def png(mode: str) -> bytes:
        buffer = io.BytesIO()
        Image.new(mode, (64, 64)).save(buffer, "PNG")
        return buffer.getvalue()

    with openai.OpenAI(base_url=served.base_url, api_key="sk-test", max_retries=0) as client:
        answer = client.images.edit(
            model="gpt-image-2",
            prompt="put both on a table",
            image=[("a.png", png("RGB")), ("b.png", png("RGB"))],
            mask=("mask.png", png("RGBA")),
        )
        assert answer.data
        with pytest.raises(openai.BadRequestError):
            client.images.edit(model="gpt-image-2", prompt="x", image=("a.png", b"no picture"))


def test_the_bill_is_on_disk_before_the_answer_and_names_the_request(
    served: rig.Endpoint,
) -> None:
    response = ask(served, headers={**KEY, "Idempotency-Key": "mine-1"})
    row = served.bill()[-1]
    assert row["idempotency_key"] == "mine-1"
    assert row["request_id"] == response.headers["x-oneapi-request-id"]
    assert row["prompt"] == PROMPT


def test_a_bill_goes_on_after_the_endpoint_is_killed(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path, "--balance", "0.10") as first:
        assert ask(first).status_code == 200
        first.process.send_signal(signal.SIGKILL)
        first.process.wait()
    with rig.endpoint(tmp_path, "--balance", "0.10") as second:
        assert ask(second).status_code == 200
        assert error_of(ask(second)) == (403, "insufficient_user_quota")
        assert [row["seq"] for row in second.bill()] == [1, 2]


def test_a_balance_never_goes_below_zero_however_many_ask_at_once(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path, "--balance", "0.20", "--latency", "0.1") as poor:
        with ThreadPoolExecutor(20) as threads:
            statuses = [r.status_code for r in threads.map(lambda _: ask(poor), range(20))]
        assert statuses.count(200) == len(poor.bill()) == 5
        assert statuses.count(403) == 15


def test_who_hangs_up_is_billed_all_the_same(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path, "--latency", "0.5") as slow:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{slow.base_url}/images/generations",
                json={"model": "gpt-image-2", "prompt": PROMPT},
                headers=KEY,
                timeout=httpx.Timeout(5, read=0.1),
            )
        slow.wait_until_idle()
        assert len(slow.bill()) == 1


FAULTS = {
    "refuse": (400, 0),
    "throttle": (429, 0),
    "overload": (503, 0),
    "error": (500, 0),
    "break": (None, 0),
    "bill-error": (500, 1),
    "bill-drop": (None, 1),
    "bill-gateway-timeout": (504, 1),
    "bill-empty": (200, 1),
    "html": (200, 0),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_does_what_it_says_to_answer_and_bill(fault: str, tmp_path: Path) -> None:
    status, charges = FAULTS[fault]
    with rig.endpoint(tmp_path, f"--{fault}", "1") as faulty:
        if status is None:
            with pytest.raises(httpx.TransportError):
                ask(faulty)
        else:
            assert ask(faulty).status_code == status
        assert len(faulty.bill()) == charges


def test_a_cut_download_is_cut(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path, "--download-truncate", "1") as faulty:
        url = ask(faulty).json()["data"][0]["url"]
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(url)


def test_a_rate_limit_is_a_strict_bucket(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path, "--rate", "6", "--burst", "2", "--retry-after") as limited:
        answers = [ask(limited, size="1024x640") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
        assert int(answers[-1].headers["retry-after"]) >= 1
        assert len(limited.bill()) == 2


def test_it_ends_with_the_one_who_started_it(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-m', 'batchgen.endpoint', '--state',"
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
        [sys.executable, "-m", "batchgen.endpoint", "--host", "0.0.0.0", "--state", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 2
    assert "loopback" in done.stderr
