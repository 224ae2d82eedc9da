"""Parse untrusted responses: functions that all adapters share.

No content raises anything but ValueError, and only where documented.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import orjson

from batchgen.outcomes.classify import Response
from batchgen.providers.adapters.error_objects import error_of, text_of

__all__ = ["error_of", "text_of"]

_MAX_DOCUMENTS: Final = 10_000
_DECODER: Final = json.JSONDecoder(strict=False)
_LINE_OF_JSON: Final = re.compile(r"(?:\A\ufeff?\s*|[\r\n]|(?<=\}))[\[{]")
_MAX_PAGE_BYTES: Final = 64 * 1024
_MAX_TEXT: Final = 500
_TAG: Final = re.compile(r"<[^>]{0,1000}>")
_TITLES: Final = tuple(
    re.compile(rf"<{name}(?:\s[^>]{{0,1000}})?>(.{{1,2000}}?)</{name}\s*>", re.I | re.DOTALL)
    for name in ("title", "h1", "message", "h2")
)


def parse_document(body: bytes) -> Any:
    """Parse the JSON of a body, including common deviations. Raises ValueError."""
    try:
        return orjson.loads(body)
    except ValueError:
        # No paid image may be lost to broken UTF-8 in a message, a BOM, UTF-16 or NaN.
        text = body.decode(json.detect_encoding(body), "replace")
        try:
            # Some servers leave line ends in a prompt as they are.
            return json.loads(text, strict=False)
        except RecursionError as exc:
            raise ValueError("nested too deeply") from exc


def loose_documents(body: bytes) -> tuple[list[Any], bool]:
    """Return the objects of a body that is not JSON as a whole, and whether the last one is whole.

    Each begins a line: JSON lines, JSON with more bytes after it (``[DONE]``), or with other text
    before it, a warning of PHP, or ``)]}',``. A page has none, unless JSON ends it.
    """
    text = body.decode(json.detect_encoding(body), "replace").rstrip("\0 \r\n\t")
    documents: list[Any] = []
    at, is_page, is_whole = 0, text.lstrip()[:1] == "<", True
    while len(documents) < _MAX_DOCUMENTS and (start := _LINE_OF_JSON.search(text, at)):
        try:
            document, at = _DECODER.raw_decode(text, start.end() - 1)
        except (ValueError, RecursionError):
            if start[0].endswith("{"):  # cut off, or not JSON at all
                is_whole = False
                break
            at = start.end()
            continue
        documents += [document] if isinstance(document, dict) else []
    return ([] if is_page and text[at:].strip() else documents), is_whole


def no_json(body: bytes, headers: Mapping[str, str]) -> Response:
    """Describe a body that is not JSON."""
    html = "html" in headers.get("content-type", "") or body[:512].lstrip()[:1] == b"<"
    return Response(html=html, text=title_of(body) if html else plain_text_of(body))


def title_of(page: bytes) -> str:
    """Return the title or the first heading of an HTML page, or the message of an XML error."""
    text = page[:_MAX_PAGE_BYTES].decode("utf-8", "replace")
    for pattern in _TITLES:
        found = pattern.search(text)
        if found and (title := " ".join(unescape(_TAG.sub(" ", found[1])).split())):
            return title[:_MAX_TEXT]
    return ""


def plain_text_of(body: bytes) -> str:
    """Return the text of a body; empty if it is binary or JSON that was cut off."""
    try:
        text = body[:_MAX_PAGE_BYTES].decode(
            "utf-8", "strict" if len(body) < _MAX_PAGE_BYTES else "ignore"
        )
    except ValueError:
        return ""
    text = " ".join(text.split())
    is_json = text[:1] in ("{", "[", '"')
    return "" if is_json or not text.isprintable() else text[:_MAX_TEXT]


def declared_length(headers: Mapping[str, str]) -> int:
    """Return the ``Content-Length`` of an uncompressed body; 0 if it is unknown."""
    length = headers.get("content-length", "")
    is_plain = headers.get("content-encoding", "identity").strip().lower() in ("", "identity")
    return int(length) if is_plain and length.isascii() and length.isdecimal() else 0


def storable(url: str) -> str:
    """Return a URL that SQLite can store: lone surrogates are valid in JSON only."""
    return url.strip().encode("utf-8", "replace").decode()


def data_of_url(url: str) -> str | None:
    """Return the base64 text of a ``data:`` URL; None for any other URL."""
    return url.partition(",")[2] if url[:5].lower() == "data:" else None


def expiry_of(url: str) -> datetime | None:
    """Return when a signed URL expires, in UTC; None if the URL does not state it.

    Supports S3 (``X-Amz-Date`` with ``X-Amz-Expires``, and the same parameters of Google, Aliyun
    and Volcengine), ``Expires`` in Unix seconds, and Azure's ``se``.
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
