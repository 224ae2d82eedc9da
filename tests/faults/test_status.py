"""Whole runs against every kind of refusal: what is asked again, what stops, what costs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import anyio.to_thread
import pytest

from tests.faults.gateway import gateway, response
from tests.support import rig, wire
from tests.support.responses import RED, encoded

pytestmark = pytest.mark.anyio

GOOD = response({"b64_json": encoded(RED)})
PAGE = b"<html><title>Bad gateway</title></html>"


def error(status: str, code: str = "", kind: str = "new_api_error", **headers: str) -> bytes:
    """A refusal in the gateway's own envelope."""
    body = {"error": {"message": "no", "type": kind, "param": "", "code": code}}
    return wire.response(json.dumps(body).encode(), status, **headers)


def page(status: str, **headers: str) -> bytes:
    """A refusal by something in front of the gateway."""
    return wire.response(PAGE, status, Content_Type="text/html", **headers)


HELD = {
    "H01": (error("400 Bad Request", "invalid_value"), "refused", "failed"),
    "H02": (error("400 Bad Request", "moderation_blocked"), "blocked", "blocked"),
    "H08": (error("408 Request Timeout"), "ambiguous", "uncertain"),
    "H09": (error("409 Conflict", "conflict"), "refused", "failed"),
    "H11": (error("413 Too Large", "read_request_body_failed"), "refused", "failed"),
    "H12": (error("422 Unprocessable"), "refused", "failed"),
    "H22": (page("500 Internal Server Error"), "ambiguous", "uncertain"),
    "H22 empty": (wire.response(b"", "500 Internal Server Error"), "ambiguous", "uncertain"),
    "H23": (page("502 Bad Gateway"), "ambiguous", "uncertain"),
    "H25": (error("504 Gateway Timeout", "timeout"), "ambiguous", "uncertain"),
    "H26 520": (page("520 Unknown"), "ambiguous", "uncertain"),
    "H26 522": (page("522 Timed Out"), "ambiguous", "uncertain"),
    "H26 524": (page("524 Timed Out"), "ambiguous", "uncertain"),
    "H30": (response(status="202 Accepted", task_id="task-7"), "ambiguous", "uncertain"),
    "H31": (b"HTTP/1.1 204 No Content\r\n\r\n", "ambiguous", "uncertain"),
    "H31 empty": (wire.response(b""), "ambiguous", "uncertain"),
    "H32 418": (page("418 Teapot"), "refused", "failed"),
    "H32 451": (page("451 Unavailable"), "blocked", "blocked"),
    "H32 599": (page("599 Odd"), "ambiguous", "uncertain"),
    "H32 999": (page("999 Odd"), "ambiguous", "uncertain"),
    "H35 504": (page("504 Gateway Timeout", X_Should_Retry="true"), "ambiguous", "uncertain"),
    "B01": (page("200 OK"), "ambiguous", "uncertain"),
    "B02": (error("200 OK", "moderation_blocked"), "blocked", "blocked"),
    "B03": (wire.response(b'{"data": [{"url": "ht'), "ambiguous", "uncertain"),
    "B04": (wire.response(b"[1, 2]"), "spoiled", "failed"),
    "B05": (response(), "spoiled", "failed"),
    "B06": (response({}), "spoiled", "failed"),
    "B08": (response({"url": "", "b64_json": None}), "spoiled", "failed"),
    "B25": (wire.response(b"[" * 100_000 + b"]" * 100_000), "ambiguous", "uncertain"),
}
BILLED = {"refused": "no", "blocked": "no", "ambiguous": "maybe", "spoiled": "yes"}


@pytest.mark.fault("H01", "H02", "H08", "H09", "H11", "H12", "H22", "H23", "H25", "H26", "H30")
@pytest.mark.fault("H31", "H32", "H35", "B01", "B02", "B03", "B04", "B05", "B06", "B08", "B25")
async def test_final_status_is_requested_once_at_its_possible_cost(
    tmp_path: Path,
) -> None:
    """A good response comes between any two of them, so that the breaker stays closed."""
    rows = list(HELD.values())
    async with gateway() as provider:
        provider.reply = lambda number: GOOD if number % 2 else rows[number // 2][0]
        await provider.run(tmp_path, jobs=2 * len(rows), code=1)
        assert len(provider.posts) == 2 * len(rows)
    sql = (
        "SELECT outcome, billed, state, reason FROM attempts JOIN jobs ON jobs.id = job_id"
        " ORDER BY jobs.id"
    )
    found = rig.query(tmp_path / "batchgen.db", sql)[::2]
    assert [tuple(row)[:3] for row in found] == [
        (outcome, BILLED[outcome], state) for _, outcome, state in rows
    ]
    assert "task-7" in found[list(HELD).index("H30")]["reason"]


STOPPING = {
    "401": error("401 Unauthorized", "invalid_api_key"),
    "402": error("402 Payment Required"),
    "403 no money": error("403 Forbidden", "insufficient_user_quota"),
    "404 model": error("404 Not Found", "model_not_found"),
    "404 path": wire.response(b"404 page not found", "404 Not Found"),
    "405": page("405 Method Not Allowed"),
    "415": page("415 Unsupported Media Type"),
    "501": error("501 Not Implemented", "api_not_implemented"),
    "429 for good": error("429 Slow Down", X_Should_Retry="false"),
    "429 no money": error("429 Too Many Requests", "credit_balance_exhausted"),
}


@pytest.mark.parametrize("which", STOPPING)
@pytest.mark.fault("H03", "H04", "H05", "H06", "H07", "H20", "A02")
async def test_status_that_would_end_all_jobs_stops_the_run(which: str, tmp_path: Path) -> None:
    """Also when it comes after successes; only what is in flight by then is still sent."""
    good = 4
    async with gateway() as provider:
        provider.reply = lambda number: GOOD if number < good else STOPPING[which]
        limits = '{concurrency: 2, max_waste: "0"}'
        await provider.run(tmp_path, jobs=30, code=3, limits=limits)
        assert len(provider.posts) <= good + 2
    found = await anyio.to_thread.run_sync(rig.status, tmp_path)
    assert (found["jobs"]["done"], found["jobs"]["pending"]) == (good, 26)
    assert found["attempts"]["billed"] == good
    assert found["attempts"]["maybe"] == 0
    assert found["stopped"]


AGAIN = {
    "H13": page("425 Too Early"),
    "H14": error("429 Too Many Requests", "rate_limit_exceeded"),
    "H15": error("429 Too Many Requests", "rate_limit_exceeded", Retry_After="1"),
    "H17": error("429 Too Many Requests", "rate_limit_exceeded", retry_after_ms="150"),
    "H18": error("429 Too Many Requests", "rate_limit_exceeded", Retry_After="1e309"),
    "H21": error("500 Internal Server Error", "do_request_failed"),
    "H23": error("502 Bad Gateway", "bad_response"),
    "H24": wire.response(b"queue full", "503 Service Unavailable", Retry_After="1"),
    "H27 521": page("521 Down"),
    "H27 523": page("523 Unreachable"),
    "H27 525": page("525 Handshake"),
    "H27 526": page("526 Certificate"),
    "H28": page("529 Overloaded"),
}


@pytest.mark.fault("H13", "H14", "H15", "H17", "H18", "H21", "H23", "H24", "H27", "H28")
async def test_temporary_status_is_retried_for_free(
    tmp_path: Path,
) -> None:
    rows = list(AGAIN.values())
    first: dict[bytes, bytes] = {}

    async with gateway() as provider:

        def reply(number: int) -> bytes:
            prompt = provider.posts[number].body
            if prompt in first:
                return GOOD
            first[prompt] = rows[len(first)]
            return first[prompt]

        provider.reply = reply
        limits = '{concurrency: 13, max_waste: "0"}'
        await provider.run(tmp_path, jobs=len(rows), limits=limits)
        assert len(provider.posts) == 2 * len(rows)
    found = await anyio.to_thread.run_sync(rig.status, tmp_path)
    assert found["jobs"]["done"] == len(rows)
    assert found["attempts"]["billed"] == found["attempts"]["not_billed"] == len(rows)
    assert found["attempts"]["maybe"] == 0


@pytest.mark.fault("H34")
async def test_gateway_with_errors_gets_two_requests_per_job_at_most(
    tmp_path: Path,
) -> None:
    jobs = 12
    async with gateway() as provider:
        provider.reply = lambda number: AGAIN["H21"] if number % 2 else GOOD
        limits = '{concurrency: 4, max_waste: "0"}'
        await provider.run(tmp_path, jobs=jobs, code=None, limits=limits)
        bodies = [request.body for request in provider.posts]
    assert len(set(bodies)) == jobs
    assert max(map(bodies.count, bodies)) <= 2
    found = await anyio.to_thread.run_sync(rig.status, tmp_path)
    assert found["attempts"]["maybe"] == 0
    assert found["attempts"]["billed"] == found["jobs"]["done"] >= jobs // 2


@pytest.mark.fault("H16", "H19")
@pytest.mark.parametrize(
    "headers",
    [
        {"Retry_After": "86400"},
        {
            "Date": "Sun, 22 Nov 2026 10:00:00 GMT",
            "Retry_After": "Mon, 23 Nov 2026 10:00:00 GMT",
        },
        {"Retry_After": "Fri, 31 Dec 9999 23:59:59 GMT"},
    ],
    ids=["seconds", "date", "forever"],
)
async def test_wait_of_a_day_stops_the_run_at_once(headers: dict[str, str], tmp_path: Path) -> None:
    async with gateway() as provider:
        provider.reply = lambda _: error("429 Too Many Requests", "slow_down", **headers)
        done = await provider.run(tmp_path, jobs=3, code=3)
        assert len(provider.posts) == 1
    assert re.search(r"a pause of more than an hour \([\d,]+h 00m\); run again later", done.stdout)
    found = await anyio.to_thread.run_sync(rig.status, tmp_path)
    assert found["jobs"]["pending"] == 3


STREAM = b'event: image_generation.completed\ndata: {"type": "image_generation.completed", '


@pytest.mark.fault("H29")
@pytest.mark.parametrize(
    ("events", "state"),
    [
        (STREAM + b'"b64_json": "%s"}\n\n' % encoded(RED).encode(), "done"),
        (b'data: {"type": "ping"}\n\n', "uncertain"),
    ],
    ids=["with its image", "without"],
)
async def test_unrequested_stream_is_read_or_uncertain(
    events: bytes, state: str, tmp_path: Path
) -> None:
    async with gateway() as provider:
        provider.reply = lambda _: wire.response(events, Content_Type="text/event-stream")
        await provider.run(tmp_path, code=None)
    found = await anyio.to_thread.run_sync(rig.status, tmp_path)
    assert found["jobs"][state] == 1
    kept = rig.spooled(tmp_path)
    assert len(kept) == (state == "uncertain")


@pytest.mark.fault("H05")
async def test_a_firewalls_page_makes_everybody_wait_and_costs_nothing(tmp_path: Path) -> None:
    async with gateway() as provider:
        provider.reply = lambda number: GOOD if number else page("403 Forbidden")
        await provider.run(tmp_path, jobs=2)
        assert len(provider.posts) == 3
    found = await anyio.to_thread.run_sync(rig.status, tmp_path)
    assert found["attempts"] == {"total": 3, "billed": 2, "maybe": 0, "not_billed": 1}
