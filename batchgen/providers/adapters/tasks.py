"""Recognize a response that names a task instead of an image, and find where to poll it.

The key is sent to the origin of the base URL only, so a polling URL of another origin is reported
and not requested.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import quote, unquote

from batchgen.http.network import key_origin
from batchgen.job import ImageRef
from batchgen.outcomes.classify import Response
from batchgen.outcomes.exchange import Task
from batchgen.providers.adapters.error_objects import text_of
from batchgen.providers.adapters.task_states import RUNNING, holders, task_and_status
from batchgen.urls import absolute_url

TASK_IDS: Final = ("task_id", "taskId", "job_id", "jobId", "taskUUID", "prediction_id")
_PLAIN_IDS: Final = ("id", "request_id", "requestId")
"""Every response may have these, so they name a task only next to a status or a polling URL."""
_POLLING_URLS: Final = ("polling_url", "poll_url", "status_url", "fetch_url", "query_url")
"""https://docs.bfl.ai/quick_start/generating_images,
https://fal.ai/docs/api-reference/inference-api, https://docs.bria.ai/status"""
_MAX_CHARS: Final = 2048
_PARTS: Final = re.compile("[/?&=#]")


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownRoute:
    """Where a provider that names only the id of a task is polled."""

    host: str
    path: str
    source: str


KNOWN_ROUTES: Final = (
    KnownRoute(
        host="api.evolink.ai",
        path="/v1/tasks/{id}",
        source="https://docs.evolink.ai/en/api-manual/task-management/get-task-detail",
    ),
    KnownRoute(
        host="dashscope.aliyuncs.com",
        path="/api/v1/tasks/{id}",
        source="https://help.aliyun.com/en/model-studio/manage-asynchronous-tasks",
    ),
    KnownRoute(
        host="dashscope-intl.aliyuncs.com",
        path="/api/v1/tasks/{id}",
        source="https://help.aliyun.com/en/model-studio/manage-asynchronous-tasks",
    ),
    KnownRoute(
        host="api.wavespeed.ai",
        path="/api/v3/predictions/{id}",
        source="https://wavespeed.ai/docs/get-result",
    ),
    KnownRoute(
        host="qianfan.baidubce.com",
        path="/beta/image/qianfan-image-v1?task_id={id}",
        source="https://cloud.baidu.com/doc/qianfan-api/s/rmqgca7yy",
    ),
)


def find_task(document: Mapping[str, Any], headers: Mapping[str, str]) -> Task | None:
    """Return the task that a response without an image names; None if it names none.

    ``Location`` counts if the document has an id or a status: RFC 9110, section 15.3.3, recommends
    it for a 202.
    """
    parts = list(holders(document))
    task_id = _first(parts, TASK_IDS)
    plain_id = _first(parts, _PLAIN_IDS)
    _, status = task_and_status(document)
    url = _first(parts, _POLLING_URLS) or _linked(parts)
    if not url and (task_id or plain_id or status):
        url = headers.get("location", "").strip()
    kind = text_of(document.get("object"))
    is_named = bool(task_id or url or status in RUNNING or kind.endswith("task"))
    name = task_id or plain_id
    if not (name or url):
        return None
    return Task(id=name[:_MAX_CHARS] or url, url=url[:_MAX_CHARS], is_named=is_named)


def followed(response: Response, base_url: str | None) -> Response:
    """Return the response with its task as an image to be polled, if it can be polled.

    ``base_url`` is the endpoint's; None if it is unknown.
    """
    task = response.task
    if task is None or not task.is_named or base_url is None:
        return response
    if response.images or response.error is not None:
        return response
    url = _polling_url(task, base_url)
    if url is None:
        return response
    path = url.removeprefix(base_url) if url.startswith(f"{base_url}/") else url
    if task.id not in (unquote(path), task.url) and task.id not in _PARTS.split(unquote(path)):
        # Support asks for the id. A fragment is not sent, and reports show it.
        path = f"{path.partition('#')[0]}#{quote(task.id, safe='')}"
    return replace(response, images=(ImageRef(index=0, task=path),))


def _polling_url(task: Task, base_url: str) -> str | None:
    """Return where to poll a task with the key; None if that is unknown or another origin."""
    origin = key_origin(base_url)
    if origin is None:
        return None
    known = next((route.path for route in KNOWN_ROUTES if route.host == origin.host), None)
    if task.url:
        url = absolute_url(task.url, base_url)
    elif known is not None:
        url = absolute_url(known.format(id=quote(task.id, safe="")), base_url)
    else:
        return None
    return url if key_origin(url) == origin else None


def _first(parts: list[Mapping[str, Any]], names: tuple[str, ...]) -> str:
    found = (text_of(part.get(name)).strip() for name in names for part in parts)
    return next(filter(None, found), "")


def _linked(parts: list[Mapping[str, Any]]) -> str:
    """Return ``urls.get``: https://replicate.com/docs/topics/predictions/create-a-prediction"""
    links = (part.get("urls") for part in parts)
    return next((text_of(one.get("get")) for one in links if isinstance(one, dict)), "")
