"""Combine the events of a streamed response, complete or cut, into one document.

Event names and payloads: https://platform.openai.com/docs/api-reference/images-streaming. Gateways
change them: a completed event may have a ``url``, and an error may be any payload with ``error``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import httpx
from httpx_sse import EventSource

from batchgen.providers.adapters.response_parsing import parse_document

_CONTENT_TYPE: Final = "text/event-stream"
_STARTS: Final = (b"event:", b"data:", b"id:", b"retry:")


def is_event_stream(body: bytes, headers: Mapping[str, str]) -> bool:
    """Return whether a response is an event stream, whether or not one was requested."""
    return _CONTENT_TYPE in headers.get("content-type", "") or body.startswith(_STARTS)


def gather(body: bytes) -> dict[str, Any]:
    """Return the document of an equivalent plain response, with a list of ``partial`` images.

    Events that are cut or not JSON are skipped. A stream without a finished image or an error
    becomes the error ``stream_ended``.
    """
    found: dict[str, Any] = {"data": [], "partial": []}
    for payload in _payloads(body):
        kind = str(payload.get("type") or payload.get("event") or "")
        if payload.get("error") or kind in ("error", "upstream_error"):
            found.setdefault("error", payload.get("error") or payload)
        elif "partial" in kind:
            found["partial"].append(payload)
        elif payload.get("b64_json") or payload.get("url"):
            found["data"].append(payload)
        elif isinstance(payload.get("data"), list):
            found["data"] += payload["data"]
        if payload.get("usage"):
            found["usage"] = payload["usage"]
    if not found["data"] and "error" not in found:
        message = "the stream ended without a finished image"
        found["error"] = {"code": "stream_ended", "message": message}
    return found


def _payloads(body: bytes) -> Iterator[dict[str, Any]]:
    # Two line ends complete a last event whose own line ends are missing.
    response = httpx.Response(200, headers={"content-type": _CONTENT_TYPE}, content=body + b"\n\n")
    for event in EventSource(response).iter_sse():
        if event.data.strip() == "[DONE]":
            return
        try:
            payload = parse_document(event.data.encode("utf-8", "replace"))
        except ValueError:
            continue
        if isinstance(payload, dict):
            yield {"event": event.event, **payload}
