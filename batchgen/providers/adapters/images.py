"""The OpenAI Images API: build requests, and parse responses to images or an error.

Responses are untrusted: parsing never fails, for any body.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from batchgen.http.request import ApiRequest, BytesBody
from batchgen.images.base64_scanner import unpack_base64
from batchgen.job import AttemptId, ImageRef, Job
from batchgen.outcomes.classify import Response
from batchgen.providers.adapters.multipart import multipart
from batchgen.providers.adapters.response_parsing import (
    data_of_url,
    error_of,
    no_json,
    parse_document,
    storable,
    text_of,
)
from batchgen.providers.adapters.sse import gather, is_event_stream

_MAX_IMAGES: Final = 100


def build_request(job: Job, attempt: AttemptId, base_url: str) -> ApiRequest:
    """Build the request for one image; a job with references uses the edits route.

    The headers ``Idempotency-Key`` and ``X-Client-Request-Id`` contain the attempt's id, so that a
    charge can be found in the provider's log. Raises OSError if a reference cannot be read.
    """
    headers: dict[str, str] = {"Idempotency-Key": attempt, "X-Client-Request-Id": attempt}
    if job.options.get("stream") is True:
        headers["Accept"] = "text/event-stream, application/json"
    fields = {"model": job.model, "prompt": job.prompt, "n": 1, **job.options}
    if not job.images:
        return ApiRequest(
            method="POST",
            url=f"{base_url}/images/generations",
            # orjson does not support integers beyond 64 bits, which a seed may need.
            body=BytesBody(json.dumps(fields, ensure_ascii=False).encode()),
            headers=headers,
        )
    name = "image" if len(job.images) == 1 else "image[]"
    files = [(name, Path(image)) for image in job.images]
    if job.mask:
        files.append(("mask", Path(job.mask)))
    return ApiRequest(
        method="POST",
        url=f"{base_url}/images/edits",
        body=multipart(hashlib.sha256(attempt.encode()).hexdigest()[:40], fields, files),
        headers=headers,
    )


def read_response(body: bytes, headers: Mapping[str, str]) -> Response:
    """Parse a body, which may be JSON, an event stream or anything else. Never raises."""
    try:
        document = _document(body, headers)
    except ValueError:
        return no_json(body, headers)
    if not isinstance(document, dict):
        return Response(readable=True)
    usage = document.get("usage")
    return Response(
        readable=True,
        images=_images(document),
        error=error_of(document),
        task_id=text_of(document.get("task_id")) or None,
        usage=usage if isinstance(usage, dict) else None,
    )


def _document(body: bytes, headers: Mapping[str, str]) -> Any:
    """Return the JSON of a response, or the document of its event stream. Raises ValueError."""
    return gather(body) if is_event_stream(body, headers) else parse_document(body)


def _items(document: Any, name: str = "data") -> list[Any]:
    items = document.get(name) if isinstance(document, dict) else None
    if isinstance(items, dict):
        return [items]
    return items[:_MAX_IMAGES] if isinstance(items, list) else []


def _images(document: dict[str, Any]) -> tuple[ImageRef, ...]:
    found = []
    for index, item in enumerate(_items(document)):
        if not isinstance(item, dict):
            continue
        url = item.get("url")
        if _inline(item) is not None:
            found.append(ImageRef(index=index))
        elif isinstance(url, str) and url.strip():
            found.append(ImageRef(index=index, url=storable(url)))
    return tuple(found)


def _inline(item: dict[str, Any]) -> str | None:
    """Return the base64 text of an item, from ``b64_json`` or a ``data:`` URL; None without."""
    for name in ("b64_json", "url"):
        value = item.get(name)
        if not isinstance(value, str) or not value:
            continue
        data = data_of_url(value)
        if data is not None:
            return data
        if name == "b64_json":
            return value
    return None


def inline_base64(body: bytes, headers: Mapping[str, str], index: int) -> str:
    """Return the base64 text of an image in a response. Raises ValueError if there is none."""
    items = _items(_document(body, headers))
    text = _inline(items[index]) if index < len(items) and isinstance(items[index], dict) else None
    if text is None:
        raise ValueError(f"the response contains no image {index}")
    return text


def partial_images(body: bytes, headers: Mapping[str, str]) -> list[bytes]:
    """Return the partial images of an event stream, in order; skip those that are not base64."""
    found = []
    for item in _items(_document(body, headers), "partial"):
        text = _inline(item) if isinstance(item, dict) else None
        if text is not None:
            try:
                found.append(unpack_base64(text))
            except ValueError:
                continue
    return found
