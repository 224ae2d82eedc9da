"""One job from pending to the end of one attempt, in the order that loses no money.

Reserve and write the attempt; send; spool the response; write what it came to. Each step is durable
before the next. The image's way to disk is ``delivery.py``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import anyio

from batchgen.engine.events import AttemptEnded, AttemptStarted, JobHeld, Observer, Recovered
from batchgen.engine.guard_rules import NOT_SENT, said_of
from batchgen.engine.progress_guard import ProgressGuard
from batchgen.engine.recovery import habits_of, left_in_spool, read_spooled
from batchgen.engine.throttle.limits import DispatchStopped, Signal, Status, Ticket
from batchgen.engine.throttle.throttle import Throttle
from batchgen.engine.video_tasks import TaskWatch
from batchgen.http.client import ApiClient
from batchgen.http.request import ApiRequest
from batchgen.images.inspect import ImageFormat
from batchgen.job import (
    AttemptId,
    BatchId,
    Billed,
    ImageRef,
    Job,
    JobState,
    Outcome,
    RunId,
)
from batchgen.ledger.ledger import (
    BudgetReached,
    DueImage,
    Ledger,
    NotPending,
    OpenAttempt,
    Reserved,
    timestamp,
)
from batchgen.ledger.writer import LedgerWriteError, LedgerWriter
from batchgen.money import dollars
from batchgen.outcomes.classify import (
    Classification,
    Exchange,
    Failure,
    Reach,
    Response,
    classify,
    clean,
)
from batchgen.outcomes.retry_policy import Next
from batchgen.output.obstacles import Obstacles
from batchgen.planning.naming import final_path
from batchgen.planning.reference_check import changed_references
from batchgen.providers.adapters.registry import ADAPTERS, Route
from batchgen.providers.adapters.response_parsing import expiry_of
from batchgen.providers.profile import Profile
from batchgen.spool.spool import Spool
from batchgen.system.disk_space import Room
from batchgen.system.failpoints import Point, reach
from batchgen.system.threads import in_turn, on_disk

_SIGNALS: Final[Mapping[Outcome, Signal]] = {
    Outcome.OK: Signal.OK,
    Outcome.SPOILED: Signal.OK,
    Outcome.SAFE: Signal.UNREACHABLE,
    Outcome.THROTTLED: Signal.THROTTLED,
    Outcome.AMBIGUOUS: Signal.AMBIGUOUS,
}


@dataclass(frozen=True, slots=True)
class Paid:
    """A job whose images are paid for and not on disk."""

    job: Job
    due: tuple[DueImage, ...]


@dataclass(frozen=True, slots=True)
class Concluded:
    """What an attempt came to."""

    classification: Classification
    following: Next
    due: tuple[DueImage, ...] = ()
    """The images that it paid for."""


@dataclass(slots=True, kw_only=True)
class RunContext:
    """What all workers of a run share."""

    batch: BatchId
    run: RunId
    ledger: LedgerWriter
    spool: Spool
    profile: Profile
    base_url: str
    throttle: Throttle
    guard: ProgressGuard
    room: Room
    observe: Observer
    base: Path
    """The manifest's directory, which output directories are relative to."""
    overwrite: bool = False
    deliver: Callable[[Paid], Awaitable[None]] = field(init=False)
    """Takes a paid job on its way to disk; waits while too many are on it. Set by the pool."""
    internal_errors: list[str] = field(default_factory=list)
    obstacles: Obstacles = field(init=False)
    answered: bool = False
    """Whether any request of this run brought an image."""
    given_back: int = 0
    """Jobs whose reference images changed since they were planned."""
    made: int = 0
    """Jobs that became done in this run."""

    def __post_init__(self) -> None:
        self.obstacles = Obstacles(self.base, overwrite=self.overwrite)

    def dispatch_status(self) -> Status:
        """Return how dispatch is doing, with what requests wait for, the guard included."""
        found = self.throttle.status()
        return replace(found, waiting_for=self.guard.waiting_for() or found.waiting_for)


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """The job is pending again and may be asked again after so many seconds."""

    job: Job
    wait_s: float


class Worker:
    """Processes one job at a time with a client of its own."""

    def __init__(self, context: RunContext, client: ApiClient, tasks: TaskWatch) -> None:
        self.context = context
        self._client = client
        self._tasks = tasks

    async def process(self, job: Job) -> Again | None:
        """Make one attempt at the job. Raises DispatchStopped when nothing may start any more."""
        context = self.context
        if await self._give_way(job):
            return None
        if job.images and await self._give_back(job):
            return None
        ticket = await self._permission(job)
        attempt = new_attempt()
        finish = _Finish(context.throttle, ticket)
        concluded = None
        try:
            if not (await self._has_room() and await self._reserve(job, attempt)):
                return None
            context.observe(AttemptStarted(key=job.key, attempt=attempt, price=job.price))
            await context.throttle.leave(ticket)
            concluded = await self._attempt(job, attempt, probe=ticket.probe)
            finish.signal = _signal_of(concluded.classification)
            finish.retry_after_s = concluded.classification.retry_after_s
            finish.said = _said(concluded.classification)
            context.guard.concluded(job, concluded.classification)
            self._stop_if_hopeless(concluded.classification)
        finally:
            if concluded is None:
                context.guard.withdrawn(job)
            finish()
        if concluded.following.state is JobState.PAID:
            context.answered = True
            await self._wait_for_tasks(concluded.due)
            await context.deliver(Paid(job, concluded.due))
        elif concluded.following.state is JobState.PENDING:
            fresh = await context.ledger(lambda ledger: ledger.job(job.id))
            return Again(job=fresh, wait_s=concluded.following.wait_s)
        return None

    async def _permission(self, job: Job) -> Ticket:
        """Wait for the guard, then for the throttle: what waits for a rate is none to pay for yet.

        Raises DispatchStopped.
        """
        throttle, guard = self.context.throttle, self.context.guard
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

    async def _give_way(self, job: Job) -> bool:
        """Fail a job, for free, whose image could not get its place."""
        context = self.context
        path = _expected_path(job, context.profile.route_of(job.model))
        reason = await context.obstacles.find(context.ledger, job, path)
        if reason is None or not await context.ledger(lambda ledger: ledger.refuse(job.id, reason)):
            return False
        context.observe(JobHeld(key=job.key, state=JobState.FAILED, reason=reason))
        return True

    async def _give_back(self, job: Job) -> bool:
        """Leave a job pending if its reference images are not those that it was planned with.

        The next run plans it again; sent now, its image would not be what its fingerprint says.
        """
        context = self.context
        why = await on_disk(changed_references, job, context.profile.name)
        if why is None:
            return False
        context.given_back += 1
        reason = f"{why}; nothing was sent, and the next run of the manifest plans it again"
        context.observe(JobHeld(key=job.key, state=JobState.PENDING, reason=reason))
        return True

    async def _wait_for_tasks(self, due: Sequence[DueImage]) -> None:
        """Wait here, where as many may wait as requests may be in flight, and not in a download.

        What came of it the delivery asks again, as it does for a task that a killed run left.
        """
        for image in due:
            if image.task is not None:
                await self._tasks.until_over(image.task)

    async def _has_room(self) -> bool:
        """Stop dispatch where a response might find no place: it would be paid for and lost."""
        throttle = self.context.throttle
        lacking = await self.context.room.lacking(throttle.status().in_flight)
        if lacking is not None:
            throttle.stop(f"disk: {lacking}")
        return lacking is None

    async def _reserve(self, job: Job, attempt: AttemptId) -> bool:
        context = self.context

        def step(ledger: Ledger) -> Reserved | BudgetReached | NotPending:
            profile = context.profile
            terms = profile.price_terms(job.model, job.options, len(job.images))
            return ledger.reserve(context.run, job, attempt, provider=profile.name, terms=terms)

        # Cancelled behind it, the request is settled as any other that was cut off.
        with anyio.CancelScope(shield=True):
            reserved = await context.ledger(step)
        match reserved:
            case Reserved():
                reach(Point.RESERVED)
                return True
            case BudgetReached():
                context.throttle.stop(_budget_text(reserved, job))
                return False
            case NotPending():
                return False

    async def _attempt(self, job: Job, attempt: AttemptId, *, probe: bool) -> Concluded:
        context = self.context
        try:
            request = self._build_request(job, attempt)
            why = await on_disk(changed_references, job, context.profile.name)
        except OSError as exc:
            why = str(exc)
        if why is not None:  # since it was looked at; it is looked at again, and given back
            classification = Classification(
                outcome=Outcome.SAFE,
                billed=Billed.NO,
                code=NOT_SENT,
                message=why,
            )
            return Concluded(classification, await settle(context, job, attempt, classification))
        try:
            exchange = await self._exchange(request, attempt)
        except anyio.get_cancelled_exc_class():
            # The second signal. Whatever is known of the request is written down on the way out.
            with anyio.CancelScope(shield=True):
                await conclude(
                    context, job, attempt, left_in_spool(context.spool, attempt), hold=True
                )
            raise
        # What came is paid for, perhaps: no signal may come between it and the ledger.
        with anyio.CancelScope(shield=True):
            concluded = await conclude(context, job, attempt, exchange, probe=probe)
        return concluded

    def _build_request(self, job: Job, attempt: AttemptId) -> ApiRequest:
        route = self.context.profile.route_of(job.model)
        request = ADAPTERS[route].build_request(job, attempt, self.context.base_url)
        return replace(request, route=route)

    async def _exchange(self, request: ApiRequest, attempt: AttemptId) -> Exchange:
        context = self.context
        try:
            return await self._client.exchange(request, context.spool.part(attempt))
        except OSError as exc:
            context.throttle.stop(f"disk: the spool can't be written: {exc}")
            return Exchange(reach=Reach.SENT, failure=Failure.INTERRUPTED, detail=str(exc))
        except Exception as exc:
            note_internal_error(context, exc)
            return Exchange(reach=Reach.SENT, failure=Failure.INTERRUPTED, detail=repr(exc))

    def _stop_if_hopeless(self, classification: Classification) -> None:
        context = self.context
        if classification.outcome is Outcome.STOP:
            context.throttle.stop(f"{classification.code}: {classification.message}")
        elif classification.code == "model_not_found" and not context.answered:
            context.throttle.stop(
                f"{classification.code}: {classification.message} (is the model's name right?)"
            )


def new_attempt() -> AttemptId:
    """An id like no other, which sorts by time: so the ledger's indexes grow at their end."""
    return AttemptId(f"{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}")


_RAISE: Final = {
    "run": "raise max_cost to go on",
    "day": "go on tomorrow (UTC), or raise it with `batchgen budget --day`",
    "month": "go on next month, or raise it with `batchgen budget --month`",
}


def _budget_text(reached: BudgetReached, job: Job) -> str:
    what = {"run": "this run", "day": "today (UTC)", "month": "this month (UTC)"}[reached.period]
    if not reached.price_known:
        return (
            f"budget: {dollars(reached.max_cost)} for {what} can't be kept, since the price of"
            f" {job.model} is not known; set `provider: {{price: ...}}`, or remove the budget"
        )
    return (
        f"budget: of {dollars(reached.max_cost)} for {what}, {dollars(reached.used)} are used or"
        f" reserved, and the next image would cost {dollars(job.price)}; {_RAISE[reached.period]}"
    )


def _signal_of(classification: Classification) -> Signal:
    """What the throttle should learn from an attempt."""
    if classification.code == NOT_SENT:
        return Signal.NEUTRAL
    if classification.outcome is Outcome.REFUSED and classification.again:
        return Signal.ERRORED
    return _SIGNALS.get(classification.outcome, Signal.NEUTRAL)


def _said(classification: Classification) -> str:
    """What a response that is no success says, for those who wait for it to pass."""
    if classification.outcome is Outcome.OK:
        return ""
    return said_of(classification.code, classification.message, classification.status)


def _expected_path(job: Job, route: Route) -> str:
    """Where the image will go, if its format is the one that was asked for."""
    wanted = "mp4" if route is Route.VIDEO else str(job.options.get("output_format", "png"))
    kinds = [kind for kind in ImageFormat if wanted in (kind.value, kind.extension)]
    return final_path(job.path, kinds[0].extension if kinds else "png")


@dataclass(slots=True)
class _Finish:
    """Hands the ticket back exactly once, whatever happened in between."""

    throttle: Throttle
    ticket: Ticket
    signal: Signal = Signal.CANCELLED
    retry_after_s: float | None = None
    said: str = ""

    def __call__(self) -> None:
        self.throttle.finish(self.ticket, self.signal, self.retry_after_s, self.said)


async def conclude(
    context: RunContext,
    job: Job,
    attempt: AttemptId,
    exchange: Exchange,
    *,
    hold: bool = False,
    recovering: bool = False,
    probe: bool = False,
) -> Concluded:
    """Read what was spooled, decide what the attempt was, and write it down.

    A response that a bug of ours keeps from being read is held as a doubt. Raises LedgerWriteError,
    and OSError for the spool; the response stays there then, and the next run takes it up.
    """
    try:
        return await _conclude(
            context, job, attempt, exchange, hold=hold, recovering=recovering, probe=probe
        )
    except (LedgerWriteError, OSError):
        raise
    except Exception as exc:
        # It must neither cut off the requests beside it nor end every later run at its start.
        note_internal_error(context, exc)
        classification = Classification(
            outcome=Outcome.AMBIGUOUS,
            billed=Billed.MAYBE,
            code="internal_error",
            message=clean(repr(exc)),
            status=exchange.status,
        )
        name = context.spool.name(attempt)
        following = await settle(
            context, job, attempt, classification, hold=True, recovering=recovering, response=name
        )
        return Concluded(classification, following)


async def _conclude(
    context: RunContext,
    job: Job,
    attempt: AttemptId,
    exchange: Exchange,
    *,
    hold: bool,
    recovering: bool,
    probe: bool,
) -> Concluded:
    profile = context.profile
    if exchange.scanned is None:
        response = await in_turn(_read_spooled, context, attempt, exchange)
    else:
        route = profile.route_of(job.model)
        response = ADAPTERS[route].read_response(exchange.scanned.text, exchange.headers or {})
        context.room.came(exchange.scanned.size)
    classification = classify(exchange, response, habits_of(profile), prompt=job.prompt)
    name = context.spool.name(attempt)
    if classification.outcome is Outcome.OK and response is not None:
        if exchange.reach is not Reach.COMPLETE:
            await on_disk(context.spool.complete_cut, attempt)
        images = [(_located(context, ref), expiry(ref.url)) for ref in response.images]
        cost = profile.cost_of(job.model, response.usage) if response.usage else None
        due = await context.ledger(
            lambda ledger: ledger.record_response(
                attempt, classification, images, response=name, cost=cost
            )
        )
        reach(Point.RECEIVED)
        following = Next(state=JobState.PAID)
        _tell(context, job, attempt, classification, following, recovering=recovering)
        return Concluded(classification, following, tuple(due))
    body_name = name if exchange.reach is Reach.COMPLETE else None
    following = await settle(
        context,
        job,
        attempt,
        classification,
        hold=hold,
        recovering=recovering,
        probe=probe,
        response=body_name,
    )
    if classification.outcome not in (Outcome.SPOILED, Outcome.AMBIGUOUS):
        await on_disk(context.spool.remove, attempt)
    return Concluded(classification, following)


def _located(context: RunContext, ref: ImageRef) -> ImageRef:
    """Keep with a task the endpoint that makes it: a later run may have another base URL."""
    if ref.task is None or context.profile.moves_results:
        return ref
    return replace(ref, task=f"{context.base_url}{ref.task}")


async def settle(
    context: RunContext,
    job: Job,
    attempt: AttemptId,
    classification: Classification,
    *,
    hold: bool = False,
    recovering: bool = False,
    probe: bool = False,
    response: str | None = None,
) -> Next:
    """Write the end of an attempt that brought no image, and move its job."""
    following = await context.ledger(
        lambda ledger: ledger.settle(
            attempt,
            classification,
            allowance_of=context.run,
            hold=hold,
            probe=probe,
            response=response,
        )
    )
    _tell(context, job, attempt, classification, following, recovering=recovering)
    return following


def _tell(
    context: RunContext,
    job: Job,
    attempt: AttemptId,
    classification: Classification,
    following: Next,
    *,
    recovering: bool,
) -> None:
    if recovering:
        context.observe(
            Recovered(
                key=job.key, attempt=attempt, outcome=classification.outcome, state=following.state
            )
        )
        return
    context.observe(
        AttemptEnded(
            key=job.key,
            attempt=attempt,
            outcome=classification.outcome,
            billed=classification.billed,
            price=job.price,
            state=following.state,
            code=classification.code,
            message=classification.message,
            request_id=classification.request_id,
        )
    )


async def recover(context: RunContext, opened: OpenAttempt) -> None:
    """Settle an attempt that a killed run left open, from what its spool holds.

    A whole response is taken up as if it had just come; anything less is a doubt, which the waste
    allowance of this run may buy again.
    """
    try:
        reach(Point.RECOVERING)
        exchange = left_in_spool(context.spool, opened.id)
        if exchange.reach is not Reach.COMPLETE and not context.spool.is_that_of(opened.spool):
            classification = _without_spool(context.spool)
            await settle(context, opened.job, opened.id, classification, hold=True, recovering=True)
        else:
            await conclude(context, opened.job, opened.id, exchange, recovering=True)
        reach(Point.RECOVERED)
    except OSError as exc:
        context.throttle.stop(f"disk: the spool can't be read: {exc}")


def _without_spool(spool: Spool) -> Classification:
    """Judge an attempt whose response may lie in a spool that this ledger has lost."""
    return Classification(
        outcome=Outcome.AMBIGUOUS,
        billed=Billed.MAYBE,
        code="spool_missing",
        message=f"a response may have come, and the spool that its run used is not"
        f" {spool.directory}: the ledger was copied or restored without it, or it was removed;"
        " nothing is bought again",
    )


def _read_spooled(context: RunContext, attempt: AttemptId, exchange: Exchange) -> Response | None:
    found = read_spooled(context.spool, attempt, exchange)
    context.room.came(found.size)
    return found.response


def expiry(url: str | None) -> str | None:
    """When an address stops working, as the ledger keeps it."""
    moment = expiry_of(url) if url else None
    return timestamp(moment) if moment else None


_MAX_INTERNAL_ERRORS: Final = 3


def note_internal_error(context: RunContext, exc: Exception) -> None:
    """Keep a bug for the end of the run; several of them stop it before they cost more."""
    import traceback

    context.internal_errors.append("".join(traceback.format_exception(exc, limit=-8)))
    if len(context.internal_errors) >= _MAX_INTERNAL_ERRORS:
        context.throttle.stop(f"bug: {exc!r}; please report it")


async def work(
    worker: Worker,
    take: Callable[[], Awaitable[Job | None]],
    done: Callable[[Again | None], None],
) -> None:
    """Process the jobs that ``take`` gives until it gives none, or dispatch stops.

    ``done`` is told after each.
    """
    throttle = worker.context.throttle
    try:
        while (job := await take()) is not None:
            again = None
            try:
                again = await worker.process(job)
            finally:
                done(again)
    except DispatchStopped:
        pass
    except LedgerWriteError as exc:
        throttle.stop(f"ledger: {exc}")
    except OSError as exc:
        throttle.stop(f"disk: the spool can't be read: {exc}")
