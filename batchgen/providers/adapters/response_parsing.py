"""A stranger's JSON: what all adapters read alike, whatever the shape of their answers.

Nothing here raises for any content but ValueError, and that where it says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson

from batchgen.outcomes.classify import Response
from batchgen.providers.adapters.error_objects import error_of, text_of

__all__ = ["error_of", "text_of"]


def parse_document(body: bytes) -> Any:
    """The JSON of a body, also where a server wrote it carelessly. Raises ValueError."""
    try:
        return orjson.loads(body)
    except ValueError:
        # Broken UTF-8 in a message, a byte order mark, UTF-16 and NaN must lose no paid image.
        text = body.decode(json.detect_encoding(body), "replace")
        try:
            return json.loads(text)
        except RecursionError as exc:
            raise ValueError("nested too deeply") from exc


def no_json(body: bytes, headers: Mapping[str, str]) -> Response:
    """What is known of a body that is no JSON."""
    html = "html" in headers.get("content-type", "") or body[:512].lstrip()[:1] == b"<"
    return Response(html=html)


def storable(url: str) -> str:
    """An address that a database takes: half a surrogate pair is legal in JSON only."""
    return url.strip().encode("utf-8", "replace").decode()


def data_of_address(url: str) -> str | None:
    """The base64 text of an address that is itself data; None for any other."""
    return url.partition(",")[2] if url[:5].lower() == "data:" else None


def expiry_of(url: str) -> datetime | None:
    """When a signed address stops working, in UTC, as far as it says so itself.

    Understands S3 and compatible (``X-Amz-Date`` with ``X-Amz-Expires``, and the same of Google,
    Aliyun and Volcengine), ``Expires`` in Unix seconds, and Azure's ``se``.
    """
    query = {name.lower(): values[0] for name, values in parse_qs(_query(url)).items()}
    try:
        for name, seconds in query.items():
            signed = query.get(name.removesuffix("-expires") + "-date")
            if name.endswith("-expires") and signed:
                start = datetime.strptime(signed, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
                return start + timedelta(seconds=int(seconds))
        if "expires" in query:
            return datetime.fromtimestamp(int(query["expires"]), UTC)
        if "se" in query:
            end = datetime.fromisoformat(query["se"])
            return (end if end.tzinfo else end.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return None


def _query(url: str) -> str:
    try:
        return urlsplit(url).query
    except ValueError:
        return ""
