"""Video tasks of the embedded endpoint: accepted, billed, worked off, refunded, never forgotten."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from batchgen.providers.crazyrouter import PRICES
from batchgen.providers.price_list import read_price_list
from batchgen.simulator.billing import Purchase
from batchgen.simulator.errors import ApiError
from batchgen.simulator.models import veo
from batchgen.simulator.mp4 import still_video
from batchgen.simulator.tasks import Task
from tests.support import rig
from tests.support.endpoint import KEY

URL = "https://images.example/mug.png"


SWITCHES = ()


def create(endpoint: rig.Endpoint, key: str | None = None, **body: Any) -> httpx.Response:
    fields = {"model": "veo-3.1-fast", "prompt": "A mug turns", **body}
    headers = KEY if key is None else {**KEY, "Idempotency-Key": key}
    return httpx.post(f"{endpoint.base_url}/video/create", json=fields, headers=headers, timeout=60)


def query(endpoint: rig.Endpoint, task_id: str, name: str = "id") -> httpx.Response:
    return httpx.get(
        f"{endpoint.base_url}/video/query", params={name: task_id}, headers=KEY, timeout=60
    )


def statuses(endpoint: rig.Endpoint, task_id: str) -> tuple[list[str], dict[str, Any]]:
    """The statuses that a task goes through, and all that is said at its end."""
    seen: list[str] = []
    while True:
        response = query(endpoint, task_id).json()
        data: dict[str, Any] = response.get("data", response)
        if data["status"] not in seen:
            seen.append(data["status"])
        if data["status"] in ("SUCCESS", "completed", "failed"):
            return seen, data


def check_video(content: bytes, size: tuple[int, int], seconds: int) -> None:
    """Check that the file matches the request, and that its one sample can be decoded."""
    found = rig.boxes(content)
    assert content[4:12] == b"ftypisom"
    timescale, duration = struct.unpack_from(">2I", found[b"mvhd"], 12)
    assert duration == seconds * timescale
    assert struct.unpack_from(">I", found[b"tkhd"], 20)[0] == duration
    assert struct.unpack_from(">2I", found[b"mdhd"], 12) == (timescale, duration)
    assert struct.unpack_from(">2I", found[b"tkhd"], 76) == (size[0] << 16, size[1] << 16)
    assert struct.unpack_from(">2H", found[b"stsd"], 8 + 8 + 24) == size
    assert struct.unpack_from(">3I", found[b"stts"], 4) == (1, 1, duration)
    offset = struct.unpack_from(">I", found[b"stco"], 8)[0]
    length = struct.unpack_from(">I", found[b"stsz"], 12)[0]
    sample = content[offset : offset + length]
    assert sample == found[b"mdat"]
    with Image.open(io.BytesIO(sample)) as frame:
        frame.load()
        assert (frame.format, frame.size) == ("JPEG", size)


VIDEOS: list[tuple[dict[str, Any], tuple[int, int], int]] = [
    ({}, (1280, 720), 800_000),
    ({"duration": 4, "size": "1080P"}, (1920, 1080), 400_000),
    ({"duration": 5, "size": "720p", "aspect_ratio": "9:16"}, (720, 1280), 500_000),
    ({"duration": 6, "size": "1280x720", "images": [URL]}, (1280, 720), 600_000),
    ({"duration": 6, "size": "1080x1920"}, (1080, 1920), 600_000),
    ({"model": "veo-3.1", "duration": 8, "aspect_ratio": "16:9"}, (1280, 720), 1_600_000),
]


@pytest.mark.parametrize(("body", "size", "micros"), VIDEOS)
def test_video_has_requested_size_and_listed_price(
    body: dict[str, Any], size: tuple[int, int], micros: int, served: rig.Endpoint
) -> None:
    created = create(served, **body).json()
    assert created["status"] == "processing"
    row = served.bill()[-1]
    assert (row["micros"], row["kind"], row["status"], row["n"]) == (micros, "charge", 200, 1)
    _, data = statuses(served, created["task_id"])
    assert data["url"] == data["artifact_url"]
    file = httpx.get(data["url"])
    assert file.headers["content-type"] == "video/mp4"
    check_video(file.content, size, body.get("duration", 8))

    options: dict[str, Any] = {name: body[name] for name in ("size", "duration") if name in body}
    model, references = body.get("model", "veo-3.1-fast"), len(body.get("images", []))
    listed = httpx.get(served.base_url.removesuffix("/v1") + "/api/pricing").content
    prices = read_price_list(listed, source="the endpoint", day=date(2026, 11, 22))
    span = prices.span(model, options, references)
    assert span is not None
    assert micros == span.least, "what an open option makes dearer is not made unless it is set"
    ours = PRICES.span(model, options, references)
    assert ours is not None
    assert micros == ours.least


@pytest.mark.parametrize(
    ("now", "state"),
    [
        (100.0, ("queued", 100.0)),
        (109.9, ("queued", 100.0)),
        (110.0, ("processing", 110.0)),
        (999.0, ("processing", 110.0)),
    ],
)
def test_a_third_of_a_task_is_its_queue(now: float, state: tuple[str, float]) -> None:
    purchase = Purchase(
        request_id="r",
        idempotency_key=None,
        client_request_id=None,
        prompt="a mug",
        model="veo-3.1-fast",
        n=1,
        fault=None,
    )
    task = Task(
        purchase=purchase,
        micros=1,
        width=1280,
        height=720,
        seconds=8,
        created_at=100.0,
        due_at=130.0,
        fault=None,
    )
    assert task.progress_at(now) == state


def test_a_task_is_queued_and_another_is_done(tuned: rig.Endpoint) -> None:
    before = tuned.judge("stats")
    tuned.judge("faults", {"task-latency": 600})
    task_id = create(tuned).json()["task_id"]
    assert tuned.judge("stats")["tasks_open"] == before["tasks_open"] + 1
    first = query(tuned, task_id, "task_id").json()
    assert first == {
        "code": "success",
        "message": "",
        "data": {"task_id": task_id, "status": "queued", "url": "", "artifact_url": ""},
    }
    tuned.judge("faults", {"task-latency": 0})
    seen, _ = statuses(tuned, create(tuned).json()["task_id"])
    assert seen[-1] == "SUCCESS"
    assert query(tuned, task_id).json()["data"]["status"] == "queued"
    after = tuned.judge("stats")
    assert after["tasks_open"] == before["tasks_open"] + 1  # the first one
    assert after["polls"] > before["polls"] + 2


def test_the_older_shape_of_responses_can_be_chosen(tuned: rig.Endpoint) -> None:
    tuned.judge("faults", {"task-response": "old", "task-latency": 600})
    created = create(tuned).json()
    assert set(created) == {"id", "status", "status_update_time"}
    assert query(tuned, created["id"]).json()["status"] == "processing"
    tuned.judge("faults", {"task-latency": 0})
    seen, last = statuses(tuned, create(tuned).json()["id"])
    assert seen[-1] == "completed"
    assert set(last) == {"id", "status", "status_update_time", "video_url"}
    check_video(httpx.get(last["video_url"]).content, (1280, 720), 8)


def test_a_task_that_fails_is_refunded_once(tuned: rig.Endpoint) -> None:
    before = tuned.judge("stats")
    start = len(tuned.bill())
    tuned.judge("faults", {"task-fail": 1})
    created = create(tuned, key="mine-1", prompt="A mug that fails").json()
    _, data = statuses(tuned, created["task_id"])
    assert data["fail_reason"]
    assert data["url"] == ""
    charge, refund = tuned.bill()[start:]
    assert (charge["kind"], charge["micros"], charge["fault"]) == ("charge", 800_000, None)
    assert (refund["kind"], refund["micros"]) == ("refund", -800_000)
    assert (refund["status"], refund["fault"]) == ("refunded", "task-fail")
    for name in ("request_id", "idempotency_key", "prompt", "model", "n"):
        assert charge[name] == refund[name]
    after = tuned.judge("stats")
    assert after["billed_micros"] == before["billed_micros"]
    assert after["billed"] == before["billed"]


def test_a_task_may_fail_and_stay_on_the_bill(tuned: rig.Endpoint) -> None:
    start = len(tuned.bill())
    tuned.judge("faults", {"bill-task-fail": 1})
    seen, _ = statuses(tuned, create(tuned).json()["task_id"])
    assert seen[-1] == "failed"
    assert [row["kind"] for row in tuned.bill()[start:]] == ["charge"]


def test_refund_has_a_row_of_its_own_type_in_the_log(tuned: rig.Endpoint) -> None:
    tuned.judge("faults", {"task-fail": 1})
    created = create(tuned)
    statuses(tuned, created.json()["task_id"])
    url = tuned.base_url.removesuffix("/v1") + "/api/log/self"
    headers = {"Authorization": "Bearer token-of-these-tests", "New-Api-User": "7"}
    response = httpx.get(url, params={"page_size": 100}, headers=headers).json()
    request_id = created.headers["x-oneapi-request-id"]
    found = [row for row in response["data"]["items"] if row["other"]["request_id"] == request_id]
    assert sorted((row["type"], row["quota"]) for row in found) == [(2, 400_000), (6, 400_000)]


def test_a_refund_can_be_spent_again(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path, "--balance", "0.80", "--task-fail", "1") as poor:
        statuses(poor, create(poor).json()["task_id"])
        assert poor.judge("stats")["balance_micros"] == 800_000
        statuses(poor, create(poor).json()["task_id"])
        assert poor.judge("stats")["prompts_billed_twice"] == 0
    with rig.endpoint(tmp_path, "--balance", "0.80") as again:
        assert again.judge("stats")["balance_micros"] == 800_000
        assert create(again).status_code == 200
        refused = create(again)
        assert refused.status_code == 403
        assert refused.json()["code"] == "quota_not_enough"
        assert refused.json()["data"] is None


def test_a_bill_with_a_refund_satisfies_the_judge_of_other_tests() -> None:
    rows = [{"kind": "charge", "request_id": "r1", "idempotency_key": "a", "micros": 5}]
    assert rig.charges(rows) == {"a": 1}
    rows.append({"kind": "refund", "request_id": "r1", "idempotency_key": "a", "micros": -5})
    assert rig.charges(rows) == {}


def test_tasks_outlive_a_killed_endpoint(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path, "--task-latency", "600") as first:
        late = create(first).json()["task_id"]
        first.judge("faults", {"task-latency": 0})
        done = create(first).json()["task_id"]
        statuses(first, done)
        first.judge("faults", {"task-latency": 0.5, "task-fail": 1})
        failing = create(first).json()["task_id"]
        first.process.kill()
        first.process.wait()
    with rig.endpoint(tmp_path) as second:
        assert query(second, late).json()["data"]["status"] == "queued"
        _, data = statuses(second, done)
        assert data["url"].startswith(second.base_url.removesuffix("/v1"))
        check_video(httpx.get(data["url"]).content, (1280, 720), 8)
        seen, _ = statuses(second, failing)
        assert seen[-1] == "failed"
        assert [row["kind"] for row in second.bill()] == ["charge"] * 3 + ["refund"]
    with rig.endpoint(tmp_path) as third:
        assert query(third, failing).json()["data"]["status"] == "failed"
        assert len(third.bill()) == 4


def test_a_refund_that_was_made_before_a_kill_is_not_made_again(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path, "--task-fail", "1") as first:
        task_id = create(first).json()["task_id"]
        statuses(first, task_id)
    journal = tmp_path / "tasks.jsonl"
    created, _ = journal.read_text(encoding="utf-8").splitlines(keepends=True)
    journal.write_text(created, encoding="utf-8")  # as if killed before the end was written
    with rig.endpoint(tmp_path) as second:
        assert statuses(second, task_id)[0][-1] == "failed"
        assert [row["kind"] for row in second.bill()] == ["charge", "refund"]


REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"prompt": ""}, 400, "invalid_request"),
    ({"size": "480P"}, 400, "invalid_request"),
    ({"size": "1280x720", "aspect_ratio": "9:16"}, 400, "invalid_request"),
    ({"aspect_ratio": "1:1"}, 400, "invalid_request"),
    ({"duration": 0}, 400, "invalid_request"),
    ({"duration": 9}, 400, "invalid_request"),
    ({"duration": "8"}, 400, "invalid_request"),
    ({"images": [URL, URL]}, 400, "invalid_request"),
    ({"images": ["data:image/png;base64,AAAA"]}, 400, "invalid_request"),
    ({"prompt": "a forbidden-word"}, 400, "moderation_blocked"),
    ({"model": "veo-9"}, 503, "get_channel_failed"),
    ({"model": "gpt-image-2"}, 503, "get_channel_failed"),
]


@pytest.mark.parametrize(("body", "status", "code"), REFUSED)
def test_refused_task_has_the_error_of_tasks_and_is_free(
    body: dict[str, Any], status: int, code: str, served: rig.Endpoint
) -> None:
    before = len(served.bill())
    refused = create(served, **body)
    assert refused.status_code == status
    error = refused.json()
    assert set(error) == {"code", "message", "data"}
    assert (error["code"], error["data"]) == (code, None)
    assert len(served.bill()) == before


def test_a_task_that_does_not_exist_is_said_so(served: rig.Endpoint) -> None:
    response = query(served, "task_nobodys")
    assert response.status_code == 400
    assert response.json()["code"] == "task_not_exist"


def test_keys_are_checked_by_the_gateway_in_its_own_words(served: rig.Endpoint) -> None:
    for response in (
        httpx.post(f"{served.base_url}/video/create", json={"model": "veo-3.1"}),
        httpx.get(f"{served.base_url}/video/query", params={"id": "x"}),
    ):
        assert response.status_code == 401
        assert response.json()["error"]["type"] == "new_api_error"


FAULTS: dict[str, tuple[int | None, int, int]] = {
    "refuse": (400, 0, 0),
    "throttle": (429, 0, 0),
    "overload": (503, 0, 0),
    "error": (500, 0, 0),
    "break": (None, 0, 0),
    "block": (400, 0, 0),
    "bill-empty": (200, 1, 0),
    "bill-error": (500, 1, 1),
    "bill-drop": (None, 1, 1),
    "bill-gateway-timeout": (504, 1, 1),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_does_what_it_says_to_response_bill_and_tasks(
    fault: str, tuned: rig.Endpoint
) -> None:
    status, charges, tasks = FAULTS[fault]
    journal = tuned.state / "tasks.jsonl"
    bill, started = len(tuned.bill()), len(journal.read_text("utf-8").splitlines())
    tuned.judge("faults", {fault: 1, "task-latency": 600})
    if status is None:
        with pytest.raises(httpx.TransportError):
            create(tuned)
    else:
        response = create(tuned)
        assert response.status_code == status
        assert b"task_" not in response.content
    assert len(tuned.bill()) - bill == charges
    rows = [json.loads(line) for line in journal.read_text("utf-8").splitlines()]
    assert len([row for row in rows[started:] if "task" in row]) == tasks


def test_a_truncated_video_has_no_end(tuned: rig.Endpoint) -> None:
    tuned.judge("faults", {"bill-truncated": 1})
    _, data = statuses(tuned, create(tuned).json()["task_id"])
    with pytest.raises((AssertionError, struct.error)):
        rig.boxes(httpx.get(data["url"]).content)


def test_file_supports_ranges_and_download_faults(tuned: rig.Endpoint) -> None:
    _, data = statuses(tuned, create(tuned).json()["task_id"])
    part = httpx.get(data["url"], headers={"Range": "bytes=4-11"})
    assert (part.status_code, part.content) == (206, b"ftypisom")
    tuned.judge("faults", {"download-error": 1})
    assert httpx.get(data["url"]).status_code == 503


def test_a_replayed_key_makes_no_second_task(tuned: rig.Endpoint) -> None:
    tuned.judge("faults", {"idempotency": "replay"})
    before = len(tuned.bill())
    assert create(tuned, key="video-1").json() == create(tuned, key="video-1").json()
    assert len(tuned.bill()) == before + 1


def jpeg(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "JPEG")
    return buffer.getvalue()


@given(width=st.integers(1, 64), height=st.integers(1, 64), seconds=st.integers(1, 3600))
def test_any_still_is_a_whole_video(width: int, height: int, seconds: int) -> None:
    content = still_video(jpeg(width, height), width=width, height=height, seconds=seconds)
    check_video(content, (width, height), seconds)


NAMES = ["model", "prompt", "aspect_ratio", "size", "images", "duration", "other"]
WORDS = ["veo-3.1", "16:9", "9:16", "720P", "4K", "1280x720", "", URL]
VALUES = st.none() | st.booleans() | st.integers() | st.sampled_from(WORDS) | st.text(max_size=8)


@given(
    fields=st.dictionaries(st.sampled_from(NAMES), VALUES | st.lists(VALUES, max_size=2)),
)
def test_any_fields_make_a_priced_task_or_an_error(fields: Mapping[str, object]) -> None:
    try:
        wanted = veo.read({"model": "veo-3.1", "prompt": "A mug", **fields}, block_word="never")
    except ApiError as refused:
        status = refused.status
    else:
        status = 200
        assert wanted.micros >= 200_000
        assert (wanted.width * wanted.height) in (1280 * 720, 1920 * 1080, 3840 * 2160)
    assert status in (200, 400, 503)
