"""Polling the tasks of paid images: when a task counts as unknown, and where its result is."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import cast

import pytest

from batchgen.engine.video_tasks import (
    POLL_S,
    TaskDone,
    TaskFailed,
    TaskPoller,
    TaskResult,
    TaskUnresolved,
)
from batchgen.http.client import ApiClient, Document, NoDocument
from tests.support.adapters import BASE

IMAGE_TASK = f"{BASE}/tasks/t1"
VIDEO_TASK = f"{BASE}/video/query?id=t1"
RUNNING = Document(status=200, body=b'{"status": "processing"}')
GONE = Document(status=404, body=b"no such page")
UNKNOWN = Document(status=200, body=b'{"code": "task_not_exist"}')
DOWN = NoDocument("no route to host")
Reply = Document | NoDocument


class _Replies:
    """A client that returns these replies, and repeats the last."""

    def __init__(self, replies: Iterable[Reply]) -> None:
        self.left = list(replies)

    async def fetch_document(self, url: str) -> Document:
        reply = self.left.pop(0) if self.left[1:] else self.left[0]
        if isinstance(reply, NoDocument):
            raise reply
        return reply


class _Polled:
    """A poller, and how long it has waited."""

    def __init__(self, *replies: Reply) -> None:
        self.waited_s = 0.0
        client = cast(ApiClient, _Replies(replies))
        self.poller = TaskPoller(client, BASE, pause=self._pause, poll_s=POLL_S)

    async def _pause(self, seconds: float) -> bool:
        self.waited_s += seconds
        return True

    async def result(self, task: str = IMAGE_TASK) -> TaskResult:
        return await self.poller.poll_until_done(task)


def done(url: str) -> Document:
    return Document(status=200, body=json.dumps({"status": "done", "url": url}).encode())


@pytest.mark.anyio
@pytest.mark.parametrize("reply", [GONE, UNKNOWN])
async def test_unknown_image_task_is_polled_for_half_a_minute(reply: Document) -> None:
    polled = _Polled(reply)
    result = await polled.result()
    assert isinstance(result, TaskUnresolved)
    assert result.unknown
    assert polled.waited_s >= 30


@pytest.mark.anyio
@pytest.mark.parametrize("reply", [GONE, UNKNOWN])
@pytest.mark.parametrize("task", [IMAGE_TASK, VIDEO_TASK])
async def test_task_unknown_now_and_then_is_polled_on(task: str, reply: Document) -> None:
    replies = [reply, reply, reply, RUNNING] * 9
    assert await _Polled(*replies, done("https://i.example/1")).result(task) == TaskDone(
        "https://i.example/1"
    )


@pytest.mark.anyio
@pytest.mark.parametrize("reply", [GONE, UNKNOWN])
async def test_task_that_was_known_is_left_to_the_next_run(reply: Document) -> None:
    polled = _Polled(RUNNING, reply)
    for _ in range(2):  # the worker polls first, then delivery
        result = await polled.result()
        assert isinstance(result, TaskUnresolved)
        assert not result.unknown


@pytest.mark.anyio
async def test_task_of_an_unreachable_server_is_not_unknown() -> None:
    result = await _Polled(*[DOWN] * 7, GONE).result()
    assert isinstance(result, TaskUnresolved)
    assert not result.unknown


FAILED_QUERIES = {
    "key": Document(status=401, body=b'{"status": "error", "message": "Invalid API key"}'),
    "rate": Document(status=429, body=b'{"status": "fail", "message": "Too many requests"}'),
    "busy": Document(status=503, body=b'{"status": "error", "error": {"message": "busy"}}'),
    "other id": Document(status=500, body=b'{"status": "failed", "id": "error-17"}'),
    "problem": Document(status=429, body=b'{"title": "Too Many Requests", "status": 429}'),
}


@pytest.mark.anyio
@pytest.mark.parametrize("task", [IMAGE_TASK, VIDEO_TASK])
@pytest.mark.parametrize("reply", FAILED_QUERIES.values(), ids=FAILED_QUERIES)
async def test_failed_query_is_not_a_failed_task(task: str, reply: Document) -> None:
    """The task is charged and may be running: it is polled on, and left to the next run."""
    found = done("https://i.example/1")
    assert isinstance(await _Polled(reply, reply, found).result(task), TaskDone)
    result = await _Polled(reply).result(task)
    assert isinstance(result, TaskUnresolved)
    assert not result.unknown


@pytest.mark.anyio
@pytest.mark.parametrize("task", [IMAGE_TASK, VIDEO_TASK])
async def test_page_not_found_with_a_status_is_not_a_task(task: str) -> None:
    for text in (b'{"status": 404, "error": "Not Found"}', b'{"status": "fail"}'):
        result = await _Polled(Document(status=404, body=text)).result(task)
        assert isinstance(result, TaskUnresolved)
        assert result.unknown == (task == IMAGE_TASK)


@pytest.mark.anyio
@pytest.mark.parametrize("task", [IMAGE_TASK, VIDEO_TASK])
async def test_error_status_may_report_a_failed_task(task: str) -> None:
    text = b'{"task_id": "t1", "status": "failed", "fail_reason": "out of paint"}'
    result = await _Polled(Document(status=500, body=text)).result(task)
    assert isinstance(result, TaskFailed)
    assert result.error.message == "out of paint"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("url", "absolute"),
    [
        ("one.png", f"{BASE}/tasks/one.png"),
        ("/files/one.png?sig=a", "https://api.example/files/one.png?sig=a"),
        ("https://i.example/1.png?sig=%2F", "https://i.example/1.png?sig=%2F"),
    ],
)
async def test_result_of_a_task_is_relative_to_its_url(url: str, absolute: str) -> None:
    assert await _Polled(RUNNING, done(url)).result() == TaskDone(absolute)
