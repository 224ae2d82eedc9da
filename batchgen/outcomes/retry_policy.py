"""Decide what follows an attempt: retry, hold, fail or finish. Pure: no clock, no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Final

from batchgen.job import JobState, Outcome
from batchgen.money import ZERO, Micros, parse_dollars
from batchgen.outcomes.classify import UPLOAD_CUT, Classification

MAX_TRIES: Final = 2
"""A temporary refusal (500 or 502 with the endpoint's own error object) is retried once."""
RETRY_WAIT_S: Final = 2.0
MAX_CUTS: Final = 3
"""Uploads of one job that may be cut off before it fails. They cost nothing, but waiting rarely
helps: a proxy limits the size, or the connection is too slow."""
CUT_WAITS_S: Final = (2.0, 8.0)
"""Wait after the first and the second cut upload of a job."""
DEFAULT_WASTE_PERCENT: Final = Decimal(5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Next:
    """The state of a job after an attempt."""

    state: JobState
    reason: str = ""
    wait_s: float = 0.0
    """Wait before this job is retried. The throttle waits for what concerns all jobs."""
    counts_try: bool = False
    counts_uncertain: bool = False
    counts_cut: bool = False
    wasted: Micros = ZERO
    """The part of the run's waste allowance that the retry uses."""


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
    """Return the next state of a job.

    ``tries``, ``doubts`` (possibly charged attempts) and ``cuts`` do not count this attempt.
    ``hold`` leaves an uncertain job to a person even within the allowance, because they stopped
    the run by hand. A ``probe`` tests whether the provider has recovered; its temporary refusal
    does not count against the job.
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
                    counts_uncertain=True,
                    wasted=price,
                )
            spoiled = classification.outcome is Outcome.SPOILED
            held = JobState.FAILED if spoiled else JobState.UNCERTAIN
            return Next(state=held, reason=reason, counts_uncertain=True)


def _after_cut(reason: str, cuts: int) -> Next:
    """Retry a cut upload after growing waits; fail the job at the third cut."""
    if cuts + 1 >= MAX_CUTS:
        return Next(state=JobState.FAILED, reason=f"{reason} ({cuts + 1} times)", counts_cut=True)
    return Next(state=JobState.PENDING, reason=reason, wait_s=CUT_WAITS_S[cuts], counts_cut=True)


def may_rebuy(doubts: int, price: Micros, wasted: Micros, max_waste: Micros) -> bool:
    """Return whether to rebuy a possibly charged image: once per job, within the run's allowance.

    Nothing is rebought without an allowance, or without a known price (0 here): an unknown price
    cannot be compared with an allowance.
    """
    return doubts == 0 and price > 0 and wasted + price <= max_waste


@dataclass(frozen=True, slots=True)
class Waste:
    """What a run may spend on rebuys: a share of its estimate, or an amount."""

    percent: Decimal | None = DEFAULT_WASTE_PERCENT
    amount: Micros = ZERO

    def allowance(self, estimate: Micros) -> Micros:
        """Return the allowance in micros, rounded down."""
        if self.percent is None:
            return self.amount
        return Micros(int(estimate * self.percent // 100))


def parse_waste(text: str | int | Decimal) -> Waste:
    """Parse a share of the run's estimate (``5%``) or dollars (``2.50``). Raises ValueError."""
    written = str(text).strip()
    if not written.endswith("%"):
        try:
            return Waste(percent=None, amount=parse_dollars(written))
        except ValueError as exc:
            raise ValueError(f"{exc}; expected a share like 5% or dollars like 2.50") from None
    try:
        percent = Decimal(written[:-1].strip())
    except InvalidOperation:
        raise ValueError(
            f"not a share: {written!r}; expected a percentage like 5% or dollars like 2.50"
        ) from None
    if not percent.is_finite() or not 0 <= percent <= 100:
        raise ValueError(f"share out of range: {written!r}; expected 0% to 100%")
    return Waste(percent=percent)
