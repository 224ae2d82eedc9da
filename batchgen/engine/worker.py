"""Process one job: reserve, send, spool, record. Each step is durable before the next.

This order loses no money: the attempt is recorded before its request is sent, and the response is
on disk before it is read. ``delivery.py`` then brings the paid images to disk.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import anyio

from batchgen.engine.attempt import Attempt, Conclusion, conclude, settle
from batchgen.engine.context import PaidJob, Requeue, RunContext, new_attempt_id
from batchgen.engine.events import AttemptStarted, JobHeld
from batchgen.engine.executor import Departure, ExchangeOrder, Executor, NotSentError
from batchgen.engine.guard_rules import NOT_SENT, ORDER_LOST, REFERENCE_CHANGED, error_text
from batchgen.engine.recovery import spooled_exchange
from batchgen.engine.stop_reasons import BUDGET, DISK, LEDGER, STORAGE
from batchgen.engine.throttle.limits import DispatchStopped, Signal, Ticket
from batchgen.engine.throttle.throttle import Throttle
from batchgen.engine.video_tasks import TaskPoller
from batchgen.http.request import ApiRequest
from batchgen.job import Billed, Job, JobState, Outcome
from batchgen.ledger.budgets import PERIOD_TEXT
from batchgen.ledger.group_commit import LedgerWriteError
from batchgen.ledger.jobs import fail_pending_job, read_job
from batchgen.ledger.records import BudgetReached, DueImage, NotPending, Reserved
from batchgen.ledger.reservations import Reservation, reserve_attempts
from batchgen.money import PriceTerms, compared_dollars, dollars
from batchgen.outcomes.classify import (
    NO_MONEY,
    Classification,
    Exchange,
    Failure,
    Reach,
    Response,
)
from batchgen.output.obstacles import Obstacles, expected_paths
from batchgen.planning.reference_check import changed_references
from batchgen.providers.adapters.registry import ADAPTERS
from batchgen.storage.store import StoreError
from batchgen.system.failpoints import Point, hit
from batchgen.system.threads import in_disk_thread

_SIGNALS: Final[Mapping[Outcome, Signal]] = {
    Outcome.OK: Signal.OK,
    Outcome.SPOILED: Signal.OK,
    Outcome.SAFE: Signal.UNREACHABLE,
    Outcome.THROTTLED: Signal.THROTTLED,
    Outcome.AMBIGUOUS: Signal.AMBIGUOUS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerTools:
    """The objects that the workers of a run share, besides its context."""

    executor: Executor
    tasks: TaskPoller
    obstacles: Obstacles
    slots: anyio.Semaphore
    """Request slots: a worker holds one from before it takes a job until its response is complete,
    or its video task is over. A response is recorded without a slot."""
    deliver: Callable[[PaidJob], Awaitable[None]]
    """Hands a paid job over to delivery; waits while too many jobs are being delivered."""


class Worker:
    """Processes one job at a time."""

    def __init__(self, context: RunContext, tools: WorkerTools) -> None:
        self._context = context
        self._tools = tools
        self._has_slot = False

    async def take_slot(self) -> None:
        """Wait for a request slot, unless this worker holds one."""
        if not self._has_slot:
            await self._tools.slots.acquire()
            self._has_slot = True

    def leave_slot(self) -> None:
        """Return the request slot, if this worker holds one."""
        if self._has_slot:
            self._has_slot = False
            self._tools.slots.release()

    async def process(self, job: Job) -> Requeue | None:
        """Make one attempt at a job; return the job if it is pending again.

        Raises DispatchStopped once no request may start, LedgerWriteError, and OSError for the
        spool.
        """
        context = self._context
        if await self._fail_if_blocked(job):
            return None
        if job.images and await self._hold_if_references_changed(job):
            return None
        ticket = await self._wait_for_permission(job)
        ending = _TicketReturn(context.throttle, ticket)
        attempt = Attempt(
            id=new_attempt_id(), job=job, classified=partial(self._end_request, job, ending)
        )
        conclusion = None
        try:
            terms = context.profile.price_terms(job.model, job.options, len(job.images))
            if not (await self._has_disk_space() and await self._reserve(attempt, terms)):
                return None
            context.observe(AttemptStarted(key=job.key, attempt=attempt.id, price=job.price))
            conclusion = await self._send(attempt, terms, ticket)
            if conclusion.classification is not ending.classification:
                self._end_request(job, ending, conclusion.classification, None)
        finally:
            if conclusion is None:
                context.guard.withdrawn(job)
            ending.finish(None)
        return await self._follow_up(job, conclusion)

    def _end_request(
        self,
        job: Job,
        ending: _TicketReturn,
        classification: Classification,
        response: Response | None,
    ) -> None:
        """Learn from the end of an exchange, then let another request start while it is recorded.

        If a bug prevents that, this is called once more, with the classification of the bug.
        """
        self._stop_if_permanent(classification)
        self._context.guard.concluded(job, classification)
        ending.finish(classification)
        if response is None or all(image.task is None for image in response.images):
            self.leave_slot()

    async def _follow_up(self, job: Job, conclusion: Conclusion) -> Requeue | None:
        context, following = self._context, conclusion.following
        if following.state is JobState.PAID:
            context.tally.has_image = True
            await self._wait_for_tasks(conclusion.due)
            await self._tools.deliver(PaidJob(job, conclusion.due))
        elif following.state is JobState.PENDING:
            fresh = await context.ledger.run(read_job, job.id)
            return Requeue(job=fresh, wait_s=following.wait_s)
        return None

    async def _wait_for_permission(self, job: Job) -> Ticket:
        """Wait for the guard, then for the throttle. Raises DispatchStopped.

        While a job waits for the throttle the guard may pause; the job then starts over, so that
        it holds no place in the rate while it must not be paid for.
        """
        throttle, guard = self._context.throttle, self._context.guard
        while True:
            await guard.admit(job)
            try:
                ticket = await throttle.start()
            except BaseException:
                guard.withdrawn(job)
                raise
            if guard.may_leave(job):
                return ticket
            throttle.finish(ticket, Signal.CANCELLED)
            guard.withdrawn(job)

    async def _fail_if_blocked(self, job: Job) -> bool:
        """Fail a job without a request if its image could not be saved at its path."""
        context = self._context
        reason = None
        for path in expected_paths(job, context.profile.route_of(job.model)):
            reason = reason or await self._tools.obstacles.find(context.ledger, job, path)
        if reason is None or not await context.ledger.run(fail_pending_job, job.id, reason):
            return False
        context.observe(JobHeld(key=job.key, state=JobState.FAILED, reason=reason))
        return True

    async def _hold_if_references_changed(self, job: Job) -> bool:
        """Leave a job pending if its reference images changed after planning.

        Sent now, its image would not match its fingerprint. The next run plans the job again.
        """
        context = self._context
        why = await in_disk_thread(changed_references, job, context.profile.name)
        if why is None:
            return False
        context.tally.jobs_at_fault += 1
        reason = f"{why}; nothing was sent, and the next run of the manifest plans it again"
        context.observe(JobHeld(key=job.key, state=JobState.PENDING, reason=reason))
        return True

    async def _wait_for_tasks(self, due: Sequence[DueImage]) -> None:
        """Wait until the video tasks are over, in a request slot and not in a download slot.

        The result is not used: delivery polls the task once more, as it does after a killed run.
        """
        for image in due:
            if image.task is not None:
                await self._tools.tasks.poll_until_done(image.task)

    async def _has_disk_space(self) -> bool:
        """Stop dispatch if a response might not fit on disk: it would be paid for and lost."""
        throttle = self._context.throttle
        shortage = await self._context.disk_space.shortage(throttle.status().in_flight)
        if shortage is not None:
            throttle.stop(f"{DISK}: {shortage}")
        return shortage is None

    async def _reserve(self, attempt: Attempt, terms: PriceTerms) -> bool:
        """Record the attempt and reserve its price; return False if it must not be sent."""
        context, job = self._context, attempt.job
        order = Reservation(
            run=context.run,
            job=job,
            attempt=attempt.id,
            provider=context.profile.name,
            terms=terms,
        )
        # A cancellation after this point settles the attempt like any other one cut off.
        with anyio.CancelScope(shield=True):
            reserved = await context.ledger.run_one_of_many(reserve_attempts, order)
        match reserved:
            case Reserved():
                hit(Point.RESERVED)
                return True
            case BudgetReached():
                context.throttle.stop(_budget_text(reserved, job))
                return False
            case NotPending():
                return False

    async def _send(self, attempt: Attempt, terms: PriceTerms, ticket: Ticket) -> Conclusion:
        """Send the request of a recorded attempt and record its outcome."""
        context = self._context
        part = context.spool.part(attempt.id, may_hold=True)
        departure = Departure()
        try:
            request, why_not = await self._prepare_request(attempt)
            if request is not None:
                order = ExchangeOrder(
                    attempt=attempt.id,
                    job=attempt.job,
                    request=request,
                    terms=terms,
                    wait=partial(context.throttle.wait_to_send, ticket),
                    is_timed=ticket.send_at is not None,
                    part=part,
                    departure=departure,
                )
                departure.reach = Reach.SENT
                exchange = await self._exchange(order)
        except NotSentError as exc:
            why_not = _not_sent(ORDER_LOST, str(exc))
        except anyio.get_cancelled_exc_class():
            # The second signal: record what is known of the request before the run ends.
            with anyio.CancelScope(shield=True):
                exchange = _cut_exchange(spooled_exchange(context.spool, attempt.id), departure)
                await conclude(context, replace(attempt, hold=True), exchange)
            raise
        # The response may be paid for: no cancellation may come between it and the ledger.
        with anyio.CancelScope(shield=True):
            if why_not is not None:
                conclusion = await settle(context, attempt, why_not)
            else:
                arrived = replace(attempt, part=part, is_probe=ticket.probe)
                conclusion = await conclude(context, arrived, exchange)
        return conclusion

    async def _prepare_request(
        self, attempt: Attempt
    ) -> tuple[ApiRequest, None] | tuple[None, Classification]:
        """Return the request, or why it must not be sent: its references have changed."""
        job, why = attempt.job, None
        try:
            request = self._build_request(attempt)
            if job.images:
                why = await in_disk_thread(changed_references, job, self._context.profile.name)
        except OSError as exc:
            why = str(exc)
        if why is not None:  # changed since the first check; the job is pending and checked again
            return None, _not_sent(REFERENCE_CHANGED, why)
        return request, None

    def _build_request(self, attempt: Attempt) -> ApiRequest:
        route = self._context.profile.route_of(attempt.job.model)
        return ADAPTERS[route].build_request(attempt.job, attempt.id, self._context.base_url)

    async def _exchange(self, order: ExchangeOrder) -> Exchange:
        context = self._context
        try:
            return await self._tools.executor.exchange(order)
        except NotSentError:
            raise
        except OSError as exc:
            context.throttle.stop(f"{DISK}: the spool can't be written: {exc}")
            return Exchange(reach=Reach.SENT, failure=Failure.INTERRUPTED, detail=str(exc))
        except Exception as exc:
            context.record_internal_error(exc)
            return Exchange(reach=Reach.SENT, failure=Failure.INTERRUPTED, detail=repr(exc))

    def _stop_if_permanent(self, classification: Classification) -> None:
        """Stop dispatch after an error that every later request would get too."""
        context = self._context
        if classification.outcome is Outcome.STOP or classification.code == NO_MONEY:
            context.throttle.stop(f"{classification.code}: {classification.message}")
        elif classification.code == "model_not_found" and not context.tally.has_image:
            context.throttle.stop(
                f"{classification.code}: {classification.message} (is the model's name right?)"
            )


_RAISE: Final = {
    "run": "raise max_cost to continue",
    "day": "run again tomorrow (UTC), or raise it with `batchgen budget --day`",
    "month": "run again next month, or raise it with `batchgen budget --month`",
}


def _budget_text(reached: BudgetReached, job: Job) -> str:
    budget = f"{BUDGET}: {dollars(reached.max_cost)} for {PERIOD_TEXT[reached.period]}"
    if not reached.price_known:
        return (
            f"{budget} can't be checked: the price of {job.model} is unknown;"
            " set `provider: {price: ...}`, or remove the budget"
        )
    # Without the rest of a cent, the sum of both could look like it fits.
    used, _ = compared_dollars(reached.used, reached.max_cost - job.price)
    return (
        f"{budget}: {used} are used or reserved, and the next image costs"
        f" {dollars(job.price)}; {_RAISE[reached.period]}"
    )


def _cut_exchange(spooled: Exchange, departure: Departure) -> Exchange:
    """Return the exchange of a cancelled request: what arrived of it, else how far it got."""
    if spooled.reach > Reach.SENT:
        return spooled
    return replace(spooled, reach=min(departure.reach, Reach.SENT))


def _not_sent(code: str, why: str) -> Classification:
    return Classification(outcome=Outcome.SAFE, billed=Billed.NO, code=code, message=why)


def _signal_of(classification: Classification) -> Signal:
    """Return what the throttle learns from an attempt."""
    if classification.code in NOT_SENT:
        return Signal.NEUTRAL
    if classification.outcome is Outcome.REFUSED and classification.again:
        return Signal.ERRORED
    return _SIGNALS.get(classification.outcome, Signal.NEUTRAL)


class _TicketReturn:
    """Returns a ticket to the throttle, once."""

    def __init__(self, throttle: Throttle, ticket: Ticket) -> None:
        self._throttle = throttle
        self._ticket = ticket
        self._is_returned = False
        self.classification: Classification | None = None
        """What the throttle learned from; None if nothing."""

    def finish(self, classification: Classification | None) -> None:
        """Return the ticket with a classification; None for a request that was not sent."""
        if self._is_returned:
            return
        self._is_returned, self.classification = True, classification
        if classification is None:
            self._throttle.finish(self._ticket, Signal.CANCELLED)
            return
        error = ""
        if classification.outcome is not Outcome.OK:
            error = error_text(classification.code, classification.message, classification.status)
        if classification.request_gap_s is not None:
            self._throttle.pace.suggest(classification.request_gap_s)
        signal = _signal_of(classification)
        self._throttle.finish(self._ticket, signal, classification.retry_after_s, error)


async def work(
    context: RunContext,
    worker: Worker,
    take: Callable[[], Awaitable[Job | None]],
    done: Callable[[Requeue | None], None],
) -> None:
    """Process jobs from ``take`` until it returns None or dispatch stops.

    ``done`` is called after each job.
    """
    try:
        while True:
            await worker.take_slot()
            if (job := await take()) is None:
                return
            requeue = None
            try:
                requeue = await worker.process(job)
            finally:
                done(requeue)
    except DispatchStopped:
        pass
    except LedgerWriteError as exc:
        context.throttle.stop(f"{LEDGER}: {exc}")
    except StoreError as exc:
        context.throttle.stop(f"{STORAGE}: {exc}")
    except OSError as exc:
        context.throttle.stop(f"{DISK}: the spool can't be used: {exc}")
    finally:
        worker.leave_slot()
