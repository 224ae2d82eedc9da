"""The engine of one run: built from its limits, run to its end, and recorded in the ledger."""

from __future__ import annotations

import signal
import sqlite3
import time
from collections.abc import Awaitable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol, Self, TypeVar

import anyio

from batchgen.engine.context import RunContext
from batchgen.engine.events import Stopping
from batchgen.engine.pool import Pool, PoolSettings
from batchgen.engine.progress_guard import ProgressGuard
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
from batchgen.engine.throttle.pace import Pace
from batchgen.engine.throttle.throttle import Throttle
from batchgen.errors import BatchgenError, ExitCode, one_error
from batchgen.http.session import open_network
from batchgen.job import JobState, RunId
from batchgen.ledger.batch_status import BatchStatus, status
from batchgen.ledger.database import open_for_writing
from batchgen.ledger.group_commit import LedgerWriteError
from batchgen.ledger.guard import proven_kinds
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.owners import Claim
from batchgen.ledger.path_owners import roots_of
from batchgen.ledger.runs import continue_run, end_open_run, end_run
from batchgen.ledger.samples import SAMPLE_EVERY_S, Sample, record_sample
from batchgen.ledger.shared_rate_limits import (
    SharedPace,
    SharedRate,
    key_id,
    share_pace,
    take_place,
)
from batchgen.ledger.transaction import write_transaction
from batchgen.ledger.writer import LedgerWriter
from batchgen.providers.account import ApiKey
from batchgen.session.directories import image_directory, spool_directory
from batchgen.session.local_server import embedded_endpoint
from batchgen.session.plan_and_enroll import EnrolledRun
from batchgen.session.prepare import Prepared, key_of
from batchgen.session.presenter import RunProgress
from batchgen.session.publish import publish_live
from batchgen.session.remote import RemoteParts, remote_of
from batchgen.session.run_claim import claim_of
from batchgen.spool.redaction import Redactor
from batchgen.spool.spool import Spool
from batchgen.system.disk_space import DiskSpace
from batchgen.system.os_errors import stop_reason_of
from batchgen.system.shutdown import Shutdown
from batchgen.text import duration
from batchgen.urls import is_bucket

if TYPE_CHECKING:
    from batchgen.cluster.messages import RunSettings

T = TypeVar("T")

_CLOCK_CHECK_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How the engine ended."""

    signal_number: int | None = None
    stopped: str | None = None
    """Why the run ended before every job was requested; None if it did not."""
    internal_errors: tuple[str, ...] = ()
    made: int = 0
    """Images saved by this run."""
    at_fault: int = 0
    """Manifest rows with a fault, and jobs that the engine gave back."""

    def exit_code(self, found: BatchStatus) -> ExitCode:
        """Return the exit code, as listed in README.md."""
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
    """Yield the base URL of the provider; start the local endpoint if the run needs it."""
    if prepared.profile.base_url is not None:
        yield prepared.profile.base_url
    else:
        with embedded_endpoint(prepared.ledger) as base_url:
            yield base_url


class Embedder(Protocol):
    """A program that runs a batch inside its own process and handles signals itself."""

    def take(self, shutdown: Shutdown) -> None:
        """Receive the object that ends the run."""


async def drive(
    run: EnrolledRun,
    progress: RunProgress,
    base_url: str,
    *,
    embedder: Embedder | None = None,
    parts: RemoteParts | None = None,
) -> RunResult:
    """Run an enrolled batch to its end, in the caller's event loop.

    Raises one exception, never a group. In that case, too, the ledger records the end of the run.
    """
    engine = _Engine.build(run, progress, base_url)
    shutdown = Shutdown(run.spec.limits.grace_s, engine.drain, signals=embedder is None)
    if embedder is not None:
        embedder.take(shutdown)
    await anyio.to_thread.run_sync(engine.spool.prepare)
    claim = None
    if run.run is None:
        claim = await anyio.to_thread.run_sync(claim_of, run.spec, engine.spool)
    network = open_network(run.spec.prepared.profile.network)
    async with engine.writer as ledger:
        await engine.adopt_pace(ledger)
        begun = await _shielded(ledger.run(_begin, run, claim))
        context, run_id = engine.context(ledger, begun), begun.run
        remote = remote_of(context, begun.buckets, parts or RemoteParts(), engine.remote_settings)
        pool = Pool(context, engine.pool_settings(), shutdown, network, remote)
        error: BaseException | None = None
        try:
            await _run_pool(pool, context, progress, run)
        except BaseException as exc:
            error = one_error(exc)
        finally:
            progress.close()
        if error is not None:
            await _shielded(_end_early(ledger, run_id, error))
            raise error
        result = RunResult(
            signal_number=shutdown.signal_number,
            stopped=_stopped_text(engine.throttle.status()),
            internal_errors=tuple(context.tally.internal_errors),
            made=context.tally.jobs_done,
            at_fault=run.at_fault + context.tally.jobs_at_fault,
        )
        with suppress(LedgerWriteError):  # it stopped the run, and the result says so already
            await ledger.run(_end, run_id, run.name, result)
        return result


@contextmanager
def ended_on_error(run: EnrolledRun) -> Iterator[None]:
    """Record the end of an enrolled run where the block raises before the engine could do so."""
    try:
        yield
    except BaseException as exc:
        if run.run is not None:
            stopped, code = stop_reason_of(exc)
            with (
                suppress(BatchgenError, sqlite3.Error),  # the caller raises what ended the run
                closing(open_for_writing(run.spec.prepared.ledger)) as conn,
                write_transaction(conn),
            ):
                end_open_run(Ledger(conn), run.run, stopped=stopped, exit_code=code)
        raise


@dataclass(frozen=True, slots=True, kw_only=True)
class _Engine:
    """The parts of a run's engine, built before the run is in the ledger."""

    run: EnrolledRun
    progress: RunProgress
    base_url: str
    key: ApiKey | None
    writer: LedgerWriter
    throttle: Throttle
    spool: Spool

    @classmethod
    def build(cls, run: EnrolledRun, progress: RunProgress, base_url: str) -> Self:
        """Build the parts from the limits of a run. Raises SettingsError."""
        prepared = run.spec.prepared
        key = key_of(prepared.profile, prepared.environment)
        writer = LedgerWriter(prepared.ledger, checked=True)
        return cls(
            run=run,
            progress=progress,
            base_url=base_url,
            key=key,
            writer=writer,
            throttle=_throttle(writer, run.spec.limits.throttle, base_url, key),
            spool=Spool(spool_directory(prepared)),
        )

    async def adopt_pace(self, ledger: LedgerWriter) -> None:
        """Begin with the pace that an earlier run of the key learned."""
        name = key_id(self.base_url, self.key.reveal() if self.key else None)
        ours, now = _shared_pace(self.throttle.pace), time.time()
        newer = await ledger.run(lambda ledger: share_pace(ledger.conn, name, ours, now))
        _adopt(self.throttle.pace, newer)

    def drain(self, reason: str) -> None:
        """Start no more requests, and let those in flight finish."""
        self.writer.hurry()
        self.throttle.stop(reason)
        self.progress.observe(Stopping(reason=reason))

    def context(self, ledger: LedgerWriter, begun: _Begun) -> RunContext:
        """Return what the workers share."""
        spec = self.run.spec
        prepared = spec.prepared
        return RunContext(
            batch=self.run.batch,
            run=begun.run,
            ledger=ledger,
            spool=self.spool,
            profile=prepared.profile,
            base_url=self.base_url,
            throttle=self.throttle,
            guard=ProgressGuard(
                spec.limits.guard, self.throttle, prepared.profile, proven=begun.proven
            ),
            disk_space=DiskSpace(self.spool.directory, image_directory(prepared)),
            observe=self.progress.observe,
            base=prepared.base,
            overwrite=spec.overrides.overwrite,
            redactor=Redactor.of(self.key.reveal() if self.key else None),
            stores=prepared.stores() if begun.buckets else None,
        )

    def remote_settings(self) -> RunSettings:
        """Return what the actors of a cluster need to know of the run."""
        from batchgen.cluster.messages import RunSettings

        limits = self.run.spec.limits
        return RunSettings(
            base_url=self.base_url, deadline_s=limits.deadline_s, downloads=limits.downloads
        )

    def pool_settings(self) -> PoolSettings:
        """Return the limits that concern the pool."""
        limits = self.run.spec.limits
        return PoolSettings(
            concurrency=limits.concurrency,
            downloads=limits.downloads,
            deadline_s=limits.deadline_s,
            key=self.key,
            limit=limits.jobs,
            only=self.run.only,
            poll_s=limits.poll_s,
            download_wait_s=limits.download_wait_s,
        )


async def _run_pool(
    pool: Pool, context: RunContext, progress: RunProgress, run: EnrolledRun
) -> None:
    limits, ledger = run.spec.limits, run.spec.prepared.ledger
    async with anyio.create_task_group() as services:
        services.start_soon(progress.run, context.dispatch_status)
        services.start_soon(_sample, context, limits.concurrency)
        services.start_soon(publish_live, context.ledger, ledger, run.name)
        if limits.until is not None:
            services.start_soon(_stop_at, limits.until, context.throttle)
        await pool.run()
        services.cancel_scope.cancel()


async def _sample(context: RunContext, concurrency: int) -> None:
    """Record the throttle every ten seconds, for as long as the ledger can be written."""
    with suppress(LedgerWriteError):  # the workers report it
        while True:
            await anyio.sleep(SAMPLE_EVERY_S)
            seen = context.throttle.status()
            sample = Sample(
                in_flight=seen.in_flight,
                width=seen.width,
                allowed=concurrency,
                waiting_for=seen.waiting_for,
            )
            await context.ledger.run(record_sample, context.run, sample)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Begun:
    """A run that is in the ledger, and what the ledger knows that it needs."""

    run: RunId
    proven: set[tuple[str, str]]
    """Pairs of model and route that brought an image lately."""
    buckets: tuple[str, ...]
    """The output directories of the batch that are, or were, in buckets."""


def _begin(ledger: Ledger, run: EnrolledRun, claim: Claim | None) -> _Begun:
    """Write the run unless the enrollment did; ``claim`` is None in that case."""
    if run.run is not None:
        run_id = run.run
        continue_run(ledger, run_id)
    else:
        assert claim is not None
        run_id = run.write(ledger, claim)
    return _Begun(
        run=run_id,
        proven=proven_kinds(ledger, run.spec.prepared.profile.name),
        buckets=tuple(filter(is_bucket, roots_of(ledger.conn, run.batch))),
    )


def _throttle(
    ledger: LedgerWriter, limits: DispatchLimits, base_url: str, key: ApiKey | None
) -> Throttle:
    shared_key = key_id(base_url, key.reveal() if key else None)

    async def place(images: int, gaps: Mapping[str, float], lead_s: float) -> float:
        rates = [
            (
                SharedRate(unit=unit, interval_s=gap_s, burst=limits.burst),
                images if unit == "images" else 1,
            )
            for unit, gap_s in gaps.items()
        ]
        pace = _shared_pace(throttle.pace)

        def step(ledger: Ledger) -> tuple[float, SharedPace | None]:
            now = time.time()
            newer = share_pace(ledger.conn, shared_key, pace, now)
            earliest = now + lead_s
            return earliest + take_place(ledger.conn, shared_key, rates, earliest), newer

        start, newer = await ledger.run(step)
        _adopt(throttle.pace, newer)
        # Processes share the wall clock; the wait in the ledger's queue has passed already.
        return start - time.time() + time.monotonic()

    throttle = Throttle(ThrottleCore(limits), reserve_start=place)
    return throttle


def _shared_pace(pace: Pace) -> SharedPace:
    """Return a pace with the times of the wall clock, which processes share."""
    changed_at = pace.changed_at - time.monotonic() + time.time()
    return SharedPace(kind=pace.kind, value=pace.value, changed_at=changed_at)


def _adopt(pace: Pace, newer: SharedPace | None) -> None:
    """Take over the pace of another run, if it is newer."""
    if newer is not None and newer.value is not None:
        pace.adopt(newer.value, newer.changed_at - time.time() + time.monotonic())


async def _shielded(step: Awaitable[T]) -> T:
    """Finish a step before a cancellation takes effect."""
    with anyio.CancelScope(shield=True):
        result = await step
    return result


async def _end_early(ledger: LedgerWriter, run_id: RunId, error: BaseException) -> None:
    """Record the end of a run that an exception ended, if the ledger can be written."""
    stopped, code = stop_reason_of(error)
    ledger.hurry()
    with suppress(Exception):  # the caller raises the error that ended the run
        await ledger.run(end_run, run_id, stopped=stopped, exit_code=code)


def _local_now() -> datetime:
    return datetime.now().astimezone()


async def _stop_at(deadline: datetime, throttle: Throttle) -> None:
    """Stop dispatch at a time of the wall clock.

    The clock is checked now and then, since it may be set and the machine may sleep.
    """
    while (left := deadline - _local_now()) > timedelta(0):  # noqa: ASYNC110  # a clock has no event
        await anyio.sleep(min(left.total_seconds(), _CLOCK_CHECK_S))
    throttle.stop(f"until: it is {deadline:%H:%M}; what is left stays pending for the next run")


def _end(ledger: Ledger, run_id: RunId, name: str, result: RunResult) -> None:
    code = result.exit_code(status(ledger.conn, name))
    end_run(ledger, run_id, stopped=result.stopped, exit_code=code)


_STOPPED_TEXT = {
    UNREACHABLE: "unreachable: no connection to the endpoint; check the network and base_url",
    BREAKER: "breaker: request after request is left without a trustworthy response, and may be"
    " billed; look at the provider's status and log before going on",
    OUTAGE: "outage: the provider returns its own error for every request; look at its"
    " status page and run again later",
    RETRY_AFTER: "throttled: the endpoint asks for a pause of more than an hour",
    THROTTLED: "throttled: 30 minutes of 429 or 503 without one success; look at the limits and the"
    " balance of the account, then run again",
}


def _stopped_text(status: DispatchStatus) -> str | None:
    """Return why dispatch stopped, with the provider's last response if that was the cause."""
    if status.stopped is None or status.stopped not in _STOPPED_TEXT:
        return status.stopped
    text = _STOPPED_TEXT[status.stopped]
    if status.stopped == RETRY_AFTER:
        wait = f" ({duration(status.too_long_s)})" if status.too_long_s else ""
        text = f"{text}{wait}; run again later"
    return f"{text}; the last response: {status.last_error}" if status.last_error else text
