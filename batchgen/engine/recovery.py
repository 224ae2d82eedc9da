"""What an attempt came to that the last run left in flight, read from the spool.

The run that recovers and the plan that foresees it read the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from batchgen.job import AttemptId, JobId, JobState, Outcome
from batchgen.ledger.groups import Fate
from batchgen.ledger.ledger import OpenAttempt
from batchgen.money import ZERO, Micros
from batchgen.outcomes.classify import (
    Classification,
    Exchange,
    Failure,
    Habits,
    Reach,
    Response,
    classify,
)
from batchgen.outcomes.retry_policy import after_attempt, may_rebuy
from batchgen.providers.adapters.registry import adapter_of
from batchgen.providers.profile import Profile
from batchgen.spool.spool import Spool, SpooledResponse

_BOUNDLESS: Final = Micros(2**62)


def left_in_spool(spool: Spool, attempt: AttemptId) -> Exchange:
    """Return what an attempt reached that no process saw to its end. Raises OSError."""
    whole = spool.find(attempt)
    if whole is not None:
        return _exchange_of(whole, Reach.COMPLETE)
    cut = spool.find_cut(attempt)
    if cut is not None:
        return _exchange_of(cut, Reach.HEADERS)
    return Exchange(reach=Reach.SENT, failure=Failure.INTERRUPTED)


def _exchange_of(response: SpooledResponse, reach: Reach) -> Exchange:
    failure = Failure.NONE if reach is Reach.COMPLETE else Failure.INTERRUPTED
    return Exchange(reach=reach, failure=failure, status=response.status, headers=response.headers)


@dataclass(frozen=True, slots=True)
class SpooledText:
    """A response as its adapter reads it, and the size of its text in bytes."""

    response: Response | None
    size: int = 0


def read_spooled(spool: Spool, attempt: AttemptId, exchange: Exchange) -> SpooledText:
    """Read what came; of a cut response too, which may hold its image all the same."""
    if exchange.reach < Reach.HEADERS:
        return SpooledText(None)
    whole = exchange.reach is Reach.COMPLETE
    spooled = spool.find(attempt) if whole else spool.find_cut(attempt)
    if spooled is None:
        return SpooledText(Response() if whole else None)
    text = spooled.text()
    return SpooledText(adapter_of(spooled.route).read_response(text, spooled.headers), len(text))


def habits_of(profile: Profile) -> Habits:
    """Return what the provider is known to charge besides images."""
    return Habits(server_errors=profile.server_errors_billed, refusals=profile.refusals_billed)


def foresee(
    opened: Iterable[OpenAttempt], spool: Spool, profile: Profile
) -> list[tuple[JobId, str, Fate]]:
    """Return what recovery will make of each attempt: job, fingerprint of its request, fate."""
    return [(one.job.id, one.fingerprint, _fate(one, spool, profile)) for one in opened]


def _fate(opened: OpenAttempt, spool: Spool, profile: Profile) -> Fate:
    try:
        exchange = left_in_spool(spool, opened.id)
        if exchange.reach is not Reach.COMPLETE and not spool.is_that_of(opened.spool):
            return Fate.HELD
        response = read_spooled(spool, opened.id, exchange).response
        classification = classify(exchange, response, habits_of(profile), prompt=opened.job.prompt)
    except Exception:  # a response that cannot be read is held as uncertain by the run too
        return Fate.HELD
    return _fate_of(classification, opened)


def _fate_of(classification: Classification, opened: OpenAttempt) -> Fate:
    if classification.outcome is Outcome.OK:
        return Fate.PAID
    job = opened.job
    following = after_attempt(
        classification,
        tries=job.tries,
        doubts=job.doubts,
        cuts=job.cuts,
        price=opened.price,
        wasted=ZERO,
        max_waste=_BOUNDLESS,
    )
    match following.state:
        case JobState.PENDING:
            return Fate.DOUBT if following.counts_doubt else Fate.FREE
        case JobState.FAILED if not following.counts_doubt:
            return Fate.FAILED
        case JobState.BLOCKED:
            return Fate.BLOCKED
        case _:
            return Fate.HELD


def over_allowance(
    opened: Iterable[OpenAttempt],
    fates: Iterable[tuple[JobId, str, Fate]],
    revised: set[JobId],
    max_waste: Micros,
) -> list[JobId]:
    """Return the jobs in flight that recovery holds: those that ``max_waste`` no longer covers.

    In the order of recovery. ``revised`` jobs are requested whatever became of their attempt.
    """
    held, wasted = list[JobId](), ZERO
    for one, (job, fingerprint, fate) in zip(opened, fates, strict=True):
        is_revised = job in revised or one.job.fingerprint != fingerprint
        if fate is not Fate.DOUBT or is_revised:
            continue
        if may_rebuy(one.job.doubts, one.price, wasted, max_waste):
            wasted = Micros(wasted + one.price)
        else:
            held.append(job)
    return held
