"""What a plan comes to in money, and what it would come to if things went otherwise.

Pure: the figures go in as arguments. The what-if is the calculator of the provider's own guides
(Crazyrouter sheet, section 12).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import Final

from batchgen.money import ZERO, Micros
from batchgen.planning.pace import Pace

DEFAULT_AGAIN_PERCENT: Final = Decimal(8)
DEFAULT_ACCEPTED_PERCENT: Final = Decimal(70)
"""The guide's own assumptions, for a catalogue that has no history yet."""
MIN_FOR_SHARES: Final = 20
"""Of fewer images, no share is worth a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """A plan's price if so many images are made again and so many are accepted."""

    again_percent: Decimal
    accepted_percent: Decimal
    total: Micros
    per_accepted: Micros | None
    """None where nothing would be accepted."""


def what_if(
    images: int, cost: Micros, *, again_percent: Decimal, accepted_percent: Decimal
) -> WhatIf:
    """Price ``images`` that cost ``cost`` in all, rounded up to whole micros."""
    total = _divided(cost * (_WHOLE + _parts(again_percent)), _WHOLE)
    accepted = images * _parts(accepted_percent)
    return WhatIf(
        again_percent=again_percent,
        accepted_percent=accepted_percent,
        total=total,
        per_accepted=_divided(total * _WHOLE, accepted) if accepted else None,
    )


_WHOLE: Final = 10_000
"""A whole, in hundredths of a percent."""


def _parts(percent: Decimal) -> int:
    return int(percent * 100)


def _divided(amount: int, by: int) -> Micros:
    return Micros(-(-amount // by))


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
class Quote:
    """What a run is about to cost and take."""

    requests: int
    cost: Micros
    pace: Pace
    what_if: WhatIf | None
    """None for so few images that shares say nothing."""
    limit: int | None = None
    """How many requests the run sends at most, where that is fewer than are due."""
    due: int = 0
    """The requests without that limit, and what they cost."""
    due_cost: Micros = ZERO

    def limited(self, requests: int, cost: Micros, limit: int) -> Quote:
        """Return the quote of a run that sends the first requests only."""
        return replace(
            self,
            requests=requests,
            cost=cost,
            limit=limit,
            due=self.requests,
            due_cost=self.cost,
        )
