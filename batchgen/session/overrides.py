"""Command-line flags that take precedence over the manifest."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from batchgen.errors import SettingsError
from batchgen.ledger.key_patterns import Only
from batchgen.ledger.selection import Selection
from batchgen.manifest.field_types import is_refresh

_TIME_OF_DAY: Final = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """Flags of one command, unparsed; None where a flag is not given."""

    concurrency: int | None = None
    max_cost: str | None = None
    max_waste: str | None = None
    limit: int | None = None
    grace_s: float | None = None
    overwrite: bool = False
    accept_unknown_price: bool = False
    yes: bool = False
    """Whether to skip every question and go as far as the budgets reach."""
    only: Only | None = None
    refresh: str | None = None
    since: datetime | None = None
    keep_rejected: bool = False
    until: str | None = None
    log_file: Path | None = None
    again: str | None = None
    accepted: str | None = None
    db: Path | None = None
    adopt: bool = False
    """Whether a batch may continue with a manifest at another path."""
    on: str | None = None
    """The cluster whose actors carry out the orders; None for this process."""
    actors: int | None = None
    """How many actors to start; None for one on each node."""
    is_sample: bool = False
    """Whether `try` runs a sample, and proposes the next step itself if all is well."""
    take_over: bool = False
    """Whether a run that cannot be checked from this machine counts as dead."""

    def deadline(self, now: datetime) -> datetime | None:
        """Return the time after which no request starts. Raises SettingsError."""
        if self.until is None:
            return None
        try:
            return deadline_of(self.until, now)
        except ValueError as exc:
            raise SettingsError(f"--until: {exc}") from exc

    @property
    def selection(self) -> Selection:
        """Which jobs to take up, and which images to regenerate. Raises SettingsError."""
        if self.refresh is not None and not is_refresh(self.refresh):
            raise SettingsError(
                f"--refresh: not a valid value: {self.refresh!r}; expected changed, always or an"
                " age like 30d"
            )
        return Selection(
            only=self.only,
            refresh=self.refresh,
            since=self.since,
            keep_rejected=self.keep_rejected,
        )


def deadline_of(text: str, now: datetime) -> datetime:
    """Return the next time of day like ``06:00`` after ``now``, or an ISO date and time.

    Without a zone in the text, the zone of ``now`` applies. Raises ValueError for text that is not
    a time, and for a time in the past.
    """
    written = text.strip()
    if match := _TIME_OF_DAY.fullmatch(written):
        at = now.replace(hour=int(match[1]), minute=int(match[2]), second=0, microsecond=0)
        return at if at > now else at + timedelta(days=1)
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        raise ValueError(
            f"not a valid time: {text!r}; expected a time like 06:00 or 2026-11-23T06:00"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=now.tzinfo)
    if moment <= now:
        raise ValueError(f"time is in the past: {text!r}; expected a later time")
    return moment
