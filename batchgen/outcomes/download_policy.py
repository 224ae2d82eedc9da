"""Rules for a failed download, which is free to repeat: again, later or lost."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchResult:
    """How one try to download an image ended."""

    status: int | None = None
    bad_image: str = ""
    """Why the bytes are no usable image; empty where none came."""
    forbidden: str = ""
    """Why the address may not be asked at all."""
    detail: str = ""
    retry_after_s: float | None = None

    @property
    def reason(self) -> str:
        """Return the cause in a few words."""
        if self.bad_image:
            return self.bad_image
        if self.status is not None:
            return f"HTTP {self.status}"
        return self.forbidden or self.detail

    @property
    def conclusive(self) -> bool:
        """Whether the image host itself responded, and not with a passing error."""
        refused = self.status is not None and self.status not in _PASSING
        return bool(self.bad_image) or refused


@dataclass(frozen=True, slots=True)
class FetchAgain:
    """Try the same URL again in this run after this many seconds."""

    wait_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class FetchLater:
    """Leave the job paid; the next run tries again."""

    reason: str


@dataclass(frozen=True, slots=True)
class FetchLost:
    """Give the image up: its time is over and the last try failed."""

    reason: str


@dataclass(frozen=True, slots=True)
class FetchSpoiled:
    """The response itself holds no usable image; reading it again changes nothing."""

    reason: str


_REFERENCE_TRIES: Final = 3
_REFERENCE_MAX_WAIT_S: Final = 30.0
_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


def reference_wait_s(result: FetchResult, *, tries: int) -> float | None:
    """How long to wait before a reference image is asked for again; None to give it up.

    ``tries`` counts this one. Nothing is paid yet: what will hardly get better is not waited for.
    """
    answered = result.status is not None and result.status not in _PASSING
    if answered or result.forbidden or result.bad_image or tries >= _REFERENCE_TRIES:
        return None
    return max(2.0 ** (tries - 1), min(result.retry_after_s or 0.0, _REFERENCE_MAX_WAIT_S))


_WAITS_S: Final = (1.0, 2.0, 5.0, 15.0, 30.0, 60.0, 120.0)
"""Between the tries of one run; a run ends earlier when nothing else is left to do."""
_EXTRA_WAITS_S: Final = _WAITS_S[:2]
"""Between the tries for an extra image."""
_MAX_ASKED_WAIT_S: Final = 3600.0
_EXPIRY_GRACE: Final = timedelta(hours=1)
"""Clocks differ, and many hosts serve a file a while longer than they promise."""
_WITHOUT_EXPIRY: Final = timedelta(hours=24)
_MAX_HELD: Final = timedelta(days=30)
"""No signed URL works this long; an expiry after it was misread."""
_UNREACHED_GRACE: Final = timedelta(days=7)
"""An image host that did not respond at all has not said that the image is gone."""


def keep_until(*, answered_at: datetime, expires_at: datetime | None) -> datetime:
    """Return until when the image of a response may still be downloaded.

    An expiry before the response was misread and does not count.
    """
    if expires_at is None or expires_at <= answered_at:
        return answered_at + _WITHOUT_EXPIRY
    return min(expires_at, answered_at + _MAX_HELD) + _EXPIRY_GRACE


def asked_wait_s(result: FetchResult, *, now: datetime, expires_at: datetime | None) -> float:
    """Return how long the image host asks to wait, in seconds; 0.0 where it does not ask.

    At most an hour, and at most half of the time that the URL still works.
    """
    wait_s = min(result.retry_after_s or 0.0, _MAX_ASKED_WAIT_S)
    if expires_at is not None and expires_at > now:
        wait_s = min(wait_s, (expires_at - now).total_seconds() / 2)
    return wait_s


def after_fetch(
    result: FetchResult, *, tries: int, now: datetime, until: datetime, asked_s: float = 0.0
) -> FetchAgain | FetchLater | FetchLost:
    """Decide on a failed download of a paid image.

    ``tries`` counts the tries of this run, this one included; ``now`` is when this one began, and
    ``until`` comes from `keep_until`. Only a try after ``until`` can lose an image.
    """
    if now >= (until if result.conclusive else until + _UNREACHED_GRACE):
        return FetchLost(result.reason)
    if tries <= len(_WAITS_S):
        return FetchAgain(max(_WAITS_S[tries - 1], asked_s), result.reason)
    return FetchLater(result.reason)


def after_extra(result: FetchResult, *, tries: int) -> FetchAgain | FetchLost:
    """Decide on a failed download of an image that came in addition to the requested one."""
    if tries <= len(_EXTRA_WAITS_S):
        return FetchAgain(_EXTRA_WAITS_S[tries - 1], result.reason)
    return FetchLost(result.reason)
