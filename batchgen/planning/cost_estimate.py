"""Estimate the cost and duration of a run. Pure: all figures are arguments."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import Final

from batchgen.money import ZERO, Micros

DEFAULT_AGAIN_PERCENT: Final = Decimal(8)
DEFAULT_ACCEPTED_PERCENT: Final = Decimal(70)
"""Assumptions of the provider's cost calculator, used for a catalog without history:
https://github.com/xujfcn/crazyrouter-seo-nextjs, components/cost-calculator.tsx"""
MIN_FOR_SHARES: Final = 20
"""With fewer images, percentages are too coarse to show."""
_WHOLE: Final = 10_000
"""100 %, in hundredths of a percent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """The price of a plan if these shares of its images are regenerated and accepted."""

    again_percent: Decimal
    accepted_percent: Decimal
    total: Micros
    per_accepted: Micros | None
    """None if no image would be accepted."""


def what_if(
    images: int, cost: Micros, *, again_percent: Decimal, accepted_percent: Decimal
) -> WhatIf:
    """Return the price of ``images`` that cost ``cost`` in total, rounded up to whole micros."""
    total = _divide(cost * (_WHOLE + _hundredths(again_percent)), _WHOLE)
    accepted = images * _hundredths(accepted_percent)
    return WhatIf(
        again_percent=again_percent,
        accepted_percent=accepted_percent,
        total=total,
        per_accepted=_divide(total * _WHOLE, accepted) if accepted else None,
    )


def _hundredths(percent: Decimal) -> int:
    return int(percent * 100)


def _divide(amount: int, by: int) -> Micros:
    """Divide, rounding up."""
    return Micros(-(-amount // by))


def parse_percent(text: str) -> Decimal:
    """Parse ``8%`` or ``8``. Raises ValueError."""
    written = text.strip()
    try:
        percent = Decimal(written.removesuffix("%").strip())
    except InvalidOperation:
        raise ValueError(f"not a percentage: {written!r}; expected a number like 8%") from None
    if not percent.is_finite() or not 0 <= percent <= 100:
        raise ValueError(f"percentage out of range: {written!r}; expected 0% to 100%")
    return percent


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The limits on how fast requests may start, and how long recent ones took."""

    concurrency: int
    per_minute: float | None
    """Maximum requests per minute; None if unlimited."""
    latency_s: float | None
    """Average of the latest responses; None without any."""
    measured_per_minute: float | None = None
    """Images per minute in the last run of the batch; None if that run was too short."""

    def expected_s(self, requests: int) -> float | None:
        """Return how long this many requests will take; None if nothing is known yet."""
        by_rate_s = requests * 60 / self.per_minute if self.per_minute else None
        if self.measured_per_minute:
            return max(requests * 60 / self.measured_per_minute, by_rate_s or 0.0)
        if self.latency_s is None:
            return by_rate_s
        rounds = -(-requests // self.concurrency)
        return max(rounds * self.latency_s, by_rate_s or 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The expected cost and duration of a run."""

    requests: int
    cost: Micros
    pace: Pace
    what_if: WhatIf | None
    """None if the plan has too few images for percentages."""
    limit: int | None = None
    """Maximum requests of this run; None if all that are due are sent."""
    due: int = 0
    """Requests without that limit."""
    due_cost: Micros = ZERO
    """Cost without that limit."""

    def limited(self, requests: int, cost: Micros, limit: int) -> Estimate:
        """Return the estimate of a run that sends only the first requests."""
        return replace(
            self,
            requests=requests,
            cost=cost,
            limit=limit,
            due=self.requests,
            due_cost=self.cost,
        )
