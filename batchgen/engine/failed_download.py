"""Decide what follows a failed download of a paid image, and what the ledger records."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from batchgen.ledger.records import DueImage
from batchgen.outcomes.download_policy import (
    FetchAgain,
    FetchLater,
    FetchLost,
    FetchResult,
    after_extra,
    after_fetch,
    asked_wait_s,
    keep_until,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedDownload:
    """A failed download and the decision about it."""

    decision: FetchAgain | FetchLater | FetchLost
    trouble: str
    """Why the download failed."""
    reason: str
    """Why the job is still ``paid``."""
    not_before: datetime | None
    """Time until which the image host asked to wait."""


def failed_download(
    image: DueImage, result: FetchResult, *, tries: int, began: datetime
) -> FailedDownload:
    """Decide what follows a failed try; ``tries`` counts the tries in this run, with this one."""
    until = _until(image)
    asked_s = asked_wait_s(result, now=began, expires_at=_moment(image.expires_at))
    decision = (
        after_extra(result, tries=tries)
        if image.rank
        else after_fetch(result, tries=tries, now=began, until=until, asked_s=asked_s)
    )
    so_far = "1 try" if image.tries == 0 else f"{image.tries + 1:,} tries"
    reason = f"download: {result.reason} ({so_far}; tried until {_minute(until)})"
    match decision:
        case FetchAgain(wait_s):
            decision = FetchAgain(wait_s, reason)
        case FetchLater():
            decision = FetchLater(reason)
        case FetchLost() if image.rank == 0:
            decision = FetchLost(
                f"{result.reason}; {so_far} from {_minute(_answered(image))} to"
                f" {_minute(began)}; `batchgen retry` downloads from the stored URL once more"
            )
    return FailedDownload(
        decision=decision,
        trouble=result.reason,
        reason=reason,
        not_before=began + timedelta(seconds=asked_s) if asked_s else None,
    )


def wait_asked_before(image: DueImage, now: datetime) -> FetchAgain | None:
    """Return the remaining wait that the image host requested after an earlier try, if any."""
    not_before = _moment(image.not_before)
    if not_before is None or not_before <= now:
        return None
    wait_s = (not_before - now).total_seconds()
    return FetchAgain(wait_s, f"download: {image.trouble}")


def is_overdue(image: DueImage, now: datetime) -> bool:
    """Return whether the time to download an image is over."""
    return now >= _until(image)


def _until(image: DueImage) -> datetime:
    return keep_until(answered_at=_answered(image), expires_at=_moment(image.expires_at))


def _answered(image: DueImage) -> datetime:
    return datetime.fromisoformat(image.answered_at)


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
