"""Videos as tasks: create, poll until done, download. A task is charged when it is accepted.

`read_state` also reads the state of image tasks, see `batchgen.providers.adapters.tasks`.

Formats: https://docs.crazyrouter.com/en/video/unified, in their old and new versions. A task must
be queried on the same family of paths that created it, so the ledger stores the path of the query.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from batchgen.http.request import ApiRequest, BytesBody
from batchgen.job import AttemptId, ImageRef, Job
from batchgen.outcomes.classify import ErrorBody, Response
from batchgen.providers.adapters.image_paths import find_images
from batchgen.providers.adapters.response_parsing import (
    error_of,
    no_json,
    parse_document,
    storable,
    text_of,
)

_QUERY: Final = "/video/query?id="
_DONE: Final = frozenset(
    {"success", "succeeded", "succeed", "completed", "complete", "ready", "finished", "done"}
)
_FAILED: Final = frozenset(
    {
        "failed",
        "fail",
        "failure",
        "error",
        "cancelled",
        "canceled",
        "expired",
        # Black Forest Labs: https://docs.bfl.ai/api_integration/errors
        "request moderated",
        "content moderated",
    }
)
_URL_FIELDS: Final = ("artifact_url", "result_url", "url", "video_url")
_UNKNOWN_TASK: Final = frozenset({"task_not_exist", "task_not_found", "task not found"})
_HOLDERS: Final = ("data", "output", "result")
_STATUSES: Final = ("status", "task_status", "state")
_MAX_ID_CHARS: Final = 512


def build_request(job: Job, attempt: AttemptId, base_url: str) -> ApiRequest:
    """Build the request that creates a task; the option ``images`` is sent as a list of one."""
    fields: dict[str, Any] = {"model": job.model, "prompt": job.prompt, **job.options}
    if isinstance(fields.get("images"), str):
        fields["images"] = [fields["images"]]
    return ApiRequest(
        method="POST",
        url=f"{base_url}/video/create",
        body=BytesBody(json.dumps(fields, ensure_ascii=False).encode()),
        headers={"Idempotency-Key": attempt, "X-Client-Request-Id": attempt},
    )


def read_response(body: bytes, headers: Mapping[str, str]) -> Response:
    """Parse the response to a creation: an image that refers to a task. Never raises."""
    try:
        document = parse_document(body)
    except ValueError:
        return no_json(body, headers)
    if not isinstance(document, dict):
        return Response(readable=True)
    task = _task_id(document)
    if not task:
        return Response(readable=True, error=error_of(document) or _task_error(document))
    path = f"{_QUERY}{quote(task, safe='')}"
    return Response(readable=True, images=(ImageRef(index=0, task=path),))


def inline_base64(body: bytes, headers: Mapping[str, str], index: int) -> str:
    """Raise ValueError: the response to a creation never contains the video."""
    raise ValueError("the response names a task and contains no video")


def partial_images(body: bytes, headers: Mapping[str, str]) -> list[bytes]:
    """Return no images: this route has no partial images."""
    return []


def is_video_task(task: str | None) -> bool:
    """Return whether a stored task creates a video; other tasks create images."""
    return task is not None and _QUERY in task


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskState:
    """The state of a task; it is still running if neither ``url`` nor ``failed`` is set."""

    url: str | None = None
    failed: ErrorBody | None = None
    unknown: bool = False
    """The provider does not know the task."""


def read_state(body: bytes) -> TaskState:
    """Parse the response to a query of a video or image task.

    Raises ValueError if it states no status of a task.
    """
    document = parse_document(body)
    if not isinstance(document, dict):
        raise ValueError("the response is not a JSON object")
    task, status = _state_of(document)
    if status in _DONE:
        return TaskState(url=_result_url(task, document))
    if status in _FAILED:
        message = text_of(task.get("fail_reason")) or text_of(task.get("message")) or status
        error = error_of(task)
        return TaskState(failed=error or ErrorBody(code="task_failed", message=message))
    if status in _UNKNOWN_TASK or text_of(document.get("code")) in _UNKNOWN_TASK:
        return TaskState(unknown=True)
    if not status:
        error = error_of(document) or _task_error(document)
        raise ValueError(
            error.message or error.code if error else "the response has no status of the task"
        )
    return TaskState()


def _state_of(document: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """Return the part of a document that describes the task, and its status in lower case."""
    parts = (document.get(name) for name in _HOLDERS)
    holders = [*(part for part in parts if isinstance(part, dict)), document]
    for holder in holders:
        for name in _STATUSES:
            if status := text_of(holder.get(name)).lower():
                return holder, status
    return holders[0], ""


def _result_url(task: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    """Return the URL of the first result of a finished task. Raises ValueError without one."""
    for name in _URL_FIELDS:
        if url := text_of(task.get(name)):
            return storable(url)
    for found in (*find_images(task), *find_images(document)):
        if found.url is not None:
            return found.url
    raise ValueError("the task is done, but the response has no URL of its result")


def _task_id(document: Mapping[str, Any]) -> str:
    data = document.get("data")
    for holder in (data if isinstance(data, dict) else {}, document):
        for name in ("task_id", "id"):
            found = text_of(holder.get(name))
            if found and len(found) <= _MAX_ID_CHARS:
                return storable(found)
    return ""


def _task_error(document: Mapping[str, Any]) -> ErrorBody | None:
    """Return a top-level error of the task routes: ``{"code", "message", "data": null}``."""
    code, message = text_of(document.get("code")), text_of(document.get("message"))
    if not code or code.lower() == "success":
        return None
    return ErrorBody(code=code, message=message)
