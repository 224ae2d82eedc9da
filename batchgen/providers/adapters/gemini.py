"""Gemini's ``generateContent``, for models that a gateway does not offer on the Images route.

Responses differ by model (https://docs.crazyrouter.com/en/chat/gemini/image-gen): inline data, or
Markdown with a ``data:`` or ``https://`` URL.
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
    data_of_url,
    error_of,
    no_json,
    parse_document,
    storable,
    text_of,
)

_IMAGE_CONFIG: Final = {"aspect_ratio": "aspectRatio", "resolution": "imageSize"}
"""Options of batchgen, and their fields in ``generationConfig.imageConfig``."""
_MARKDOWN_IMAGE: Final = re.compile(r"!\[[^\]]*\]\(\s*([^)\s]+)")
_URL: Final = re.compile(r"data:image/[^\s)\"'>]+|https?://[^\s)\"'>]+")


def build_request(job: Job, attempt: AttemptId, base_url: str) -> ApiRequest:
    """Build the request for one image; references are streamed from disk as inline data.

    Raises OSError if a reference cannot be read.
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
        route="gemini",
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
    """Parse a body, which may be anything. Never raises."""
    try:
        document = parse_document(body)
    except ValueError:
        return no_json(body, headers)
    if not isinstance(document, dict):
        return Response(readable=True)
    images = tuple(
        ImageRef(index=index, url=None if data_of_url(found) is not None else storable(found))
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
    """Return the base64 text of an image in a response. Raises ValueError if it is missing."""
    del headers  # the document alone determines its format
    document = parse_document(body)
    found = list(_found(document)) if isinstance(document, dict) else []
    text = data_of_url(found[index]) if index < len(found) else None
    if text is None:
        raise ValueError(f"the response contains no image {index}")
    return text


def partial_images(body: bytes, headers: Mapping[str, str]) -> list[bytes]:
    """Return no images: this route has no partial images."""
    return []


def _found(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the URLs of all images: inline data as ``data:`` URLs, otherwise URLs in the text."""
    parts = list(_parts(document))
    inline = [data for part in parts for data in _inline_data(part)]
    yield from inline
    if not inline:
        for part in parts:
            text = part.get("text")
            if isinstance(text, str) and not part.get("thought"):
                yield from _MARKDOWN_IMAGE.findall(text) or _URL.findall(text)


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
    """Return why the model refused to create an image; None if it did not refuse."""
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
