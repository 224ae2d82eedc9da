"""Videos as tasks: create, poll until done, download. A task is charged when it is accepted.

`read_state` also reads the state of image tasks, see `batchgen.providers.adapters.tasks`.

Formats: https://docs.crazyrouter.com/en/video/unified, in their old and new versions. A task must
be queried on the same family of paths that created it, so the ledger stores the path of the query.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, unquote

from batchgen.http.request import ApiRequest, BytesBody
from batchgen.job import AttemptId, ImageRef, Job
from batchgen.outcomes.classify import ErrorBody, Response
from batchgen.providers.adapters.error_objects import message_of
from batchgen.providers.adapters.find_images import find_images
from batchgen.providers.adapters.response_parsing import (
    error_of,
    no_json,
    parse_document,
    storable,
    text_of,
)
from batchgen.providers.adapters.search_images import search_images
from batchgen.providers.adapters.task_states import DONE, FAILED, RUNNING, holders, task_and_status
from batchgen.providers.adapters.tasks import TASK_IDS

_QUERY: Final = "/video/query?id="
_URL_FIELDS: Final = ("artifact_url", "result_url", "url", "video_url")
_UNKNOWN_TASK: Final = frozenset({"task_not_exist", "task_not_found", "task not found"})
_MAX_ID_CHARS: Final = 512
_NOT_JSON: Final = "a body that is empty or not JSON"
_URL_PARTS: Final = re.compile("[/?&=#]")


def build_request(job: Job, attempt: AttemptId, base_url: str) -> ApiRequest:
    """Build the request that creates a task; the option ``images`` is sent as a list of one."""
    fields: dict[str, Any] = {"model": job.model, "prompt": job.prompt, **job.options}
    if isinstance(fields.get("images"), str):
        fields["images"] = [fields["images"]]
    return ApiRequest(
        method="POST",
        url=f"{base_url}/video/create",
        route="video",
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


def read_state(body: bytes, *, http_status: int = 200, url: str = "") -> TaskState:
    """Parse the response to a query of a video or image task at ``url``.

    An error status with ``{"status": "error"}`` is that of the query, unless the response names the
    task: the task itself may be running. Raises ValueError if the response states no status of a
    task; its message is for people.
    """
    try:
        document = parse_document(body)
    except ValueError:
        text = no_json(body, {}).text
        raise ValueError(f"a body that is not JSON: {text}" if text else _NOT_JSON) from None
    if not isinstance(document, dict):
        raise ValueError("the response is not a JSON object")
    task, status = task_and_status(document)
    is_error = not 200 <= http_status < 300
    if status in DONE:
        return TaskState(url=_result_url(task, document))
    if status in FAILED and not (is_error and not _names_task(document, url)):
        message = text_of(task.get("fail_reason")) or text_of(task.get("message"))
        error = error_of(task) or (None if message else error_of(document))
        return TaskState(failed=error or ErrorBody(code="task_failed", message=message or status))
    if status in _UNKNOWN_TASK or text_of(document.get("code")) in _UNKNOWN_TASK:
        return TaskState(unknown=True)
    if not status or (is_error and status not in RUNNING):
        error = error_of(document) or _task_error(document)
        reason = error.message or error.code if error else message_of(document)
        raise ValueError(reason or "the response has no status of the task")
    return TaskState()


def _names_task(document: Mapping[str, Any], url: str) -> bool:
    """Return whether a response has the id of the task that is queried at a URL."""
    parts = set(_URL_PARTS.split(unquote(url)))
    ids = (holder.get(name) for holder in holders(document) for name in (*TASK_IDS, "id"))
    return any(text_of(found) in parts for found in ids if text_of(found))


def _result_url(task: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    """Return the URL of the first result of a finished task. Raises ValueError without one."""
    links = [found.url for found in (*find_images(task), *find_images(document))]
    others = map(_link, holders(document))  # the last, as they may only lead to the task itself
    for url in (_link(task), *links, *others):
        if url:
            return storable(url)
    for one in search_images(document, None):
        if one.url:
            return storable(one.url)
    raise ValueError("the task is done, but the response has no URL of its result")


def _link(holder: Mapping[str, Any]) -> str:
    return next(filter(None, (text_of(holder.get(name)) for name in _URL_FIELDS)), "")


def _task_id(document: Mapping[str, Any]) -> str:
    parts = list(holders(document))
    for name in (*TASK_IDS, "id"):
        for holder in parts:
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
