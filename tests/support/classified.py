"""Classifications of complete responses."""

from __future__ import annotations

from typing import Any

import orjson

from batchgen.outcomes.classify import (
    Classification,
    Exchange,
    Reach,
    classify,
)
from batchgen.providers.adapters.images import read_response


def answered(
    status: int, body: object = None, headers: dict[str, str] | None = None
) -> Classification:
    """The classification of a complete response; a body other than bytes is sent as JSON."""
    raw = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body)
    exchange = Exchange(reach=Reach.COMPLETE, status=status, headers=headers or {})
    return classify(exchange, read_response(raw, headers or {}))


def error(code: object = "", kind: str = "new_api_error", message: str = "no") -> Any:
    """An error object as the gateway sends it."""
    return {"error": {"message": message, "type": kind, "param": "", "code": code}}
