"""Read how long a provider asks to wait, in all known formats. Pure: no clock.

If several sources disagree, the first of these applies:

1. ``retry-after-ms``, ``x-ms-retry-after-ms``, ``retry-after``, ``x-retry-after``: an instruction
   for this request. The first one with a wait applies; of a repeated header, the longest wait.
2. ``retryDelay`` (Google) or ``retry_after`` in the error: the same instruction in the body.
3. ``ratelimit`` and all ``*-ratelimit-reset*`` headers: the state of several limits, of which one
   is exhausted. Limits with a remaining amount above 0 are ignored. Of the others, the longest wait
   applies: a request after a shorter one would be refused again.
4. A phrase in the message ("Please try again in 7m12s").
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

_REQUEST_UNITS: Final = frozenset({"requests", "request", "images", "image"})
_MAX_REFILL_S: Final = 300.0
"""A limit that takes longer to refill counts a day or a month, and no even rate follows from it."""
MAX_WAIT_S: Final = 366 * 86_400.0
"""Longer waits are cut to this. A run never waits so long: it stops and reports the wait."""
_MAX_CHARS: Final = 200

_UNITS_S: Final = {
    "ns": 1e-9,
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3_600.0,
    "d": 86_400.0,
    "w": 604_800.0,
}
_UNIT_NAMES: Final = {
    **{unit: unit for unit in _UNITS_S},
    **dict.fromkeys(("nanosecond", "nanoseconds"), "ns"),
    **dict.fromkeys(("µs", "μs", "microsecond", "microseconds"), "us"),
    **dict.fromkeys(("msec", "msecs", "millis", "millisecond", "milliseconds", "毫秒"), "ms"),
    **dict.fromkeys(("sec", "secs", "second", "seconds", "秒", "秒钟"), "s"),
    **dict.fromkeys(("min", "mins", "minute", "minutes", "分", "分钟"), "m"),
    **dict.fromkeys(("hr", "hrs", "hour", "hours", "小时", "个小时"), "h"),
    **dict.fromkeys(("day", "days", "天"), "d"),
    **dict.fromkeys(("week", "weeks"), "w"),
}
_UNIT: Final = "|".join(sorted(map(re.escape, _UNIT_NAMES), key=len, reverse=True))
_PART: Final = rf"(\d{{1,15}}(?:\.\d{{1,15}})?)\s*({_UNIT})(?![a-z])"
_DURATION: Final = rf"{_PART}(?:(?:\s*,?\s*(?:and\s+)?){_PART}){{0,6}}"
_NUMBER: Final = re.compile(r"\d{1,15}(?:\.\d{1,15})?")
_IN_WORDS: Final = (
    r"(?:(?:try(?:ing)?\s+again|retry(?:ing)?|wait(?:ing)?|resets?|available(?:\s+again)?)"
    r"(?:\s+(?:in|after|for|at\s+least|about|approximately|another))*\s+"
    r"|请在?等待?\s*|等待\s*)"
    rf"(?P<wait>{_DURATION})"
    rf"|(?P<wait_cn>{_DURATION})\s*(?:之?后|以后)"
)
"""Compiled when it is first searched for: it is long, and few responses name a wait."""
_RESET: Final = re.compile(
    r"(?:x-|anthropic-)?rate-?limit-(?:(?P<of>[a-z-]+)-)?reset(?:-(?P<after>[a-z-]+))?"
)
_NAMES: Final = frozenset(
    ("retry-after", "retry-after-ms", "x-ms-retry-after-ms", "x-retry-after", "ratelimit")
)
"""https://learn.microsoft.com/en-us/rest/api/cosmos-db/common-cosmosdb-rest-response-headers has
``x-ms-retry-after-ms``."""
_EPOCH_S: Final = 1e9
"""A number from here on is a Unix time in seconds (since 2001), not a wait of 30 years."""
_EPOCH_MS: Final = 1e12


def is_wait_header(name: str) -> bool:
    """Return whether a header, named in lower case, may contain a wait or describe a limit."""
    return (
        name in _NAMES
        or _RESET.fullmatch(name) is not None
        or _RESET.fullmatch(name.replace("remaining", "reset")) is not None
        or _RESET.fullmatch("reset".join(name.rsplit("limit", 1))) is not None
    )


def request_gap(headers: Mapping[str, str]) -> float | None:
    """Return the mean seconds between requests that the limit headers of a 429 allow.

    Reads ``x-ratelimit-limit-requests``, ``-remaining-`` and ``-reset-`` and the spellings without
    a unit: a bucket that is full again after the reset refills one request in ``reset / (limit -
    remaining)``. Of several limits, the longest gap applies. None if no limit is exhausted.
    https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers
    """
    now = _date(headers.get("date", ""))
    gaps = []
    for name, value in headers.items():
        found = _RESET.fullmatch(name)
        if found is None or (found["of"] or found["after"] or "requests") not in _REQUEST_UNITS:
            continue
        limit = _count(headers.get(name.replace("reset", "limit"), ""))
        remaining = _count(headers.get(name.replace("reset", "remaining"), "0"))
        wait_s = _instruction(value, now)
        if limit and remaining == 0 and wait_s is not None and wait_s <= _MAX_REFILL_S:
            gaps.append(wait_s / limit)
    return max(gaps, default=None)


def _count(text: str) -> float | None:
    text = text.strip()
    return float(text) if _NUMBER.fullmatch(text) else None


def retry_after(
    headers: Mapping[str, str], *, delay_s: float | None = None, message: str = ""
) -> float | None:
    """Return the seconds to wait; None if the response names no wait.

    Header names are in lower case. Times are relative to the server's ``Date`` header and ignored
    without one. ``delay_s`` comes from a field of the body, ``message`` from the error. Values that
    are negative, zero, not finite or in the past are ignored.
    """
    now = _date(headers.get("date", ""))
    for wait_s in (
        _milliseconds(headers.get("retry-after-ms", "")),
        _milliseconds(headers.get("x-ms-retry-after-ms", "")),
        _instruction(headers.get("retry-after", ""), now),
        _instruction(headers.get("x-retry-after", ""), now),
        _valid(delay_s),
        _limits(headers, now),
        wait_in_words(message),
    ):
        if wait_s is not None:
            return wait_s
    return None


def duration(text: str) -> float | None:
    """Parse a duration like ``20``, ``1.5s``, ``7h59m12s``, ``2 days, 3 hours`` or ``20 秒``.

    Returns seconds, or None for any other text and for zero.
    """
    text = text.strip().casefold()
    if len(text) > _MAX_CHARS:
        return None
    if _NUMBER.fullmatch(text):
        return _valid(float(text))
    return _sum(text) if re.fullmatch(_DURATION, text) else None


def wait_in_words(message: str) -> float | None:
    """Return the wait in seconds that a message names, as in "Please try again in 7m12s"."""
    found = re.search(_IN_WORDS, message[:4096].casefold())
    return _sum(found["wait"] or found["wait_cn"]) if found else None


def _sum(text: str) -> float | None:
    parts = re.findall(_PART, text)
    units = [_UNIT_NAMES[unit] for _, unit in parts]
    if len(set(units)) < len(units):
        return None
    return _valid(
        math.fsum(
            float(amount) * _UNITS_S[unit] for (amount, _), unit in zip(parts, units, strict=True)
        )
    )


def _valid(seconds: float | None) -> float | None:
    if seconds is None or not math.isfinite(seconds) or seconds <= 0:
        return None
    return min(seconds, MAX_WAIT_S)


def _milliseconds(text: str) -> float | None:
    try:
        return _valid(float(text) / 1000)
    except ValueError:
        return None


def _instruction(text: str, now: datetime | None) -> float | None:
    if len(text) > _MAX_CHARS:
        return None
    whole = _wait(text, now)
    if whole is not None:
        return whole
    # A repeated header, joined by commas.
    several = [_wait(part, now) for part in text.split(",")]
    known = [wait_s for wait_s in several if wait_s is not None]
    return max(known) if known and len(known) == len(several) else None


def _wait(text: str, now: datetime | None) -> float | None:
    """Parse a duration, or the time at which the wait ends, to seconds."""
    text = text.strip()
    if len(text) > _MAX_CHARS:
        return None
    if _NUMBER.fullmatch(text) and (number := float(text)) >= _EPOCH_S:
        seconds = number / 1000 if number >= _EPOCH_MS else number
        return _valid(seconds - now.timestamp()) if now else None
    wait_s = duration(text)
    if wait_s is not None:
        return wait_s
    then = _date(text)
    return _valid((then - now).total_seconds()) if then and now else None


def _limits(headers: Mapping[str, str], now: datetime | None) -> float | None:
    waits = [*_resets(headers, now), *_draft_limits(headers.get("ratelimit", ""))]
    return max(waits, default=None)


def _resets(headers: Mapping[str, str], now: datetime | None) -> Iterator[float]:
    for name, value in headers.items():
        if _RESET.fullmatch(name) is None:
            continue
        remaining = headers.get(name.replace("reset", "remaining"), "").strip()
        if _NUMBER.fullmatch(remaining) and float(remaining) > 0:
            continue
        wait_s = _instruction(value, now)
        if wait_s is not None:
            yield wait_s


_FIELD: Final = re.compile(r"\b(r|t|remaining|reset)\s*=\s*(\d{1,9})\b")


def _draft_limits(text: str) -> Iterator[float]:
    """Yield waits from ``"minute";r=0;t=30, "day";r=90;t=3600`` or ``remaining=0, reset=30``.

    Both are formats of https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/.
    """
    if len(text) > 1000:
        return
    for item in text.split(",") if ";" in text else [text]:
        found = dict(_FIELD.findall(item.lower()))
        wait_s = _valid(float(found.get("t") or found.get("reset") or 0))
        if wait_s is not None and int(found.get("r") or found.get("remaining") or 0) == 0:
            yield wait_s


def _date(text: str) -> datetime | None:
    if not text or len(text) > _MAX_CHARS:
        return None
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            parsed = read(text)
        except (ValueError, IndexError, TypeError, OverflowError):
            continue
        return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    return None
