"""The engine put together for one batch, and driven to its end."""

from __future__ import annotations

import signal
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

import anyio

from batchgen.console.progress import Progress
from batchgen.engine.context import RunContext
from batchgen.engine.events import Stopping
from batchgen.engine.guard_rules import GuardLimits
from batchgen.engine.pool import Pool, PoolSettings
from batchgen.engine.progress_guard import ProgressGuard
from batchgen.engine.redelivery import DOWNLOAD_WAIT_S
from batchgen.engine.throttle.core import ThrottleCore
from batchgen.engine.throttle.limits import (
    BREAKER,
    OUTAGE,
    RETRY_AFTER,
    THROTTLED,
    UNREACHABLE,
    DispatchLimits,
    DispatchStatus,
)
from batchgen.engine.throttle.rules import HEADROOM
from batchgen.engine.throttle.throttle import Throttle
from batchgen.engine.video_tasks import POLL_S
from batchgen.errors import ExitCode, one_error
from batchgen.http.session import ssl_context
from batchgen.job import JobState, RunId
from batchgen.ledger.guard import proven_kinds
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.only import Only
from batchgen.ledger.owners import Claim
from batchgen.ledger.queries import BatchStatus, status
from batchgen.ledger.runs import continue_run, end_run
from batchgen.ledger.shared_rate_limits import SharedRate, key_id, take_place
from batchgen.ledger.writer import LedgerWriteError, LedgerWriter
from batchgen.manifest.model import Limits
from batchgen.providers.account import ApiKey
from batchgen.session.directories import image_directory, spool_directory
from batchgen.session.local_server import embedded_endpoint
from batchgen.session.plan_and_enroll import Start, width
from batchgen.session.prepare import Overrides, Prepared
from batchgen.session.run_claim import claim_of, deadline_s
from batchgen.spool.spool import Spool
from batchgen.system.disk_space import DiskSpace
from batchgen.system.os_errors import stop_reason_of
from batchgen.system.shutdown import Shutdown

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How the engine ended."""

    signal_number: int | None = None
    stopped: str | None = None
    internal_errors: tuple[str, ...] = ()
    made: int = 0
    at_fault: int = 0
    """Rows of the manifest with a fault, and jobs that were given back."""

    def exit_code(self, found: BatchStatus) -> ExitCode:
        """The exit code by the table in README.md."""
        if self.signal_number is not None:
            interrupted = self.signal_number == signal.SIGINT
            return ExitCode.INTERRUPTED if interrupted else ExitCode.TERMINATED
        if self.internal_errors:
            return ExitCode.BUG
        if self.stopped is not None:
            return ExitCode.STOPPED
        if found.troubled or found.jobs[JobState.PAID] or self.at_fault:
            return ExitCode.UNFINISHED
        return ExitCode.DONE


@contextmanager
def endpoint(prepared: Prepared) -> Iterator[str]:
    """The base URL of the run; the embedded endpoint is started for it."""
    if prepared.profile.base_url is not None:
        yield prepared.profile.base_url
    else:
        with embedded_endpoint(prepared.ledger) as base_url:
            yield base_url


class Embedder(Protocol):
    """A program that runs a batch within itself: signals are its own business."""

    def take(self, shutdown: Shutdown) -> None:
        """Be given what ends the run."""


async def drive(
    prepared: Prepared,
    start: Start,
    overrides: Overrides,
    progress: Progress,
    base_url: str,
    key: ApiKey | None,
    *,
    embedder: Embedder | None = None,
) -> Outcome:
    """Run what is enrolled to its end, in the event loop of the caller.

    Raises one exception, never a group. The run is ended in the ledger then, too.
    """
    limits = prepared.loaded.manifest.limits
    deadline = overrides.deadline(_local_now())
    settings = _pool_settings(limits, overrides, key, start.only)
    writer = LedgerWriter(prepared.ledger)
    throttle = _throttle(writer, _throttle_limits(limits, settings.concurrency), base_url, key)

    def drain(reason: str) -> None:
        writer.hurry()
        throttle.stop(reason)
        progress.observe(Stopping(reason=reason))

    grace_s = settings.deadline_s if overrides.grace_s is None else overrides.grace_s
    shutdown = Shutdown(grace_s, drain, signals=embedder is None)
    if embedder is not None:
        embedder.take(shutdown)
    spool = Spool(spool_directory(prepared))
    await anyio.to_thread.run_sync(spool.prepare)
    claim = await anyio.to_thread.run_sync(claim_of, prepared, overrides, spool)
    verify = ssl_context()
    provider = prepared.profile.name
    async with writer as ledger:
        run_id, proven = await _shielded(ledger.run(_begin, start, provider, claim))
        guard = ProgressGuard(
            _guard_limits(limits, settings), throttle, prepared.profile, proven=proven
        )
        context = RunContext(
            batch=start.batch,
            run=run_id,
            ledger=ledger,
            spool=spool,
            profile=prepared.profile,
            base_url=base_url,
            throttle=throttle,
            guard=guard,
            disk_space=DiskSpace(spool.directory, image_directory(prepared)),
            observe=progress.observe,
            base=prepared.loaded.base,
            overwrite=overrides.overwrite,
        )
        pool = Pool(context, settings, shutdown, verify)
        error: BaseException | None = None
        try:
            async with anyio.create_task_group() as showing:
                showing.start_soon(progress.run, context.dispatch_status)
                if deadline is not None:
                    showing.start_soon(_stop_at, deadline, throttle)
                await pool.run()
                showing.cancel_scope.cancel()
        except BaseException as exc:
            error = one_error(exc)
        finally:
            progress.close()
        if error is not None:
            await _shielded(_end_early(ledger, run_id, error))
            raise error
        outcome = Outcome(
            signal_number=shutdown.signal_number,
            stopped=_stopped_text(throttle.status()),
            internal_errors=tuple(context.tally.internal_errors),
            made=context.tally.jobs_done,
            at_fault=start.at_fault + context.tally.jobs_at_fault,
        )
        with suppress(LedgerWriteError):  # then it is what stopped the run, and said already
            await ledger.run(_end, run_id, start.name, outcome)
        return outcome


def _begin(
    ledger: Ledger, start: Start, provider: str, claim: Claim
) -> tuple[RunId, set[tuple[str, str]]]:
    """Write the run, unless its enrollment did; return its id, and what brought an image lately.

    The latter as pairs of model and route.
    """
    if start.run is None:
        run = start.write(ledger, claim)
    else:
        run = start.run
        continue_run(ledger, run)
    return run, proven_kinds(ledger, provider)


def _pool_settings(
    limits: Limits, overrides: Overrides, key: ApiKey | None, only: Only | None
) -> PoolSettings:
    concurrency, downloads = width(limits, overrides)
    return PoolSettings(
        concurrency=concurrency,
        downloads=downloads,
        deadline_s=deadline_s(limits),
        key=key,
        limit=overrides.limit,
        only=only,
        poll_s=float(limits.poll or POLL_S),
        download_wait_s=(
            DOWNLOAD_WAIT_S if limits.download_wait is None else float(limits.download_wait)
        ),
    )


def _throttle(
    ledger: LedgerWriter, limits: DispatchLimits, base_url: str, key: ApiKey | None
) -> Throttle:
    shared = _shared_rates(limits)
    shared_key = key_id(base_url, key.reveal() if key else None)

    async def place(images: int) -> float:
        rates = [(rate, images if rate.unit == "images" else 1) for rate in shared]

        def step(ledger: Ledger) -> float:
            now = time.time()
            return now + take_place(ledger.conn, shared_key, rates, now)

        # By the clock of all processes, whatever time the way back from the ledger took.
        return await ledger.run(step) - time.time() + time.monotonic()

    return Throttle(
        ThrottleCore(limits),
        reserve_start=place if shared else None,
        min_gap_s=_least_gap_s(limits),
    )


async def _shielded(step: Awaitable[T]) -> T:
    """Wait for a step that a cancellation may follow but not cut off."""
    with anyio.CancelScope(shield=True):
        result = await step
    return result


async def _end_early(ledger: LedgerWriter, run_id: RunId, error: BaseException) -> None:
    """Write the end of a run that an exception ended, where the ledger can be written."""
    stopped, code = stop_reason_of(error)
    ledger.hurry()
    with suppress(Exception):  # the caller raises the error that ended the run
        await ledger.run(end_run, run_id, stopped=stopped, exit_code=code)


def _local_now() -> datetime:
    return datetime.now().astimezone()


async def _stop_at(deadline: datetime, throttle: Throttle) -> None:
    """By the wall clock, looked at now and then: it may be set, and the machine may sleep."""
    while (left := deadline - _local_now()) > timedelta(0):  # noqa: ASYNC110  # a clock has no event
        await anyio.sleep(min(left.total_seconds(), _LOOK_AT_CLOCK_S))
    throttle.stop(f"until: it is {deadline:%H:%M}; what is left stays pending for the next run")


_LOOK_AT_CLOCK_S = 10.0


def _end(ledger: Ledger, run_id: RunId, name: str, outcome: Outcome) -> None:
    code = outcome.exit_code(status(ledger.conn, name))
    end_run(ledger, run_id, stopped=outcome.stopped, exit_code=code)


_STOPPED_TEXT = {
    UNREACHABLE: "unreachable: no connection to the endpoint; check the network and base_url",
    BREAKER: "breaker: request after request is left without a trustworthy response, and may be"
    " billed; look at the provider's status and log before going on",
    OUTAGE: "outage: the provider answers every request with an error of its own; look at its"
    " status page and run again later",
    RETRY_AFTER: "throttled: the endpoint asks for a pause of more than an hour; run again later",
    THROTTLED: "throttled: 30 minutes of 429 or 503 without one success; look at the limits and the"
    " balance of the account, then run again",
}


def _stopped_text(status: DispatchStatus) -> str | None:
    """Why dispatch stopped, with what the provider said last where that led to it."""
    if status.stopped is None or status.stopped not in _STOPPED_TEXT:
        return status.stopped
    text = _STOPPED_TEXT[status.stopped]
    return f"{text}; the last response: {status.last_error}" if status.last_error else text


def _guard_limits(limits: Limits, settings: PoolSettings) -> GuardLimits:
    default = GuardLimits()
    return GuardLimits(
        canary=limits.canary or default.canary,
        max_useless=limits.max_useless or default.max_useless,
        max_probes=limits.max_probes or default.max_probes,
        concurrency=settings.concurrency,
        patience_s=settings.download_wait_s,
    )


def _throttle_limits(limits: Limits, concurrency: int) -> DispatchLimits:
    default = DispatchLimits()
    return DispatchLimits(
        concurrency=concurrency,
        requests_per_minute=_number(limits.requests_per_minute),
        images_per_minute=_number(limits.images_per_minute),
        burst=limits.burst or default.burst,
        max_probes=limits.max_probes or default.max_probes,
        unreachable_s=float(limits.unreachable or default.unreachable_s),
    )


def _shared_rates(limits: DispatchLimits) -> list[SharedRate]:
    """The limits that hold for the key, whoever uses it."""
    per_minute = {"requests": limits.requests_per_minute, "images": limits.images_per_minute}
    return [
        SharedRate(
            unit=unit,
            interval_s=60.0 / (number * HEADROOM),
            burst=limits.burst,
        )
        for unit, number in per_minute.items()
        if number is not None
    ]


def _least_gap_s(limits: DispatchLimits) -> float:
    """Between two requests where the provider takes none at once; 0.0 where it takes some."""
    if limits.requests_per_minute is None or limits.burst > 1:
        return 0.0
    return 60.0 / limits.requests_per_minute * _JITTER_OF_THE_WAY


_JITTER_OF_THE_WAY = 1.004


def _number(value: int | float | None) -> float | None:
    return None if value is None else float(value)
