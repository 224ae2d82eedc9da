"""What a plan comes to in money and time, and what it would come to if things went otherwise.

Pure: the figures go in as arguments. The what-if is the calculator of the provider's own guides
(Crazyrouter sheet, section 12).
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import Final

from batchgen.money import Micros

DEFAULT_AGAIN_PERCENT: Final = Decimal(8)
DEFAULT_ACCEPTED_PERCENT: Final = Decimal(70)
"""The guide's own assumptions, for a catalogue that has no history yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """A plan's price if so many pictures are made again and so many are accepted."""

    again_percent: Decimal
    accepted_percent: Decimal
    total: Micros
    per_accepted: Micros | None
    """None where nothing would be accepted."""


def what_if(
    pictures: int, cost: Micros, *, again_percent: Decimal, accepted_percent: Decimal
) -> WhatIf:
    """Price ``pictures`` that cost ``cost`` in all, rounded up to whole micros."""
    total = _up(cost * (100 + again_percent) / 100)
    accepted = pictures * accepted_percent / 100
    return WhatIf(
        again_percent=again_percent,
        accepted_percent=accepted_percent,
        total=total,
        per_accepted=_up(total / accepted) if accepted else None,
    )


def _up(amount: Decimal) -> Micros:
    return Micros(int(amount.to_integral_value(ROUND_CEILING)))


def parse_percent(text: str) -> Decimal:
    """``8%`` or ``8``. Raises ValueError."""
    written = text.strip()
    try:
        percent = Decimal(written.removesuffix("%").strip())
    except InvalidOperation:
        raise ValueError(f"{written!r} is not a share like 8%") from None
    if not percent.is_finite() or not 0 <= percent <= 100:
        raise ValueError(f"{written!r} is not a share from 0% to 100%")
    return percent


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast requests may leave, and how long they have taken so far."""

    concurrency: int
    per_minute: float | None
    """Requests a minute at most; None without such a limit."""
    latency_s: float | None
    """Of the last answers; None while nobody has answered."""


def expected_s(requests: int, pace: Pace) -> float | None:
    """How long so many requests will take; None where nothing is known of it."""
    by_rate_s = requests * 60 / pace.per_minute if pace.per_minute else None
    if pace.latency_s is None:
        return by_rate_s
    rounds = -(-requests // pace.concurrency)
    return max(rounds * pace.latency_s, by_rate_s or 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """What a run is about to cost and take."""

    requests: int
    cost: Micros
    pace: Pace
    what_if: WhatIf

    @property
    def expected_s(self) -> float | None:
        """Seconds, as far as anything is known."""
        return expected_s(self.requests, self.pace)
