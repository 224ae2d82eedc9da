"""Determine from the spool how an attempt ended that a killed run left in flight.

Recovery and the plan that predicts it share these functions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from batchgen.http.content_coding import unsupported_text
from batchgen.job import AttemptId, ImageRef, JobId, JobState, Outcome
from batchgen.ledger.groups import Forecast
from batchgen.ledger.records import OpenAttempt
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
from batchgen.providers.adapters.tasks import followed
from batchgen.providers.profile import Profile
from batchgen.spool.response_file import SpooledResponse
from batchgen.spool.spool import Spool

_UNLIMITED: Final = Micros(2**62)


def spooled_exchange(spool: Spool, attempt: AttemptId) -> Exchange:
    """Return the exchange of an open attempt, as far as the spool has it. Raises OSError."""
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
    """A parsed response and the size of its text in bytes."""

    response: Response | None
    size: int = 0


def read_spooled(spool: Spool, attempt: AttemptId, exchange: Exchange) -> SpooledText:
    """Parse the spooled response. A cut-off one is parsed too: it may contain the image."""
    if exchange.reach < Reach.HEADERS:
        return SpooledText(None)
    whole = exchange.reach is Reach.COMPLETE
    spooled = spool.find(attempt) if whole else spool.find_cut(attempt)
    if spooled is None:
        return SpooledText(Response() if whole else None)
    if spooled.coding:
        return SpooledText(_unread(spooled))
    text = spooled.text()
    return SpooledText(adapter_of(spooled.route).read_response(text, spooled.headers), len(text))


def _unread(spooled: SpooledResponse) -> Response:
    """Return what a compressed body counts as: an image, unless its status says otherwise.

    Delivery finds out what it holds; see `batchgen.engine.compressed_response`.
    """
    if 200 <= spooled.status < 300:
        return Response(images=(ImageRef(index=0),))
    return Response(text=f"a body {unsupported_text(spooled.coding)}")


def habits_of(profile: Profile) -> Habits:
    """Return what the provider charges for besides images."""
    return Habits(server_errors=profile.server_errors_billed, refusals=profile.refusals_billed)


def forecast_attempts(
    opened: Iterable[OpenAttempt], spool: Spool, profile: Profile
) -> list[tuple[JobId, str, Forecast]]:
    """Predict what recovery decides for each attempt, with its job and request fingerprint."""
    return [(one.job.id, one.fingerprint, _forecast(one, spool, profile)) for one in opened]


def _forecast(opened: OpenAttempt, spool: Spool, profile: Profile) -> Forecast:
    try:
        exchange = spooled_exchange(spool, opened.id)
        if exchange.reach is not Reach.COMPLETE and not spool.has_identity(opened.spool):
            return Forecast.HELD
        response = read_spooled(spool, opened.id, exchange).response
        response = None if response is None else followed(response, profile.base_url)
        classification = classify(exchange, response, habits_of(profile), prompt=opened.job.prompt)
    except Exception:  # recovery also holds an unreadable response as uncertain
        return Forecast.HELD
    return _forecast_of(classification, opened)


def _forecast_of(classification: Classification, opened: OpenAttempt) -> Forecast:
    if classification.outcome is Outcome.OK:
        return Forecast.PAID
    job = opened.job
    following = after_attempt(
        classification,
        tries=job.tries,
        doubts=job.doubts,
        cuts=job.cuts,
        price=opened.price,
        wasted=ZERO,
        max_waste=_UNLIMITED,
    )
    match following.state:
        case JobState.PENDING:
            return Forecast.UNCERTAIN if following.counts_uncertain else Forecast.FREE
        case JobState.FAILED if not following.counts_uncertain:
            return Forecast.FAILED
        case JobState.BLOCKED:
            return Forecast.BLOCKED
        case _:
            return Forecast.HELD


def over_allowance(
    opened: Iterable[OpenAttempt],
    forecasts: Iterable[tuple[JobId, str, Forecast]],
    revised: set[JobId],
    max_waste: Micros,
) -> list[JobId]:
    """Return the jobs that recovery holds because ``max_waste`` does not cover their rebuy.

    ``opened`` is in the order of recovery. ``revised`` jobs are sent again in any case.
    """
    held, wasted = list[JobId](), ZERO
    for one, (job, fingerprint, forecast) in zip(opened, forecasts, strict=True):
        is_revised = job in revised or one.job.fingerprint != fingerprint
        if forecast is not Forecast.UNCERTAIN or is_revised:
            continue
        if may_rebuy(one.job.doubts, one.price, wasted, max_waste):
            wasted = Micros(wasted + one.price)
        else:
            held.append(job)
    return held
