"""Videos as tasks: create, ask until it is made, download. A task is paid when it is accepted.

Shapes: Crazyrouter sheet, section 11.3, the newer and the older ones. Create and query stay on one
path family; the address to ask at is what the ledger keeps of a task.
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
from batchgen.providers.adapters.response_parsing import (
    error_of,
    no_json,
    parse_document,
    storable,
    text_of,
)

_DONE: Final = frozenset({"success", "succeeded", "completed"})
_FAILED: Final = frozenset(
    {
        "failed",
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
_ADDRESSES: Final = ("artifact_url", "result_url", "url", "video_url")
_UNKNOWN_TASK: Final = frozenset({"task_not_exist", "task_not_found"})
_MAX_ID_CHARS: Final = 512


def build_request(job: Job, attempt: AttemptId, base_url: str) -> ApiRequest:
    """Write the request that creates a task; ``images`` of the options is sent as a list of one."""
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
    """Read the response to a creation: an image that is a task. Never raises."""
    try:
        document = parse_document(body)
    except ValueError:
        return no_json(body, headers)
    if not isinstance(document, dict):
        return Response(readable=True)
    task = _task_id(document)
    if not task:
        return Response(readable=True, error=error_of(document) or _task_error(document))
    address = f"/video/query?id={quote(task, safe='')}"
    return Response(readable=True, images=(ImageRef(index=0, task=address),))


def inline_base64(body: bytes, headers: Mapping[str, str], index: int) -> str:
    """No response to a creation holds its video. Raises ValueError."""
    raise ValueError("the response names a task and holds no video")


def partial_images(body: bytes, headers: Mapping[str, str]) -> list[bytes]:
    """There are none on this route."""
    return []


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskState:
    """What a task is said to be: still at work where neither ``url`` nor ``failed`` is set."""

    url: str | None = None
    failed: ErrorBody | None = None
    unknown: bool = False
    """The provider knows of no such task."""


def read_state(body: bytes) -> TaskState:
    """Read the response to a query. Raises ValueError for what says nothing of a task."""
    document = parse_document(body)
    if not isinstance(document, dict):
        raise ValueError("the response is no JSON object")
    data = document.get("data")
    task = data if isinstance(data, dict) else document
    status = text_of(task.get("status")).lower()
    if status in _DONE:
        for name in _ADDRESSES:
            if url := text_of(task.get(name)):
                return TaskState(url=storable(url))
        raise ValueError("the task is done, and no address of its video is told")
    if status in _FAILED:
        message = text_of(task.get("fail_reason")) or text_of(task.get("message")) or status
        error = error_of(task)
        return TaskState(failed=error or ErrorBody(code="task_failed", message=message))
    if text_of(document.get("code")) in _UNKNOWN_TASK:
        return TaskState(unknown=True)
    if not status:
        error = error_of(document) or _task_error(document)
        raise ValueError(error.message or error.code if error else "no status of the task is told")
    return TaskState()


def _task_id(document: Mapping[str, Any]) -> str:
    data = document.get("data")
    for holder in (data if isinstance(data, dict) else {}, document):
        for name in ("task_id", "id"):
            found = text_of(holder.get(name))
            if found and len(found) <= _MAX_ID_CHARS:
                return storable(found)
    return ""


def _task_error(document: Mapping[str, Any]) -> ErrorBody | None:
    """The task routes tell of errors at the top: ``{"code", "message", "data": null}``."""
    code, message = text_of(document.get("code")), text_of(document.get("message"))
    if not code or code.lower() == "success":
        return None
    return ErrorBody(code=code, message=message)
