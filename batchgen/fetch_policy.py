"""What follows from a failed download, which is free to repeat: again, later, lost or spoiled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchResult:
    """How one try to download a picture ended."""

    status: int | None = None
    bad_picture: str = ""
    """Why the bytes are no usable picture; empty where none came."""
    forbidden: str = ""
    """Why the address may not be asked at all."""
    detail: str = ""
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class FetchAgain:
    """Try the same address again after so many seconds."""

    wait_s: float


@dataclass(frozen=True, slots=True)
class FetchLater:
    """Give up for this run; the job stays paid and the next run goes on."""

    reason: str


@dataclass(frozen=True, slots=True)
class FetchLost:
    """The paid picture can't be had from this address any more."""

    reason: str


@dataclass(frozen=True, slots=True)
class FetchSpoiled:
    """What the provider serves is no usable picture."""

    reason: str


_REFERENCE_TRIES: Final = 3
_REFERENCE_MAX_WAIT_S: Final = 30.0
_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


def reference_wait_s(result: FetchResult, *, tries: int) -> float | None:
    """How long to wait before a reference image is asked for again; None to give it up.

    ``tries`` counts this one. Nothing is paid yet: what will hardly get better is not waited for.
    """
    answered = result.status is not None and result.status not in _PASSING
    if answered or result.forbidden or result.bad_picture or tries >= _REFERENCE_TRIES:
        return None
    return max(2.0 ** (tries - 1), min(result.retry_after_s or 0.0, _REFERENCE_MAX_WAIT_S))


_GONE: Final = frozenset({403, 404, 410})
_GONE_TRIES: Final = 4
_BAD_TRIES: Final = 3
_FETCH_TRIES: Final = 8
_FETCH_MAX_WAIT_S: Final = 60.0


def after_fetch(
    result: FetchResult, *, tries: int
) -> FetchAgain | FetchLater | FetchLost | FetchSpoiled:
    """Decide on a failed download; ``tries`` counts this one.

    A download is free, so it is tried hard; an address that is gone gets a few short tries, because
    a fresh one may need a moment to appear.
    """
    if result.forbidden:
        return FetchLater(result.forbidden)
    wait_s = min(2.0 ** (tries - 1), _FETCH_MAX_WAIT_S)
    if result.bad_picture:
        if tries < _BAD_TRIES:
            return FetchAgain(wait_s)
        return FetchSpoiled(result.bad_picture)
    if result.status in _GONE:
        if tries < _GONE_TRIES:
            return FetchAgain(wait_s)
        return FetchLost(f"HTTP {result.status}: the address of the picture is gone")
    if tries < _FETCH_TRIES:
        return FetchAgain(max(wait_s, min(result.retry_after_s or 0, _FETCH_MAX_WAIT_S)))
    what = f"HTTP {result.status}" if result.status else result.detail
    return FetchLater(f"download failed {tries} times, last with {what}")
