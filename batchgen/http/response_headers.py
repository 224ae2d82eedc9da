"""The response headers that the spool and the ledger keep."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache
from typing import Final

from batchgen.outcomes.retry_after import is_wait_header

_KEPT: Final = frozenset(
    {
        "content-encoding",
        "content-type",
        "content-length",
        "date",
        "location",
        "x-should-retry",
        "x-oneapi-request-id",
        "x-request-id",
        "request-id",
        "cf-ray",
    }
)
_MAX_VALUE_CHARS: Final = 4096


def kept_headers(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return the headers that classification and people need, with lower-case names.

    Values of a repeated header are joined by commas (RFC 9110, section 5.3). Without a ``Date``
    from the server, the current time is stored: times in other headers are relative to it, and a
    later run may read them.
    """
    kept: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name = _kept_name(raw_name)
        if name is not None:
            value = raw_value.decode("utf-8", "replace")
            joined = f"{kept[name]}, {value}" if name in kept else value
            kept[name] = joined[:_MAX_VALUE_CHARS]
    if "date" not in kept:
        kept["date"] = format_datetime(datetime.now(UTC), usegmt=True)
    return kept


@lru_cache(maxsize=256)
def _kept_name(raw_name: bytes) -> str | None:
    """Return the name of a header in lower case; None for one that is not kept."""
    name = raw_name.decode("latin-1").lower()
    return name if name in _KEPT or is_wait_header(name) else None


def first_header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str | None:
    """Return the first value of a header; ``name`` is in lower case.

    `httpx.Headers` guesses the encoding of all values for each look-up, which costs 8 us.
    """
    for raw_name, value in headers:
        if raw_name.lower() == name:
            return value.decode("utf-8", "replace")
    return None
