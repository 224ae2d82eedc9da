"""The states of tasks, which all readers of a response find in the same places."""

from __future__ import annotations

import json
from typing import Any

import pytest

from batchgen.outcomes.classify import ErrorBody
from batchgen.outcomes.exchange import Task
from batchgen.providers.adapters import images, video
from batchgen.providers.adapters.task_states import DONE, FAILED, RUNNING, status_of
from batchgen.providers.adapters.video import TaskState, read_state
from tests.support.adapters import URL

FIELDS = ("status", "task_status", "taskStatus", "state")
HOLDERS = ("", "data", "output", "result", "response", "task")


def document(holder: str, **fields: object) -> dict[str, Any]:
    return {"code": 200, holder: fields} if holder else dict(fields)


def body(found: dict[str, Any]) -> bytes:
    return json.dumps(found).encode()


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("field", FIELDS)
def test_every_reader_finds_the_state_of_a_task(holder: str, field: str) -> None:
    for word in sorted(RUNNING):
        found = document(holder, **{field: word.upper()}, id="t-1", url=URL, image_url=URL)
        response = images.read_response(body(found), {})
        assert response.images == ()
        assert response.task == Task(id="t-1")
        assert read_state(body(found)) == TaskState()
    for word in sorted(DONE):
        found = document(holder, **{field: word}, id="t-1", video_url=URL)
        assert read_state(body(found)) == TaskState(url=URL)
    for word in sorted(FAILED):
        found = document(holder, **{field: word}, id="t-1", url=URL)
        assert images.read_response(body(found), {}).images == ()
        assert read_state(body(found)).failed is not None


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("name", ["task_id", "taskId", "id"])
def test_created_video_task_is_found(holder: str, name: str) -> None:
    (image,) = video.read_response(body(document(holder, **{name: "t 1"})), {}).images
    assert image.task == "/video/query?id=t%201"


@pytest.mark.parametrize(
    "found",
    [
        {"status": "completed", "result": {"video_url": URL}},
        {"data": [{"status": "success", "url": URL}]},
        {"status": "success", "data": {"task_status": "succeed", "video_url": URL}},
        {"data": {"status": "completed", "images": [URL]}, "url": "https://api.example/tasks/1"},
    ],
)
def test_result_of_a_finished_task_is_found(found: dict[str, Any]) -> None:
    assert read_state(body(found)) == TaskState(url=URL)


def test_error_next_to_a_failed_task_is_read() -> None:
    found = {"error": {"code": "content_filter"}, "data": {"status": "failed"}}
    assert read_state(body(found)).failed == ErrorBody(code="content_filter")


@pytest.mark.parametrize("path", ["data", "images", "results", "output"])
def test_unfinished_element_has_no_image(path: str) -> None:
    found = {path: [{"status": "failed", "url": URL}, {"status": "succeeded", "url": URL}]}
    (image,) = images.read_response(body(found), {}).images
    assert image.url == URL
    assert images.read_response(body({path: [found[path][0]]}), {}).images == ()


@pytest.mark.parametrize(
    ("holder", "status"),
    [
        ({"status": 200, "task_status": "RUNNING"}, "running"),
        ({"status": "success", "taskStatus": "waiting"}, "waiting"),
        ({"status": "200", "state": " Ready "}, "ready"),
        ({"status": 2}, "2"),
        ({"status": True, "state": None}, ""),
    ],
)
def test_status_of_the_task_wins_over_that_of_http(holder: dict[str, Any], status: str) -> None:
    assert status_of(holder) == status
