"""Videos as tasks: what is asked, and the states in their newer and older shapes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.job import Billed, ImageRef, OptionValue, Outcome
from batchgen.outcomes.classify import ErrorBody, Exchange, Reach, classify, classify_failed_task
from batchgen.providers.adapters.video import (
    TaskState,
    build_request,
    inline_base64,
    read_response,
    read_state,
)
from tests.support.adapters import ATTEMPT, BASE, JOB, sent

URL = "https://media.example/1.mp4"


@pytest.mark.anyio
async def test_a_creation_names_at_most_one_image_in_a_list() -> None:
    options: dict[str, OptionValue] = {"size": "1080P", "duration": 8}
    options["images"] = "https://images.example/1.png"
    request = build_request(replace(JOB, model="veo-3.1", options=options), ATTEMPT, BASE)
    assert (request.method, request.url) == ("POST", "https://api.example/v1/video/create")
    assert json.loads(await sent(request)) == {
        "model": "veo-3.1",
        "prompt": JOB.prompt,
        "size": "1080P",
        "duration": 8,
        "images": ["https://images.example/1.png"],
    }


@pytest.mark.parametrize(
    "document",
    [
        {"task_id": "a b/1", "status": "processing"},
        {"id": "a b/1", "status": "processing", "status_update_time": 1},
        {"code": "success", "message": "", "data": {"task_id": "a b/1", "status": "queued"}},
    ],
)
def test_task_is_an_image_to_poll_for(document: dict[str, Any]) -> None:
    response = read_response(json.dumps(document).encode(), {})
    assert response.images == (ImageRef(index=0, task="/video/query?id=a%20b%2F1"),)
    classification = classify(Exchange(reach=Reach.COMPLETE, status=200, headers={}), response)
    assert (classification.outcome, classification.billed) == (Outcome.OK, Billed.YES)
    with pytest.raises(ValueError, match="contains no video"):
        inline_base64(b"{}", {}, 0)


@pytest.mark.parametrize(
    ("status", "document", "outcome"),
    [
        (403, {"code": "quota_not_enough", "message": "no", "data": None}, Outcome.STOP),
        (500, {"code": "get_channel_failed", "message": "no", "data": None}, Outcome.REFUSED),
        (400, {"error": {"code": "x", "message": "bad"}}, Outcome.REFUSED),
        (200, {"code": "sensitive_words_detected", "message": "no"}, Outcome.BLOCKED),
        (200, {"status": "processing"}, Outcome.SPOILED),
    ],
)
def test_failed_creation_is_classified(
    status: int, document: dict[str, Any], outcome: Outcome
) -> None:
    response = read_response(json.dumps(document).encode(), {})
    exchange = Exchange(reach=Reach.COMPLETE, status=status, headers={})
    assert classify(exchange, response).outcome is outcome


@pytest.mark.parametrize(
    ("document", "state"),
    [
        ({"code": "success", "data": {"status": "queued"}}, TaskState()),
        ({"code": "success", "data": {"status": "IN_PROGRESS", "url": ""}}, TaskState()),
        ({"id": "1", "status": "processing"}, TaskState()),
        ({"data": {"status": "SUCCESS", "artifact_url": URL, "url": "x"}}, TaskState(url=URL)),
        ({"data": {"status": "success", "url": URL}}, TaskState(url=URL)),
        ({"id": "1", "status": "completed", "video_url": URL}, TaskState(url=URL)),
        (
            {"data": {"status": "FAILURE", "fail_reason": "the safety system"}},
            TaskState(failed=ErrorBody(code="task_failed", message="the safety system")),
        ),
        (
            {"status": "failed", "error": {"code": "c", "message": "m"}},
            TaskState(failed=ErrorBody(code="c", message="m")),
        ),
        ({"code": "task_not_exist", "message": "no", "data": None}, TaskState(unknown=True)),
    ],
)
def test_a_state_is_read_in_each_shape(document: dict[str, Any], state: TaskState) -> None:
    assert read_state(json.dumps(document).encode()) == state


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"<html>", b'{"data": {"status": "SUCCESS"}}', b'{"code": "x", "message": "y"}'],
)
def test_body_without_a_state_raises(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_state(body)


@given(
    st.dictionaries(
        st.sampled_from(["data", "status", "url", "code", "message", "error", "task_id"]),
        st.none() | st.text() | st.integers() | st.dictionaries(st.text(max_size=6), st.text()),
    )
)
def test_any_document_is_a_response_and_a_state_or_none(document: dict[str, Any]) -> None:
    body = json.dumps(document).encode()
    read_response(body, {})
    try:
        read_state(body)
    except ValueError:
        return


@pytest.mark.parametrize(
    ("error", "outcome", "code"),
    [
        (ErrorBody(code="task_failed", message="upstream"), Outcome.REFUSED, "task_failed"),
        (
            ErrorBody(code="task_failed", message="our safety system"),
            Outcome.BLOCKED,
            "task_failed",
        ),
        (ErrorBody(code="content_filter"), Outcome.BLOCKED, "content_filter"),
        (ErrorBody(code="insufficient_quota"), Outcome.REFUSED, "no_money"),
    ],
)
def test_a_failed_task_is_refused_or_blocked(error: ErrorBody, outcome: Outcome, code: str) -> None:
    classification = classify_failed_task(error, Billed.MAYBE)
    assert (classification.outcome, classification.billed, classification.code) == (
        outcome,
        Billed.MAYBE,
        code,
    )
