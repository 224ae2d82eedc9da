"""The OpenAI Images API: build requests, and parse responses to images or an error.

Responses are untrusted: parsing never fails, for any body.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pybase64

from batchgen.http.request import ApiRequest, BytesBody
from batchgen.images.base64_scanner import unpack_base64
from batchgen.job import AttemptId, ImageRef, Job
from batchgen.outcomes.classify import ErrorBody, Response
from batchgen.providers.adapters.error_objects import message_of
from batchgen.providers.adapters.find_images import (
    Found,
    find_images,
    is_image_file,
    is_image_text,
    plain_url,
)
from batchgen.providers.adapters.multipart import multipart
from batchgen.providers.adapters.response_parsing import (
    declared_length,
    error_of,
    loose_documents,
    no_json,
    parse_document,
    text_of,
)
from batchgen.providers.adapters.search_images import search_images
from batchgen.providers.adapters.sse import gather, gather_documents, is_event_stream
from batchgen.providers.adapters.tasks import find_task


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
    """Parse a body: JSON, an event stream, an image file or anything else. Never raises."""
    if is_image_file(body):
        is_cut = len(body) < declared_length(headers)
        return Response(readable=not is_cut, images=() if is_cut else (ImageRef(index=0),))
    try:
        document = _document(body, headers)
    except ValueError:
        return no_json(body, headers)
    return _plain_response(document) or _any_response(document, headers)


def _plain_response(document: Any) -> Response | None:
    url = plain_url(document)
    if url is None:
        return None
    usage = document.get("usage")
    return Response(
        readable=True,
        images=(ImageRef(index=0, url=url),),
        usage=usage if isinstance(usage, dict) else None,
    )


def _any_response(document: Any, headers: Mapping[str, str]) -> Response:
    error = error_of(document) if isinstance(document, dict) else None
    images = tuple(
        ImageRef(index=one.index, url=one.url) for one in _images_of(document, error, headers)
    )
    if not isinstance(document, dict):
        return Response(readable=True, images=images, text=text_of(document))
    usage = document.get("usage")
    task = None if images else find_task(document, headers)
    return Response(
        readable=True,
        images=images,
        error=error,
        task=task,
        text="" if images or error is not None else message_of(document),
        usage=usage if isinstance(usage, dict) else None,
    )


def inline_base64(body: bytes, headers: Mapping[str, str], index: int) -> str:
    """Return the base64 text of an image in a response. Raises ValueError if it is missing."""
    if is_image_file(body) and index == 0:
        return pybase64.b64encode(body).decode()
    document = _document(body, headers)
    error = error_of(document) if isinstance(document, dict) else None
    for one in _images_of(document, error, headers):
        if one.index == index and one.base64 is not None:
            return one.base64
    raise ValueError(f"the response contains no image {index}")


def _images_of(document: Any, error: ErrorBody | None, headers: Mapping[str, str]) -> list[Found]:
    """Return the images at known places, otherwise those anywhere unless there is an error."""
    found = find_images(document, is_error=error is not None)
    if found or error is not None:
        return found
    task = find_task(document, headers) if isinstance(document, dict) else None
    return search_images(document, task)


def partial_images(body: bytes, headers: Mapping[str, str]) -> list[bytes]:
    """Return the partial images of an event stream, in order; skip those that are not base64."""
    if is_image_file(body):
        return []
    document = _document(body, headers)
    partial = document.get("partial") if isinstance(document, dict) else None
    found = []
    for one in find_images({"data": partial}):
        if one.base64 is not None:
            try:
                found.append(unpack_base64(one.base64))
            except ValueError:
                continue
    return found


def _document(body: bytes, headers: Mapping[str, str]) -> Any:
    """Return the JSON of a response, or the document of its event stream. Raises ValueError."""
    if is_event_stream(body, headers):
        return gather(body)
    try:
        return parse_document(body)
    except ValueError:
        found = _loose_document(body)
        if found is None:
            raise
        return found


def _loose_document(body: bytes) -> Any:
    """Return the document of a body that is not JSON as a whole; None if it cannot be read.

    The image may be in an object that is cut off.
    """
    documents, is_whole = loose_documents(body)
    if not documents:
        return body.decode() if is_image_text(body) else None
    document = documents[0] if len(documents) == 1 else gather_documents(documents)
    return document if is_whole or find_images(document) else None
