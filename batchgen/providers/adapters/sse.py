"""Combine the events of a streamed response, complete or cut, into one document.

Event names and payloads: https://platform.openai.com/docs/api-reference/images-streaming. Gateways
change them: a completed event may have a ``url``, and an error may be any payload with ``error``.
Some stream a chat (https://platform.openai.com/docs/api-reference/chat-streaming) or a response
(https://platform.openai.com/docs/api-reference/responses-streaming) instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

import httpx
from httpx_sse import EventSource

from batchgen.providers.adapters.find_images import find_images
from batchgen.providers.adapters.response_parsing import error_of, parse_document
from batchgen.providers.adapters.task_states import lacks_result

_CONTENT_TYPE: Final = "text/event-stream"
_BOM: Final = b"\xef\xbb\xbf"
_START: Final = re.compile(rb"\s*(?::[^\r\n]*\s+)*(?:event|data|id|retry):(?!\s*image/)")
"""An event, after comments. ``data:image/`` begins a URL."""


def is_event_stream(body: bytes, headers: Mapping[str, str]) -> bool:
    """Return whether a response is an event stream, whether or not one was requested."""
    named = _CONTENT_TYPE in headers.get("content-type", "").lower()
    return named or _START.match(body.removeprefix(_BOM)) is not None


def gather(body: bytes) -> dict[str, Any]:
    """Return the document of an equivalent plain response, with a list of ``partial`` images.

    Events that are cut or not JSON are skipped. A stream without a finished image, an error or a
    refusal becomes the error ``stream_ended``. A document without events is returned as it is.
    """
    body = body.removeprefix(_BOM)
    if body.lstrip()[:1] == b"{":
        with suppress(ValueError):
            if isinstance(document := parse_document(body), dict):
                return document
    return gather_documents(_payloads(body))


def gather_documents(documents: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the document of several, which are the events of a stream or lines of JSON."""
    events = _Events()
    for document in documents:
        events.add(document)
    return events.document()


class _Events:
    """Joins the events of a stream."""

    def __init__(self) -> None:
        self._found: dict[str, Any] = {"data": [], "partial": []}
        self._chat = _Chat()
        self._items: list[Any] = []
        """Finished elements of ``output``: a stream may break off before it repeats them all."""
        self._last: dict[str, Any] = {}
        self._other: dict[str, Any] = {}
        """The last event with a finished image in another form."""

    def add(self, payload: dict[str, Any]) -> None:
        """Add the payload of one event."""
        found, self._last = self._found, payload
        kind = str(payload.get("type") or payload.get("event") or "")
        if payload.get("error") or kind in ("error", "upstream_error"):
            found.setdefault("error", payload.get("error") or payload)
        elif "partial" in kind:
            found["partial"].append(payload)
        elif payload.get("b64_json") or payload.get("url"):
            if payload not in found["data"]:  # some servers repeat the last event
                found["data"].append(payload)
        elif isinstance(payload.get("data"), list):
            found["data"] += [item for item in payload["data"] if item not in found["data"]]
        elif isinstance(response := payload.get("response"), dict):
            self._add_response(response)
        elif kind == "response.output_item.done":
            self._items.append(payload.get("item"))
        elif kind == "response.refusal.done":
            self._items.append({"content": [{**payload, "type": "refusal"}]})
        elif payload.get("choices"):
            self._chat.add(payload["choices"])
        elif not lacks_result(payload) and find_images(payload):
            self._other = payload
        if payload.get("usage"):
            found["usage"] = payload["usage"]

    def document(self) -> dict[str, Any]:
        """Return the document of all events."""
        found = dict(self._found)
        if self._chat.is_begun:
            found["choices"] = self._chat.choices
        if self._items and not found.get("output"):
            found["output"] = self._items
        if find_images(found) or error_of(found) is not None:
            return found
        if self._other:
            return {**found, **self._other}
        if error_of(self._last) is not None:
            return {**self._last, **found}
        message = "the stream ended without a finished image"
        return {**found, "error": {"code": "stream_ended", "message": message}}

    def _add_response(self, response: Mapping[str, Any]) -> None:
        if response.get("error"):
            self._found.setdefault("error", response["error"])
        for name in ("output", "incomplete_details"):
            self._found[name] = response.get(name)


class _Chat:
    """Joins the text, the refusal and the images of a chat that arrives in pieces."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._refusals: list[str] = []
        self._images: list[Any] = []
        self._finish_reason: object = None
        self.is_begun = False

    def add(self, choices: object) -> None:
        """Append the pieces of one event."""
        for choice in choices if isinstance(choices, list) else []:
            if not isinstance(choice, dict):
                continue
            self.is_begun = True
            # The last event of OpenAI has this reason, and nothing in its ``delta``.
            self._finish_reason = choice.get("finish_reason") or self._finish_reason
            delta = choice.get("delta") or choice.get("message")
            if not isinstance(delta, dict):
                continue
            if isinstance(text := delta.get("content"), str):
                self._texts.append(text)
            if isinstance(text := delta.get("refusal"), str):
                self._refusals.append(text)
            if isinstance(images := delta.get("images"), list):
                self._images += images

    @property
    def choices(self) -> list[dict[str, Any]]:
        """The choices of an equivalent plain response."""
        message = {
            "content": "".join(self._texts),
            "refusal": "".join(self._refusals),
            "images": self._images,
        }
        return [{"message": message, "finish_reason": self._finish_reason}]


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
        if isinstance(payload, list):
            payload = {"data": payload}
        if isinstance(payload, dict):
            yield {"event": event.event, **payload}
