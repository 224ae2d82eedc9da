"""Decide what follows a failed download, which is free to repeat: retry, later or lost. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchResult:
    """The result of one failed download of an image."""

    status: int | None = None
    bad_image: str = ""
    """Why the bytes are not a usable image; empty if no bytes arrived."""
    forbidden: str = ""
    """Why the URL must not be requested."""
    detail: str = ""
    retry_after_s: float | None = None

    @property
    def reason(self) -> str:
        """The cause, in a few words."""
        if self.bad_image:
            return self.bad_image
        if self.status is not None:
            return f"HTTP {self.status}"
        return self.forbidden or self.detail

    @property
    def conclusive(self) -> bool:
        """Whether the image host responded, and not with a temporary error."""
        refused = self.status is not None and self.status not in _TEMPORARY
        return bool(self.bad_image) or refused


@dataclass(frozen=True, slots=True)
class FetchAgain:
    """Retry the same URL in this run after ``wait_s`` seconds."""

    wait_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class FetchLater:
    """Leave the job paid; the next run retries the download."""

    reason: str


@dataclass(frozen=True, slots=True)
class FetchLost:
    """Give up the image: its URL has expired and the last try failed."""

    reason: str


@dataclass(frozen=True, slots=True)
class FetchSpoiled:
    """The response contains no usable image; a retry would not change it."""

    reason: str


_REFERENCE_TRIES: Final = 3
_REFERENCE_MAX_WAIT_S: Final = 30.0
_TEMPORARY: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


def reference_wait_s(result: FetchResult, *, tries: int) -> float | None:
    """Return the seconds before the next download of a reference image; None to give up.

    ``tries`` includes this one. Nothing is paid yet, so permanent errors are not retried.
    """
    is_permanent = result.status is not None and result.status not in _TEMPORARY
    if is_permanent or result.forbidden or result.bad_image or tries >= _REFERENCE_TRIES:
        return None
    return max(2.0 ** (tries - 1), min(result.retry_after_s or 0.0, _REFERENCE_MAX_WAIT_S))


_WAITS_S: Final = (1.0, 2.0, 5.0, 15.0, 30.0, 60.0, 120.0)
"""Waits between the tries of one run. A run ends earlier if no other work is left."""
_EXTRA_WAITS_S: Final = _WAITS_S[:2]
"""Waits between the tries for an extra image."""
_MAX_ASKED_WAIT_S: Final = 3600.0
_EXPIRY_GRACE: Final = timedelta(hours=1)
"""Clocks differ, and many hosts serve a file for longer than they promise."""
_WITHOUT_EXPIRY: Final = timedelta(hours=24)
_MAX_HELD: Final = timedelta(days=30)
"""No signed URL is valid for longer; a later expiry was misread."""
_UNREACHED_GRACE: Final = timedelta(days=7)
"""Extra time for a host that does not respond: it has not said that the image is gone."""


def keep_until(*, answered_at: datetime, expires_at: datetime | None) -> datetime:
    """Return the time until which the image of a response may be downloaded.

    An expiry before the response itself was misread and is ignored.
    """
    if expires_at is None or expires_at <= answered_at:
        return answered_at + _WITHOUT_EXPIRY
    return min(expires_at, answered_at + _MAX_HELD) + _EXPIRY_GRACE


def asked_wait_s(result: FetchResult, *, now: datetime, expires_at: datetime | None) -> float:
    """Return the wait in seconds that the image host requests; 0.0 if it requests none.

    At most an hour, and at most half of the time that the URL is still valid.
    """
    wait_s = min(result.retry_after_s or 0.0, _MAX_ASKED_WAIT_S)
    if expires_at is not None and expires_at > now:
        wait_s = min(wait_s, (expires_at - now).total_seconds() / 2)
    return wait_s


def after_fetch(
    result: FetchResult, *, tries: int, now: datetime, until: datetime, asked_s: float = 0.0
) -> FetchAgain | FetchLater | FetchLost:
    """Decide what follows a failed download of a paid image.

    ``tries`` counts the tries of this run, including this one. ``now`` is when this try began, and
    ``until`` comes from `keep_until`: only a try after it can lose an image.
    """
    if now >= (until if result.conclusive else until + _UNREACHED_GRACE):
        return FetchLost(result.reason)
    if tries <= len(_WAITS_S):
        return FetchAgain(max(_WAITS_S[tries - 1], asked_s), result.reason)
    return FetchLater(result.reason)


def after_extra(result: FetchResult, *, tries: int) -> FetchAgain | FetchLost:
    """Decide what follows a failed download of an image beyond the requested one."""
    if tries <= len(_EXTRA_WAITS_S):
        return FetchAgain(_EXTRA_WAITS_S[tries - 1], result.reason)
    return FetchLost(result.reason)
