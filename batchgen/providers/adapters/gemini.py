"""Gemini's own ``generateContent``, for models that a gateway offers on no Images route.

Shapes: Crazyrouter sheet, section 11.2. What it answers differs by model: images as inline data,
or as Markdown with a ``data:`` or an ``https://`` address.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from batchgen.http.request import ApiRequest
from batchgen.job import AttemptId, ImageRef, Job
from batchgen.outcomes.classify import ErrorBody, Response
from batchgen.outcomes.error_meanings import kind_of_name
from batchgen.outcomes.error_row import Kind
from batchgen.providers.adapters.multipart import FilePiece, PiecedBody, mime_type
from batchgen.providers.adapters.response_parsing import (
    data_of_address,
    error_of,
    no_json,
    parse_document,
    storable,
    text_of,
)

_IMAGE_CONFIG: Final = {"aspect_ratio": "aspectRatio", "resolution": "imageSize"}
"""Our options for the fields of ``generationConfig.imageConfig``, as on the Images route."""
_MARKDOWN_IMAGE: Final = re.compile(r"!\[[^\]]*\]\(\s*([^)\s]+)")
_ADDRESS: Final = re.compile(r"data:image/[^\s)\"'>]+|https?://[^\s)\"'>]+")


def build_request(job: Job, attempt: AttemptId, base_url: str) -> ApiRequest:
    """Write the request for one image; references go along as inline data, streamed from disk.

    Raises OSError when a reference can't be read.
    """
    options = dict(job.options)
    image_config = {
        theirs: options.pop(ours) for ours, theirs in _IMAGE_CONFIG.items() if ours in options
    }
    config: dict[str, Any] = {"responseModalities": ["TEXT", "IMAGE"], **options}
    if image_config:
        config["imageConfig"] = image_config
    root = base_url.removesuffix("/v1")
    return ApiRequest(
        method="POST",
        url=f"{root}/v1beta/models/{quote(job.model, safe='')}:generateContent",
        body=_body(job, config),
        headers={"Idempotency-Key": attempt, "X-Client-Request-Id": attempt},
    )


def _body(job: Job, config: Mapping[str, Any]) -> PiecedBody:
    text = json.dumps({"text": job.prompt}, ensure_ascii=False)
    pieces: list[bytes | FilePiece] = [
        f'{{"contents": [{{"role": "user", "parts": [{text}'.encode()
    ]
    for image in map(Path, job.images):
        pieces += [
            f', {{"inlineData": {{"mimeType": "{mime_type(image)}", "data": "'.encode(),
            FilePiece.of(image, base64=True),
            b'"}}',
        ]
    pieces.append(f']}}], "generationConfig": {json.dumps(config, ensure_ascii=False)}}}'.encode())
    return PiecedBody("application/json", tuple(pieces))


def read_response(body: bytes, headers: Mapping[str, str]) -> Response:
    """Read a body that may be anything. Never raises."""
    try:
        document = parse_document(body)
    except ValueError:
        return no_json(body, headers)
    if not isinstance(document, dict):
        return Response(readable=True)
    images = tuple(
        ImageRef(index=index, url=None if data_of_address(found) is not None else storable(found))
        for index, found in enumerate(_found(document))
    )
    usage = document.get("usageMetadata")
    return Response(
        readable=True,
        images=images,
        error=None if images else error_of(document) or _refusal(document),
        usage=usage if isinstance(usage, dict) else None,
    )


def inline_base64(body: bytes, headers: Mapping[str, str], index: int) -> str:
    """The base64 of one image of a response. Raises ValueError where there is none."""
    del headers  # the shape tells everything
    document = parse_document(body)
    found = list(_found(document)) if isinstance(document, dict) else []
    text = data_of_address(found[index]) if index < len(found) else None
    if text is None:
        raise ValueError(f"the response holds no image {index}")
    return text


def partial_images(body: bytes, headers: Mapping[str, str]) -> list[bytes]:
    """There are none on this route."""
    return []


def _found(document: Mapping[str, Any]) -> Iterator[str]:
    """The addresses of all images: inline data as ``data:`` ones, then those in the text."""
    parts = list(_parts(document))
    inline = [data for part in parts for data in _inline_data(part)]
    yield from inline
    if not inline:
        for part in parts:
            text = part.get("text")
            if isinstance(text, str) and not part.get("thought"):
                yield from _MARKDOWN_IMAGE.findall(text) or _ADDRESS.findall(text)


def _parts(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for candidate in _dicts(document.get("candidates")):
        content = candidate.get("content")
        if isinstance(content, dict):
            yield from _dicts(content.get("parts"))


def _inline_data(part: Mapping[str, Any]) -> Iterator[str]:
    data = part.get("inlineData") or part.get("inline_data")
    if isinstance(data, dict) and not part.get("thought"):
        text = data.get("data")
        if isinstance(text, str) and text:
            yield f"data:,{text}"


def _refusal(document: Mapping[str, Any]) -> ErrorBody | None:
    """Why there is no image, where the model says that it will not draw one."""
    feedback = document.get("promptFeedback")
    reason = text_of(feedback.get("blockReason")) if isinstance(feedback, dict) else ""
    if reason:
        return ErrorBody(code="content_filter", message=f"the prompt was blocked: {reason}")
    for candidate in _dicts(document.get("candidates")):
        reason = text_of(candidate.get("finishReason"))
        if kind_of_name(reason) is Kind.BLOCKED:
            return ErrorBody(code="content_filter", message=f"the image was blocked: {reason}")
    return None


def _dicts(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
