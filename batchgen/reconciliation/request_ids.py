"""Recognize request ids in a log that cannot be ours, by their format and their time. Pure.

Request ids of new-api begin with the arrival time of the request: fourteen digits in the local time
of the gateway (https://github.com/QuantumNous/new-api, ``middleware/request-id.go``).
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
"""UTC offsets are multiples of 15 minutes."""
_MAX_ZONE: Final = timedelta(hours=15)


def form_of(request_id: str) -> Form:
    """Return length, separators and whether it begins with a time; equal for ids of a gateway."""
    separators = tuple((n, char) for n, char in enumerate(request_id) if not char.isalnum())
    return len(request_id), separators, time_of(request_id) is not None


def time_of(request_id: str) -> datetime | None:
    """Return the time at the start of an id, interpreted as UTC; None without one."""
    if not _TIME.match(request_id):
        return None
    try:
        return datetime.strptime(request_id[:14], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class KnownIds:
    """The common properties of the ids of our requests."""

    forms: frozenset[Form] = frozenset()
    """Empty if no id of ours is known; then no id is foreign."""
    zone: timedelta | None = None
    """The UTC offset of times in ids; None if our ids do not agree on one."""

    @classmethod
    def of(cls, known: Iterable[tuple[str, datetime]]) -> KnownIds:
        """Derive the properties from ids of our requests and the times they were sent."""
        forms, zones = set[Form](), set[timedelta | None]()
        for request_id, sent_at in known:
            forms.add(form_of(request_id))
            zones.add(_zone(request_id, sent_at))
        return cls(frozenset(forms), zones.pop() if len(zones) == 1 else None)

    def is_foreign(self, request_id: str) -> bool:
        """Return whether the format of an id differs from all of ours."""
        return bool(self.forms) and form_of(request_id) not in self.forms

    def sent_at(self, request_id: str) -> datetime | None:
        """Return when the request with this id arrived at the gateway; None if unknown."""
        moment = None if self.zone is None else time_of(request_id)
        return None if moment is None or self.zone is None else moment - self.zone


def _zone(request_id: str, sent_at: datetime) -> timedelta | None:
    moment = time_of(request_id)
    if moment is None:
        return None
    zone = round((moment - sent_at) / _ZONE_STEP) * _ZONE_STEP
    return zone if abs(zone) <= _MAX_ZONE else None
