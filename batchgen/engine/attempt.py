"""Conclude an attempt: classify its response and record the outcome in the ledger."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import anyio

from batchgen.engine.context import RunContext
from batchgen.engine.events import AttemptEnded, Recovered
from batchgen.engine.recovery import habits_of, read_spooled, spooled_exchange
from batchgen.engine.stop_reasons import DISK, LEDGER
from batchgen.job import AttemptId, Billed, ImageRef, Job, JobState, Outcome
from batchgen.ledger.attempt_ends import AttemptEnd
from batchgen.ledger.attempts import settle_attempt
from batchgen.ledger.clock import timestamp
from batchgen.ledger.group_commit import LedgerWriteError
from batchgen.ledger.paid_responses import PaidResponse, record_responses
from batchgen.ledger.records import DueImage, OpenAttempt
from batchgen.outcomes.classify import Classification, Exchange, Reach, Response, classify, clean
from batchgen.outcomes.retry_policy import Next
from batchgen.providers.adapters.registry import ADAPTERS
from batchgen.providers.adapters.response_parsing import expiry_of
from batchgen.providers.adapters.tasks import followed
from batchgen.spool.response_part import ResponsePart
from batchgen.spool.spool import Spool
from batchgen.system.failpoints import Point, hit
from batchgen.system.threads import in_decode_thread, in_disk_thread
from batchgen.urls import absolute_url

_DISK_PATIENCE_S: Final = 30.0
_DISK_RETRY_S: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One paid request for a job, as the ledger knows it."""

    id: AttemptId
    job: Job
    is_probe: bool = False
    """Whether it tests if the provider has recovered; a failed probe does not count as a try."""
    hold: bool = False
    """Whether an uncertain outcome waits for a person, although the allowance may cover a rebuy."""
    is_recovered: bool = False
    """Whether a killed run left it open."""
    part: ResponsePart | None = None
    """Where its response arrived; None at recovery."""
    classified: Callable[[Classification, Response | None], None] | None = None
    """Called with the class of the exchange, and its response, before they are recorded; None at
    recovery."""

    @property
    def is_response_held(self) -> bool:
        """Whether the complete response is in memory only."""
        return self.part is not None and self.part.is_held

    async def write_response(self) -> None:
        """Write a response that is still in memory to the spool. Raises OSError."""
        if self.part is not None:
            await self.part.write_held()


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The recorded outcome of an attempt."""

    classification: Classification
    following: Next
    due: tuple[DueImage, ...] = ()
    """The images that were paid for."""


async def conclude(context: RunContext, attempt: Attempt, exchange: Exchange) -> Conclusion:
    """Read the spooled response, classify the attempt and record the outcome.

    If a bug prevents reading the response, the attempt is held as uncertain. Raises
    LedgerWriteError, and OSError for the spool. The response is in the spool then, and the next
    run recovers it.
    """
    try:
        return await _classify_and_record(context, attempt, exchange)
    except (LedgerWriteError, OSError) as exc:
        place = LEDGER if isinstance(exc, LedgerWriteError) else DISK
        context.throttle.stop(f"{place}: {exc}")
        await _save_response(context, attempt)
        raise
    except Exception as exc:
        # A bug must neither cancel other requests in flight nor end every later run at its start.
        context.record_internal_error(exc)
        classification = Classification(
            outcome=Outcome.AMBIGUOUS,
            billed=Billed.MAYBE,
            code="internal_error",
            message=clean(repr(exc)),
            status=exchange.status,
        )
        await _save_response(context, attempt)
        name = context.spool.name(attempt.id)
        held = replace(attempt, hold=True, is_probe=False)
        return await settle(context, held, classification, response=name)


async def _save_response(context: RunContext, attempt: Attempt) -> None:
    """Write a response to the spool that the ledger could not take.

    It exists nowhere else, so a disk that is full or has no file left is tried again for a while;
    dispatch stops. Raises OSError.
    """
    until = time.monotonic() + _DISK_PATIENCE_S
    while True:
        try:
            return await attempt.write_response()
        except OSError as exc:
            context.throttle.stop(f"{DISK}: {exc}")
            if time.monotonic() >= until:
                raise
            text = f"a paid response waits {_DISK_PATIENCE_S:g} s for the disk: {exc}"
            context.notice("paid responses wait for the disk", text)
        await anyio.sleep(_DISK_RETRY_S)


async def settle(
    context: RunContext,
    attempt: Attempt,
    classification: Classification,
    *,
    response: str | None = None,
) -> Conclusion:
    """Record the end of an attempt without an image, and move its job.

    ``response`` is the name of the spooled response, if it is complete.
    """
    following = await context.ledger.run(
        settle_attempt,
        attempt.id,
        classification,
        allowance_of=context.run,
        hold=attempt.hold,
        probe=attempt.is_probe,
        response=response,
    )
    conclusion = Conclusion(classification, following)
    _report(context, attempt, conclusion)
    return conclusion


async def recover(context: RunContext, opened: OpenAttempt) -> None:
    """Settle an attempt that a killed run left open, from what its spool contains.

    A complete response is handled as if it had just arrived. Otherwise the attempt is uncertain,
    and the waste allowance of this run may cover a rebuy.
    """
    attempt = Attempt(id=opened.id, job=opened.job, is_recovered=True)
    try:
        hit(Point.RECOVERING)
        exchange = spooled_exchange(context.spool, opened.id)
        if exchange.reach is not Reach.COMPLETE and not context.spool.has_identity(opened.spool):
            await settle(context, replace(attempt, hold=True), _spool_missing(context.spool))
        else:
            await conclude(context, attempt, exchange)
        hit(Point.RECOVERED)
    except OSError as exc:
        context.throttle.stop(f"{DISK}: the spool can't be read: {exc}")


def expiry(url: str | None) -> str | None:
    """Return the time at which a signed URL expires, as the ledger stores it; None if unknown."""
    moment = expiry_of(url) if url else None
    return timestamp(moment) if moment else None


async def _classify_and_record(
    context: RunContext, attempt: Attempt, exchange: Exchange
) -> Conclusion:
    job, spool = attempt.job, context.spool
    response = await _read_response(context, attempt, exchange)
    classification = classify(exchange, response, habits_of(context.profile), prompt=job.prompt)
    if attempt.classified is not None:
        attempt.classified(classification, response)
    is_complete = exchange.reach is Reach.COMPLETE
    if classification.outcome is Outcome.OK and response is not None:
        if not is_complete:
            await in_disk_thread(spool.complete_cut, attempt.id)
        if any(ref.url is None and ref.task is None for ref in response.images):
            await attempt.write_response()  # delivery reads an inline image from the spool
        return await _record_images(context, attempt, classification, response)
    is_kept = classification.outcome in (Outcome.SPOILED, Outcome.AMBIGUOUS)
    if is_kept:
        await attempt.write_response()
    name = spool.name(attempt.id) if is_complete else None
    conclusion = await settle(context, attempt, classification, response=name)
    if not (is_kept or attempt.is_response_held):
        await in_disk_thread(spool.remove, attempt.id)
    return conclusion


async def _read_response(
    context: RunContext, attempt: Attempt, exchange: Exchange
) -> Response | None:
    """Return the parsed response, from memory or from the spool; None if nothing arrived."""
    if exchange.scanned is None:
        spooled = await in_decode_thread(read_spooled, context.spool, attempt.id, exchange)
        context.disk_space.note_response(spooled.size)
        response = spooled.response
    else:
        adapter = ADAPTERS[context.profile.route_of(attempt.job.model)]
        response = adapter.read_response(exchange.scanned.text, exchange.headers or {})
        context.disk_space.note_response(exchange.scanned.size)
    return None if response is None else followed(response, context.base_url)


async def _record_images(
    context: RunContext, attempt: Attempt, classification: Classification, response: Response
) -> Conclusion:
    images = [(stored_reference(context, ref), expiry(ref.url)) for ref in response.images]
    usage, model = response.usage, attempt.job.model
    held = attempt.part.content() if attempt.part else None
    end = AttemptEnd(
        attempt=attempt.id,
        classification=classification,
        response=context.spool.name(attempt.id) if held is None else None,
        cost=context.profile.cost_of(model, usage) if usage else None,
    )
    paid = PaidResponse(end=end, images=images, body=held)
    due = await context.ledger.run_one_of_many(record_responses, paid)
    hit(Point.RECEIVED)
    conclusion = Conclusion(classification, Next(state=JobState.PAID), tuple(due))
    _report(context, attempt, conclusion)
    return conclusion


def stored_reference(context: RunContext, ref: ImageRef) -> ImageRef:
    """Return an image with absolute URLs: a later run may have another base URL."""
    if ref.url is not None:
        url = absolute_url(ref.url, context.base_url)
        return ref if url == ref.url else replace(ref, url=url)
    if ref.task is None or not ref.task.startswith("/") or context.profile.moves_results:
        return ref
    return replace(ref, task=f"{context.base_url}{ref.task}")


def _report(context: RunContext, attempt: Attempt, conclusion: Conclusion) -> None:
    job, classification, state = attempt.job, conclusion.classification, conclusion.following.state
    if attempt.is_recovered:
        context.observe(
            Recovered(key=job.key, attempt=attempt.id, outcome=classification.outcome, state=state)
        )
        return
    context.observe(
        AttemptEnded(
            key=job.key,
            attempt=attempt.id,
            outcome=classification.outcome,
            billed=classification.billed,
            price=job.price,
            state=state,
            code=classification.code,
            message=classification.message,
            request_id=classification.request_id,
        )
    )


def _spool_missing(spool: Spool) -> Classification:
    """Return the classification on an attempt whose response may be in a spool that is missing."""
    return Classification(
        outcome=Outcome.AMBIGUOUS,
        billed=Billed.MAYBE,
        code="spool_missing",
        message=f"a response may have arrived, but {spool.directory} is not the spool that its run"
        " used: the ledger was copied or restored without it, or it was removed;"
        " no request is sent again",
    )
