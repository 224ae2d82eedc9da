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

_MAX_TEXT: Final = 4096
_MAX_PARTS: Final = 20
_SUCCESS: Final = frozenset({"", "0", "200", "success", "ok"})
_CODES: Final = ("code", "error_code", "status_code", "Code", "name")
_TYPES: Final = ("type", "error_type", "status")
_MESSAGES: Final = (
    "message", "msg", "detail", "error_msg", "status_msg", "fail_reason", "Message", "title",
)  # fmt: skip
_INNER: Final = ("innererror", "inner_error", "metadata", "error")
_INNER_NAMES: Final = (*_CODES, *_TYPES, "reason", "limit_source")
_MODERATED: Final = frozenset({"request moderated", "content moderated"})


def error_of(document: Mapping[str, Any]) -> ErrorBody | None:
    """Return the error in a document, or None."""
    error = document.get("error")
    if isinstance(error, str) and error:
        return _complete(ErrorBody(message=error[:_MAX_TEXT], **_names(document)), {})
    if isinstance(error, dict):
        return _of_object(error)
    flat = _flat(document)
    if flat is not None and text_of(document.get("code")) and text_of(document.get("message")):
        return flat
    for find in (_wrapped, _listed, _moderated, _flat):
        if (found := find(document)) is not None:
            return replace(found, envelope=False)
    return None


def text_of(value: object) -> str:
    """Return text or a number as short text; empty for anything else."""
    if isinstance(value, str):
        return value[:_MAX_TEXT]
    # If codes are numbers, 0 means success.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) and value else ""


def _of_object(error: Mapping[str, Any]) -> ErrorBody | None:
    body = ErrorBody(message=_first(error, _MESSAGES), **_names(error))
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
    """Read ``errors`` (Stability) and ``detail`` (FastAPI, fal): texts, or objects with a text."""
    for field in ("errors", "detail"):
        items = document.get(field)
        items = items if isinstance(items, list) else [items]
        objects = [item for item in items[:_MAX_PARTS] if isinstance(item, dict)]
        texts = [text_of(item) for item in items[:_MAX_PARTS] if isinstance(item, str)]
        texts += [_first(item, _MESSAGES) for item in objects]
        message = "; ".join(filter(None, texts))[:_MAX_TEXT]
        if message:
            types = [name for item in objects if (name := _first(item, ("type", "code")))]
            names = _names(document)
            names["type"] = names["type"] or (types[0] if types else "")
            return _complete(ErrorBody(message=message, names=tuple(types[1:]), **names), {})
    return None


def _moderated(document: Mapping[str, Any]) -> ErrorBody | None:
    """Read the ``status`` that Black Forest Labs sends instead of an error."""
    status = text_of(document.get("status"))
    if status.lower() not in _MODERATED:
        return None
    return ErrorBody(code=status, message=status)


def _flat(document: Mapping[str, Any]) -> ErrorBody | None:
    """Read ``{"code": ..., "message": ...}``, which is an error in a document without data."""
    names, message = _names(document), _first(document, _MESSAGES)
    failed = document.get("success") is False
    if document.get("data") or not message:
        return None
    if failed or names["code"].lower() not in _SUCCESS:
        return _complete(ErrorBody(message=message, **names), {})
    return None


def _names(holder: Mapping[str, Any]) -> dict[str, Any]:
    code = _first(holder, _CODES)
    kind = _first(holder, _TYPES)
    return {"code": code, "type": "" if kind == code else kind}


def _first(holder: Mapping[str, Any], names: tuple[str, ...]) -> str:
    return next(filter(None, (text_of(holder.get(name)) for name in names)), "")


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
        yield from (part for part in details[:_MAX_PARTS] if isinstance(part, dict))


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
    details = error.get("details")
    for part in details[:_MAX_PARTS] if isinstance(details, list) else []:
        violations = part.get("violations") if isinstance(part, dict) else None
        for violation in violations[:_MAX_PARTS] if isinstance(violations, list) else []:
            if isinstance(violation, dict) and (quota := text_of(violation.get("quotaId"))):
                yield quota
