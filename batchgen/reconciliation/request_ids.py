"""Which request ids of a log cannot belong to our requests: by their form, and by their time.

Pure. Ids of new-api begin with the time at which the request arrived, fourteen digits of the
gateway's local time (Crazyrouter sheet, sections 6 and 8).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

Form = tuple[int, tuple[tuple[int, str], ...], bool]

_TIME: Final = re.compile(r"20[0-9]{12}")
_ZONE_STEP: Final = timedelta(minutes=15)
"""Time zones differ by whole quarters of an hour."""
_MAX_ZONE: Final = timedelta(hours=15)


def form_of(request_id: str) -> Form:
    """Length, separators and whether it begins with a time: alike for ids of one gateway."""
    separators = tuple((n, char) for n, char in enumerate(request_id) if not char.isalnum())
    return len(request_id), separators, time_of(request_id) is not None


def time_of(request_id: str) -> datetime | None:
    """Return the time that an id begins with, as if it were UTC; None where there is none."""
    if not _TIME.match(request_id):
        return None
    try:
        return datetime.strptime(request_id[:14], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class KnownIds:
    """What the ids of our own requests have in common."""

    forms: frozenset[Form] = frozenset()
    """Empty where no id of ours is known, so that nothing can be compared."""
    zone: timedelta | None = None
    """How far the time in an id is ahead of UTC; None where our ids do not agree on one."""

    @classmethod
    def of(cls, known: Iterable[tuple[str, datetime]]) -> KnownIds:
        """Learn from ids of our requests and the moments at which these were sent."""
        forms, zones = set[Form](), set[timedelta | None]()
        for request_id, sent_at in known:
            forms.add(form_of(request_id))
            zones.add(_zone(request_id, sent_at))
        return cls(frozenset(forms), zones.pop() if len(zones) == 1 else None)

    def is_foreign(self, request_id: str) -> bool:
        """Whether an id has another form than all of ours."""
        return bool(self.forms) and form_of(request_id) not in self.forms

    def sent_at(self, request_id: str) -> datetime | None:
        """Return when the request of an id arrived at the gateway; None where nothing says it."""
        moment = None if self.zone is None else time_of(request_id)
        return None if moment is None or self.zone is None else moment - self.zone


def _zone(request_id: str, sent_at: datetime) -> timedelta | None:
    moment = time_of(request_id)
    if moment is None:
        return None
    zone = round((moment - sent_at) / _ZONE_STEP) * _ZONE_STEP
    return zone if abs(zone) <= _MAX_ZONE else None
