"""The embedded endpoint over real sockets: strict, honest about its bill, and faulty on demand."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
from batchgen.simulator.billing import Journal
from batchgen.simulator.drawing import Drawing, draw, draw_fast
from batchgen.simulator.errors import ApiError
from batchgen.simulator.faults import DOWNLOAD_FAULTS, POST_FAULTS, Behavior, Fault
from batchgen.simulator.models import rules
from batchgen.simulator.orders import Terms
from batchgen.simulator.request_pipeline import Gateway
from tests.support import rig
from tests.support.endpoint import KEY, PNG, error_of, image_file

PROMPT = "A ceramic mug"


SWITCHES = ()


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
def test_images_are_real_and_as_asked_for(file_format: str, served: rig.Endpoint) -> None:
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


def test_bill_is_on_disk_before_the_response(
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


def test_balance_never_falls_below_zero_under_concurrency(tmp_path: Path) -> None:
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
    "plan-limit": (400, 0),
    "bill-no-data": (200, 1),
    "bill-unread": (200, 1),
    "bill-page": (200, 1),
    "bill-inside": (200, 1),
    "bill-task": (202, 1),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_does_what_it_says_to_response_and_bill(fault: str, tmp_path: Path) -> None:
    status, charges = FAULTS[fault]
    with rig.endpoint(tmp_path, f"--{fault}", "1") as faulty:
        if status is None:
            with pytest.raises(httpx.TransportError):
                ask(faulty)
        else:
            assert ask(faulty).status_code == status
        assert len(faulty.bill()) == charges


@pytest.mark.parametrize(
    ("fault", "status"),
    [("download-forbid", 403), ("download-miss", 404), ("download-html", 200)],
)
def test_a_faulty_download_has_no_image(fault: str, status: int, tmp_path: Path) -> None:
    with rig.endpoint(tmp_path, f"--{fault}", "1", "--fault-after", "1") as faulty:
        url = ask(faulty).json()["data"][0]["url"]
        assert httpx.get(url).headers["content-type"] == "image/png", "the first is without fault"
        found = httpx.get(url)
        assert found.status_code == status
        assert not found.content.startswith(b"\x89PNG")


def test_a_stalled_download_never_ends(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path, "--download-stall", "1") as faulty:
        url = ask(faulty).json()["data"][0]["url"]
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(url, timeout=0.5)


def test_a_cut_download_is_cut(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path, "--download-truncate", "1") as faulty:
        url = ask(faulty).json()["data"][0]["url"]
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(url)


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
        timeout=30,
    )
    assert done.returncode == 2
    assert "loopback" in done.stderr


def url_of(response: httpx.Response) -> str:
    """Where the first image is."""
    url: str = response.json()["data"][0]["url"]
    return url


def ask_slowly(endpoint: rig.Endpoint, threads: ThreadPoolExecutor) -> Any:
    """Start a generation and come back once the endpoint works on it."""
    response = threads.submit(ask, endpoint)
    while not endpoint.judge("stats")["in_flight"]:
        assert not response.done()
    return response


def test_faults_are_replaced_at_run_time_and_other_switches_kept(tuned: rig.Endpoint) -> None:
    tuned.judge("faults", {"error": 1, "response": "b64_json"})
    assert error_of(ask(tuned)) == (500, "do_request_failed")
    in_force = tuned.judge("faults", {"overload": 1.0})
    assert (in_force["error"], in_force["overload"], in_force["response"]) == (0, 1, "b64_json")
    assert error_of(ask(tuned)) == (503, "system_cpu_overloaded")


@pytest.mark.parametrize(
    "wrong",
    [{"no-such": 1}, {"break": 2}, {"break": "1"}, {"break": 0.6, "error": 0.6}, {"burst": 0}],
)
def test_a_wrong_switch_is_refused_and_changes_nothing(
    wrong: dict[str, object], tuned: rig.Endpoint
) -> None:
    before = tuned.judge("faults", {"latency": 0.01})
    root = tuned.base_url.removesuffix("/v1")
    assert httpx.post(f"{root}/judge/faults", json={"latency": 9, **wrong}).status_code == 400
    assert tuned.judge("faults", {}) == before


def test_a_result_is_gone_after_its_time_to_live(tuned: rig.Endpoint) -> None:
    tuned.judge("faults", {"url_ttl": 100})
    url = url_of(ask(tuned))
    assert httpx.head(url).status_code == httpx.get(url).status_code == 200
    file = tuned.state / "files" / url.rpartition("/")[2]
    os.utime(file, (file.stat().st_atime, file.stat().st_mtime - 200))
    assert httpx.get(url).status_code == 404
    tuned.judge("faults", {"url_ttl": 0})
    assert httpx.get(url).status_code == 200


@pytest.mark.parametrize("form", ["url", "b64_json"])
def test_a_truncated_image_is_billed_and_cannot_be_read(form: str, tuned: rig.Endpoint) -> None:
    tuned.judge("faults", {"bill-truncated": 1, "response": form})
    before = len(tuned.bill())
    item = ask(tuned).json()["data"][0]
    data = httpx.get(item["url"]).content if form == "url" else base64.b64decode(item["b64_json"])
    with pytest.raises((OSError, SyntaxError)), Image.open(io.BytesIO(data)) as image:
        image.load()
    row = tuned.bill()[before]
    assert (row["fault"], row["status"], row["micros"]) == ("bill-truncated", 200, rig.PRICE)


def test_a_download_that_fails_is_there_later(tuned: rig.Endpoint) -> None:
    tuned.judge("faults", {"download-error": 1})
    url = url_of(ask(tuned))
    assert httpx.get(url).status_code == 503
    tuned.judge("faults", {})
    assert httpx.get(url).status_code == 200


def test_mixed_responses_have_both_forms_and_empty_strings(
    tuned: rig.Endpoint,
) -> None:
    tuned.judge("faults", {"response": "mixed", "fast-images": True})
    items = [item for _ in range(2) for item in ask(tuned, n=10).json()["data"]]
    assert all(set(item) == {"url", "b64_json", "revised_prompt"} for item in items)
    assert all(bool(item["url"]) != bool(item["b64_json"]) for item in items)
    assert 0 < sum(bool(item["url"]) for item in items) < 20


def test_a_dropped_connection_says_so_on_the_bill(tuned: rig.Endpoint) -> None:
    tuned.judge("faults", {"bill-drop": 1})
    with pytest.raises(httpx.TransportError):
        ask(tuned)
    row = tuned.bill()[-1]
    assert (row["status"], row["fault"]) == ("dropped", "bill-drop")


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


def test_a_top_up_lets_the_caller_go_on_and_outlives_the_process(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path, "--balance", "0.0377") as poor:
        assert ask(poor).status_code == 200
        assert error_of(ask(poor)) == (403, "insufficient_user_quota")
        assert poor.judge("topup", {"dollars": "0.08"}) == {"balance_micros": 80_000}
        assert ask(poor).status_code == 200
    with rig.endpoint(tmp_path, "--balance", "0.0377") as again:
        assert again.judge("stats")["balance_micros"] == 80_000 - rig.PRICE


def test_the_statistics_tell_what_the_bill_tells(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path, "--rate", "1", "--burst", "3") as endpoint:
        for prompt in ("once", "twice", "twice", "too much"):
            ask(endpoint, prompt=prompt)
        stats = endpoint.judge("stats")
        assert (stats["posts"], stats["billed"], stats["sent_429"]) == (4, 3, 1)
        assert stats["billed_micros"] == sum(row["micros"] for row in endpoint.judge("bill"))
        assert (stats["prompts_billed_twice"], stats["max_in_flight"]) == (1, 1)


def test_replayed_key_gets_the_saved_response_for_free(tmp_path: Path) -> None:
    switches = ("--idempotency", "replay")
    keyed = {**KEY, "Idempotency-Key": "k-1"}
    with rig.endpoint(tmp_path, *switches, "--bill-drop", "1") as lossy:
        with pytest.raises(httpx.TransportError):
            ask(lossy, headers=keyed)
        assert len(lossy.bill()) == 1
    with rig.endpoint(tmp_path, *switches, "--latency", "0.2") as endpoint:
        assert ask(endpoint, headers=keyed).json()["data"][0]["url"]
        reused = ask(endpoint, headers=keyed, prompt="something else")
        assert error_of(reused) == (400, "idempotency_key_reused")
        assert len(endpoint.bill()) == 1
        other = {**KEY, "Idempotency-Key": "k-2"}
        with ThreadPoolExecutor(8) as threads:
            responses = list(threads.map(lambda _: ask(endpoint, headers=other).content, range(8)))
        assert len(set(responses)) == 1
        assert len(endpoint.bill()) == 2


def test_without_replay_a_repeated_key_is_billed_again(served: rig.Endpoint) -> None:
    before = len(served.bill())
    keyed = {**KEY, "Idempotency-Key": "again"}
    assert ask(served, headers=keyed).content != ask(served, headers=keyed).content
    assert len(served.bill()) - before == 2


def test_nothing_is_answered_before_the_bill_is_synced(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    script = (
        "import os, pathlib\n"
        "from batchgen.simulator.__main__ import main\n"
        "sync, gate = os.fsync, pathlib.Path(os.environ['GATE'])\n"
        "def gated_sync(file):\n"
        "    while not gate.exists(): pass\n"
        "    sync(file)\n"
        "os.fsync = gated_sync\n"
        "main(['--stdin-lifeline', '--state', os.environ['STATE']])\n"
    )
    environment = {**os.environ, "GATE": str(gate), "STATE": str(tmp_path / "state")}
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    ) as process:
        assert process.stdout is not None
        endpoint = rig.Endpoint(
            json.loads(process.stdout.readline())["base_url"], tmp_path / "state", process
        )
        with ThreadPoolExecutor(1) as threads:
            response = threads.submit(ask, endpoint)
            try:
                while not endpoint.bill():  # written, and waiting for the disk
                    assert not response.done()
                assert endpoint.judge("bill") == []
                assert not response.done()
            finally:
                gate.touch()
            assert response.result().status_code == 200
        assert len(endpoint.judge("bill")) == 1
        process.communicate()


def test_bill_at_body_charges_even_if_the_endpoint_dies(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path, "--bill-at", "body", "--latency", "30") as endpoint:
        with ThreadPoolExecutor(1) as threads:
            response = ask_slowly(endpoint, threads)
            while not endpoint.judge("stats")["billed"]:
                assert not response.done()
            endpoint.process.kill()
            with pytest.raises(httpx.TransportError):
                response.result()
        assert len(endpoint.bill()) == 1


@pytest.mark.parametrize("end", ["lifeline", "sigterm"])
def test_what_is_in_flight_is_finished_and_billed_at_the_end(end: str, tmp_path: Path) -> None:
    with rig.endpoint(tmp_path, "--latency", "0.5") as endpoint:
        with ThreadPoolExecutor(1) as threads:
            response = ask_slowly(endpoint, threads)
            if end == "lifeline":
                assert endpoint.process.stdin is not None
                endpoint.process.stdin.close()
            else:
                endpoint.process.terminate()
            assert response.result().status_code == 200
        assert endpoint.process.wait(20) == (0 if end == "lifeline" else -signal.SIGTERM)
        assert len(endpoint.bill()) == 1


@given(lines=st.lists(st.text(max_size=20), min_size=1, max_size=5), data=st.data())
def test_a_torn_bill_keeps_every_whole_line(
    lines: list[str], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("torn") / "bill.jsonl"

    async def write(rows: list[str]) -> list[bytes]:
        journal = Journal(path)
        for row in rows:
            await journal.append(row)
        await journal.close()
        return journal.lines()

    asyncio.run(write(lines))
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    kept = whole[:cut].count(b"\n")
    assert [json.loads(line) for line in asyncio.run(write(["more"]))] == [*lines[:kept], "more"]


NAMES = ["model", "prompt", "n", "size", "quality", "background", "output_format", "style"]
MORE_NAMES = ["output_compression", "moderation", "stream", "partial_images", "user", "other"]
WORDS = ["gpt-image-2", "auto", "1024x1024", "low", "png", "webp", "opaque", "0", "1", "true", ""]
TEXTS = st.sampled_from(WORDS) | st.text(max_size=12)
JSON = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.lists(st.integers())


@given(
    fields=st.dictionaries(st.sampled_from(NAMES + MORE_NAMES), JSON | TEXTS),
    texts=st.dictionaries(st.sampled_from(NAMES + MORE_NAMES), TEXTS),
)
def test_any_fields_make_a_lawful_request_or_an_error(
    fields: dict[str, Any], texts: dict[str, str]
) -> None:
    named = {"model": "gpt-image-2", "prompt": PROMPT}
    check_lawful(lambda: rules.generation({**named, **fields}, block_word="never"))
    check_lawful(lambda: rules.edit({**named, **texts}, block_word="never"))


def check_lawful(read: Callable[[], rules.ImageRequest]) -> None:
    try:
        wanted = read()
    except ApiError as refused:
        status = refused.status
    else:
        status = 200
        assert 1 <= wanted.n <= 10
        assert wanted.output_format in ("png", "jpeg", "webp")
        assert rules.parse_size(wanted.size) == (wanted.width, wanted.height)
    assert status in (200, 400, 503)


def image(name: str, file_format: str, prompt: str = PROMPT) -> Drawing:
    return Drawing(
        name=name,
        prompt=prompt,
        model="gpt-image-2",
        quality="low",
        width=1024,
        height=640,
        output_format=file_format,
        compression=None,
        references=1,
    )


@given(prompt=st.text(min_size=1, max_size=300))
def test_any_prompt_can_be_drawn(prompt: str) -> None:
    with Image.open(io.BytesIO(draw(image("any-1", "jpeg", prompt)))) as drawn:
        assert drawn.size == (1024, 640)


@pytest.mark.parametrize("file_format", ["png", "jpeg", "webp"])
def test_fast_images_are_whole_and_never_the_same_file(file_format: str) -> None:
    files = {draw_fast(image(f"name-{number}", file_format)) for number in range(3)}
    assert len(files) == 3
    for file in files:
        with Image.open(io.BytesIO(file)) as drawn:
            drawn.load()
            assert (drawn.format, drawn.size) == (file_format.upper(), (1024, 640))


def test_faults_hit_their_share_and_depend_on_the_seed() -> None:
    rates = {Fault.BREAK: 0.2, Fault.BILL_DROP: 0.3, Fault.DOWNLOAD_ERROR: 0.5}
    drawn = [Behavior(seed=7, rates=rates).post_fault(number) for number in range(4_000)]
    assert drawn == [Behavior(seed=7, rates=rates).post_fault(n) for n in range(4_000)]
    assert drawn != [Behavior(seed=8, rates=rates).post_fault(n) for n in range(4_000)]
    assert 0.17 < drawn.count(Fault.BREAK) / 4_000 < 0.23
    assert 0.27 < drawn.count(Fault.BILL_DROP) / 4_000 < 0.33
    assert Fault.DOWNLOAD_ERROR not in drawn


@given(
    posts=st.lists(st.floats(0, 1 / len(POST_FAULTS)), min_size=len(POST_FAULTS)),
    downloads=st.lists(st.floats(0, 1 / len(DOWNLOAD_FAULTS)), min_size=len(DOWNLOAD_FAULTS)),
)
def test_a_behaviour_is_told_and_set_in_the_same_words(
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
