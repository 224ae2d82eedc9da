"""Find the error in a JSON document, in any of the formats that providers use.

Nothing here raises, for any document.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

import orjson

from batchgen.outcomes.classify import ErrorBody
from batchgen.outcomes.retry_after import duration
from batchgen.providers.adapters.task_states import FAILED, MODERATED, status_of

_MAX_TEXT: Final = 4096
_MAX_PARTS: Final = 20
_SUCCESS: Final = frozenset({"", "0", "200", "success", "ok"})
_SUCCESS_WORDS: Final = frozenset({"success", "succeeded", "successful", "ok", "成功", "操作成功"})
"""Messages next to a code other than 0, such as Zhipu's and many gateways' 10000."""
_CODES: Final = (
    "code", "error_code", "errorCode", "failureCode", "status_code", "Code", "name"
)  # fmt: skip
_TYPES: Final = ("type", "error_type", "status")
_MESSAGES: Final = (
    "message", "msg", "detail", "error_msg", "error_message", "errorMessage", "status_msg",
    "fail_reason", "failure", "Message", "errmsg", "reason", "description", "title",
)  # fmt: skip
_INNER: Final = ("innererror", "inner_error", "metadata", "error")
_INNER_NAMES: Final = (*_CODES, *_TYPES, "reason", "limit_source")
_WAITS: Final = ("retry_after", "retryAfter", "retry_after_seconds", "retryAfterSeconds")
"""https://discord.com/developers/docs/topics/rate-limits,
https://core.telegram.org/bots/api#responseparameters"""
_MAX_DEPTH: Final = 4


def error_of(document: Mapping[str, Any]) -> ErrorBody | None:
    """Return the error in a document or in its ``data`` or ``output``, or None."""
    found = _find_error(document)
    if found is None or found.retry_after_s is not None:
        return found
    places = (document, *(document.get(name) for name in ("error", "detail", "parameters")))
    return replace(found, retry_after_s=next(filter(None, map(_named_wait, places)), None))


def _named_wait(part: object) -> float | None:
    """Return the seconds in a field for the wait, as Discord and Telegram have it."""
    if not isinstance(part, dict):
        return None
    for name in _WAITS:
        value = part.get(name)
        wait_s = duration(str(value)) if isinstance(value, (str, int, float)) else None
        if wait_s is not None:
            return wait_s
    return None


def _find_error(document: Mapping[str, Any]) -> ErrorBody | None:
    error = document.get("error")
    if isinstance(error, str) and error:
        names = _names(document)
        return _complete(ErrorBody(message=_unwrapped(error), **names), {"error": _parsed(error)})
    if isinstance(error, dict) and (found := _of_object(error)) is not None:
        return found
    flat = _flat(document)
    if flat is not None and text_of(document.get("code")) and text_of(document.get("message")):
        return flat
    for find in (_wrapped, _listed, _moderated, _refusal, _flat, _inside):
        if (found := find(document)) is not None:
            return replace(found, envelope=False)
    return None


def message_of(document: Mapping[str, Any]) -> str:
    """Return the text for people in a document without a known error; empty without one.

    A chat model may write why it made no image.
    """
    for choice in dicts_in(document.get("choices")):
        message = choice.get("message")
        text = _joined(message.get("content")) if isinstance(message, dict) else ""
        if text:
            return text
    return _message(document)


def text_of(value: object) -> str:
    """Return text or a number as short text; empty for anything else."""
    if isinstance(value, str):
        return value[:_MAX_TEXT]
    # If codes are numbers, 0 means success.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) and value else ""


def dicts_in(value: object) -> list[dict[str, Any]]:
    """Return an object as a list of one, or the objects among the first elements of a list."""
    return [item for item in _elements(value) if isinstance(item, dict)]


def _of_object(error: Mapping[str, Any]) -> ErrorBody | None:
    body = ErrorBody(message=_message(error), **_names(error))
    # Some servers send an error object in every response, which is empty on success.
    return None if body == ErrorBody() else _complete(body, error)


def _wrapped(document: Mapping[str, Any]) -> ErrorBody | None:
    """Read MiniMax's ``base_resp`` and Tencent's ``Response.Error``."""
    response = document.get("Response")
    if isinstance(response, dict) and isinstance(response.get("Error"), dict):
        return _of_object(response["Error"])
    base = document.get("base_resp")
    if isinstance(base, dict) and text_of(base.get("status_code")):
        return _of_object(base)
    return None


def _listed(document: Mapping[str, Any]) -> ErrorBody | None:
    """Read ``errors`` (Stability, ASP.NET) and ``detail`` (FastAPI, fal), in any nesting."""
    for field in ("errors", "detail"):
        items = document.get(field)
        if not items:
            continue
        message = _joined(items)
        if message:
            objects = dicts_in(items)
            types = [name for one in objects if (name := _first(one, ("type", "code")))]
            names = _names(document)
            names["type"] = names["type"] or (types[0] if types else "")
            body = ErrorBody(message=message, names=tuple(types[1:]), **names)
            return _complete(body, {"details": objects})
    return None


def _refusal(document: Mapping[str, Any]) -> ErrorBody | None:
    """Read a refusal in the response of a chat or image model, which has no error object.

    https://platform.openai.com/docs/api-reference/chat/object (``refusal``, ``finish_reason``),
    https://platform.openai.com/docs/api-reference/responses/object (parts of type ``refusal``,
    ``incomplete_details``),
    https://docs.aws.amazon.com/bedrock/latest/userguide/stable-image-ultra-text-image-request-response.html
    (``finish_reasons``), https://googleapis.github.io/js-genai/interfaces/types.GeneratedImage.html
    (``raiFilteredReason``).
    """
    for choice in dicts_in(document.get("choices")):
        message = choice.get("message")
        refusal = text_of(message.get("refusal")) if isinstance(message, dict) else ""
        if refusal or text_of(choice.get("finish_reason")) == "content_filter":
            return ErrorBody(code="content_filter", message=refusal or "the image was blocked")
    for item in dicts_in(document.get("output")):
        for part in dicts_in(item.get("content")):
            if part.get("type") == "refusal":
                return ErrorBody(code="content_filter", message=text_of(part.get("refusal")))
    details = document.get("incomplete_details")
    if isinstance(details, dict) and details.get("reason") == "content_filter":
        return ErrorBody(code="content_filter", message="the image was blocked")
    for field in ("predictions", "generatedImages"):
        for item in dicts_in(document.get(field)):
            if reason := text_of(item.get("raiFilteredReason")):
                return ErrorBody(code="content_filter", message=reason)
    reasons = document.get("finish_reasons")
    for reason in reasons[:_MAX_PARTS] if isinstance(reasons, list) else []:
        if text_of(reason):
            return ErrorBody(message=text_of(reason))
    return None


def _inside(document: Mapping[str, Any]) -> ErrorBody | None:
    """Read the error of a task or image inside ``data`` or ``output``.

    https://www.volcengine.com/docs/82379/1541523 (an ``error`` in place of an image).
    """
    for field in ("data", "output", "result"):
        for part in dicts_in(document.get(field)):
            error = part.get("error")
            if isinstance(error, dict) and (found := _of_object(error)) is not None:
                return found
            has_failed = status_of(part) in FAILED
            text = error if isinstance(error, str) else ""
            if text or has_failed:
                message = _unwrapped(text) or _message(part)
                body = ErrorBody(message=message, **_names({**part, "status": ""}))
                return None if body == ErrorBody() else _complete(body, part)
    return None


def _moderated(document: Mapping[str, Any]) -> ErrorBody | None:
    """Read the ``status`` of Black Forest Labs, or the ``finish_reason`` of Stability."""
    if text_of(document.get("finish_reason")) == "CONTENT_FILTERED":
        return ErrorBody(code="CONTENT_FILTERED", message="the image was blocked")
    status = text_of(document.get("status"))
    if status.lower() not in MODERATED:
        return None
    return ErrorBody(code=status, message=status)


def _flat(document: Mapping[str, Any]) -> ErrorBody | None:
    """Read ``{"code": ..., "message": ...}``, which is an error in a document without data."""
    if document.get("data"):
        return None
    names, message = _names(document), _message(document)
    failed = document.get("success") is False
    if not message:
        return None
    if not failed and message.strip(" .!").lower() in _SUCCESS_WORDS:
        return None
    if failed or names["code"].lower() not in _SUCCESS:
        return _complete(ErrorBody(message=message, **names), {})
    return None


def _names(holder: Mapping[str, Any]) -> dict[str, Any]:
    code = _first(holder, _CODES)
    kind = _first(holder, _TYPES)
    if kind == "about:blank" or (kind.isdecimal() and len(kind) == 3):
        kind = ""  # RFC 9457: the type says no more than the status
    return {"code": code, "type": "" if kind == code else kind}


def _first(holder: Mapping[str, Any], names: tuple[str, ...]) -> str:
    return next(filter(None, (text_of(holder.get(name)) for name in names)), "")


def _message(holder: Mapping[str, Any]) -> str:
    """Return the message of an object: a text, or the texts nested in it."""
    return next(filter(None, (_joined(holder.get(name)) for name in _MESSAGES)), "")


def _joined(value: object, depth: int = _MAX_DEPTH) -> str:
    """Return the texts in a value on one line; the path of a field comes before its message."""
    if isinstance(value, str):
        return _unwrapped(value, depth)
    if not depth:
        return ""
    if isinstance(value, list):
        parts = [_joined(item, depth - 1) for item in value[:_MAX_PARTS]]
    elif isinstance(value, dict):
        message = next(
            filter(None, (_joined(value.get(name), depth - 1) for name in (*_MESSAGES, "error"))),
            "",
        )
        if message:
            return f"{_location(value)}{message}"[:_MAX_TEXT]
        # ASP.NET: {"Size": ["must be one of ..."]}
        lists = {name: part for name, part in value.items() if isinstance(part, list)}
        texts = {name: _joined(part, depth - 1) for name, part in lists.items()}
        parts = [f"{name}: {text}" for name, text in texts.items() if text]
    else:
        parts = []
    return "; ".join(filter(None, parts))[:_MAX_TEXT]


def _location(error: Mapping[str, Any]) -> str:
    """Return ``size: `` for FastAPI's ``{"loc": ["body", "size"]}``; empty for the whole body."""
    path = error.get("loc")
    parts = [str(part) for part in path[:_MAX_PARTS]] if isinstance(path, list) else []
    inner = parts[1:] if parts[:1] in (["body"], ["query"]) else parts
    return f"{'.'.join(inner)}: " if inner else ""


def _unwrapped(text: str, depth: int = _MAX_DEPTH) -> str:
    """Return a message, or that inside it if the whole message is JSON of another error."""
    inner = _parsed(text) if depth else None
    found = "" if inner is None else _joined(inner, depth - 1)
    return found or text[:_MAX_TEXT]


def _parsed(text: str) -> Any:
    if text.lstrip()[:1] != "{":
        return None
    try:
        return orjson.loads(text)
    except ValueError:
        return None


def _elements(value: object) -> list[Any]:
    if isinstance(value, dict):
        return [value]
    return value[:_MAX_PARTS] if isinstance(value, list) else []


def _complete(body: ErrorBody, error: Mapping[str, Any]) -> ErrorBody:
    """Add codes and waits of nested errors, and of JSON in the message."""
    found: list[str] = list(body.names)
    delays: list[float] = []
    for part in (*_deeper(error), *_in_message(body.message)):
        found += filter(None, (text_of(part.get(field)) for field in _INNER_NAMES))
        if part.get("flagged_input"):
            found.append("flagged_input")
        if (delay_s := duration(text_of(part.get("retryDelay")))) is not None:
            delays.append(delay_s)
    quotas = list(_quotas(error))
    if quotas and all("PerDay" in quota for quota in quotas):
        found.append("quota_per_day")
    known = (body.code, body.type)
    return replace(
        body,
        names=tuple(dict.fromkeys(name for name in found if name not in known)),
        retry_after_s=max(delays, default=None),
    )


def _deeper(error: Mapping[str, Any], depth: int = 3) -> Iterator[Mapping[str, Any]]:
    for field in _INNER:
        part = error.get(field)
        if isinstance(part, dict):
            yield part
            if depth:
                yield from _deeper(part, depth - 1)
    details = error.get("details")
    if isinstance(details, list):
        yield from dicts_in(details)


def _in_message(message: str) -> Iterator[Mapping[str, Any]]:
    """Yield an error that a gateway quotes as JSON in its own message."""
    begin, end = message.find("{"), message.rfind("}")
    if 0 <= begin < end:
        try:
            document = orjson.loads(message[begin : end + 1])
        except ValueError:
            return
        if isinstance(document, dict):
            yield document
            yield from _deeper(document)


def _quotas(error: Mapping[str, Any]) -> Iterator[str]:
    """Yield the ids of quotas that Google reports as exhausted."""
    for part in dicts_in(error.get("details")):
        for violation in dicts_in(part.get("violations")):
            if quota := text_of(violation.get("quotaId")):
                yield quota
