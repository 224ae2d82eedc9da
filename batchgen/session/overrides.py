"""When a run that was told ``--until`` starts nothing new. The moment of asking is an argument."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Final

_TIME: Final = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])")


def deadline_of(text: str, now: datetime) -> datetime:
    """The next ``06:00`` behind ``now``, or the moment of an ISO date and time.

    Both are of the zone of ``now``, unless the text names one. Raises ValueError for what is no
    time, or lies in the past.
    """
    written = text.strip()
    if match := _TIME.fullmatch(written):
        at = now.replace(hour=int(match[1]), minute=int(match[2]), second=0, microsecond=0)
        return at if at > now else at + timedelta(days=1)
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        raise ValueError(f"{text!r} is no time like 06:00 or 2026-11-23T06:00") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=now.tzinfo)
    if moment <= now:
        raise ValueError(f"{text!r} is over already")
    return moment
