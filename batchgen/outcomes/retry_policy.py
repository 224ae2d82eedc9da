"""Decide what follows an attempt: retry, hold, fail or finish. Pure: no clock, no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Final

from batchgen.job import JobState, Outcome
from batchgen.money import ZERO, Micros, parse_dollars
from batchgen.outcomes.classify import UPLOAD_CUT, Classification

MAX_TRIES: Final = 2
"""A refusal of the moment (500 and 502 with the gateway's envelope) is asked once more."""
RETRY_WAIT_S: Final = 2.0
MAX_CUTS: Final = 3
"""Uploads of one job that may be cut off. They cost nothing, and neither do they pass by waiting:
a proxy has a limit, or the connection is too slow."""
CUT_WAITS_S: Final = (2.0, 8.0)
"""How long to leave a job alone after its first and its second cut upload."""
MAX_PARK_S: Final = 3600.0
"""A server that asks for a longer silence stops the run; the rest stays pending."""
DEFAULT_WASTE_PERCENT: Final = Decimal(5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Next:
    """Where a job goes after an attempt."""

    state: JobState
    reason: str = ""
    wait_s: float = 0.0
    """How long to leave the job alone; what concerns everybody is the throttle's to wait for."""
    counts_try: bool = False
    counts_doubt: bool = False
    counts_cut: bool = False
    wasted: Micros = ZERO
    """What of the run's waste allowance the repeat uses up."""


def after_attempt(
    classification: Classification,
    *,
    tries: int,
    doubts: int,
    cuts: int = 0,
    price: Micros,
    wasted: Micros,
    max_waste: Micros,
    hold: bool = False,
    probe: bool = False,
) -> Next:
    """Decide where the job goes. ``tries``, ``doubts`` and ``cuts`` do not count this attempt.

    ``hold`` keeps a doubt for a person whatever the allowance: they stopped the run by hand. A
    ``probe`` was sent to see whether the provider is back, and says nothing of its job.
    """
    reason = (
        f"{classification.code}: {classification.message}"
        if classification.message
        else classification.code
    )
    match classification.outcome:
        case Outcome.OK:
            return Next(state=JobState.PAID)
        case Outcome.SAFE if classification.code == UPLOAD_CUT:
            return _after_cut(reason, cuts)
        case Outcome.SAFE | Outcome.THROTTLED | Outcome.STOP:
            return Next(state=JobState.PENDING, reason=reason)
        case Outcome.BLOCKED:
            return Next(state=JobState.BLOCKED, reason=reason)
        case Outcome.REFUSED:
            counts = not (probe and classification.again)
            again = classification.again and tries + counts < MAX_TRIES
            state = JobState.PENDING if again else JobState.FAILED
            return Next(state=state, reason=reason, wait_s=RETRY_WAIT_S, counts_try=counts)
        case Outcome.AMBIGUOUS | Outcome.SPOILED | Outcome.SENDING:
            if not hold and may_rebuy(doubts, price, wasted, max_waste):
                return Next(
                    state=JobState.PENDING,
                    reason=reason,
                    wait_s=RETRY_WAIT_S,
                    counts_doubt=True,
                    wasted=price,
                )
            spoiled = classification.outcome is Outcome.SPOILED
            held = JobState.FAILED if spoiled else JobState.UNCERTAIN
            return Next(state=held, reason=reason, counts_doubt=True)


def _after_cut(reason: str, cuts: int) -> Next:
    """Try a cut upload again after growing waits, and fail its job at the third one."""
    if cuts + 1 >= MAX_CUTS:
        return Next(state=JobState.FAILED, reason=f"{reason} ({cuts + 1} times)", counts_cut=True)
    return Next(state=JobState.PENDING, reason=reason, wait_s=CUT_WAITS_S[cuts], counts_cut=True)


def may_rebuy(doubts: int, price: Micros, wasted: Micros, max_waste: Micros) -> bool:
    """Whether a possibly charged image is bought again: once a job, within the run's allowance.

    Without an allowance nothing is, whatever the price; nor is what has no known price, which is 0
    here, because no allowance can hold it.
    """
    return doubts == 0 and price > 0 and wasted + price <= max_waste


@dataclass(frozen=True, slots=True)
class Waste:
    """How much doubt a run may buy again: a share of its estimate, or an amount."""

    percent: Decimal | None = DEFAULT_WASTE_PERCENT
    amount: Micros = ZERO

    def allowance(self, estimate: Micros) -> Micros:
        """The allowance in micros, rounded down."""
        if self.percent is None:
            return self.amount
        return Micros(int(estimate * self.percent // 100))


def parse_waste(text: str | int | Decimal) -> Waste:
    """``5%`` of the run's estimate, or dollars. Raises ValueError."""
    written = str(text).strip()
    if not written.endswith("%"):
        return Waste(percent=None, amount=parse_dollars(written))
    try:
        percent = Decimal(written[:-1].strip())
    except InvalidOperation:
        raise ValueError(f"{written!r} is not a share like 5%, or dollars like 2.50") from None
    if not percent.is_finite() or not 0 <= percent <= 100:
        raise ValueError(f"{written!r} is not a share from 0% to 100%")
    return Waste(percent=percent)
