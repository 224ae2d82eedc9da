"""`batchgen run` and `batchgen resume`: the one place where a run is put together."""

from __future__ import annotations

import json
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import anyio

from batchgen.commands.embedded import embedded_endpoint
from batchgen.commands.finish import channels_of, telling
from batchgen.commands.preflight import (
    allow_open_files,
    check_models,
    check_space,
    check_writable,
)
from batchgen.commands.prepare import (
    Overrides,
    Prepared,
    key_of,
    max_cost_of,
    prepare,
    settle_settings,
    stage,
    waste_of,
)
from batchgen.commands.pricing import (
    FetchedList,
    KnownPrices,
    PriceChanges,
    PriceLists,
    with_kept_prices,
)
from batchgen.commands.quoting import (
    DEFAULT_CONCURRENCY,
    budgets_of,
    check_budgets,
    quote_of,
)
from batchgen.commands.references import ReferenceImages
from batchgen.errors import BatchgenError, ExitCode, Fault, SettingsError, StoppedError
from batchgen.events import RunEvent, Stopping
from batchgen.http import ssl_context
from batchgen.job import BatchId, JobState, RunId
from batchgen.ledger.database import open_for_reading, open_for_writing
from batchgen.ledger.enrol import Staging
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.price_lists import keep_price_list
from batchgen.ledger.queries import Status, batch_id, find_batch, status, unfinished
from batchgen.ledger.reference_urls import NeededUrls
from batchgen.ledger.writer import LedgerWriteError, LedgerWriter
from batchgen.lock import batch_lock
from batchgen.manifest.loader import parse_manifest
from batchgen.manifest.model import Limits
from batchgen.money import ZERO, Micros, decimal_string, dollars, parse_dollars
from batchgen.pool import Pool, PoolSettings
from batchgen.progress import Progress, ask, make_progress, planning, write_line
from batchgen.relocate import relocate
from batchgen.report.text import next_step, plan_text, summary_text
from batchgen.run_log import LoggedProgress
from batchgen.settings import DB_NAME, ApiKey, Environment, is_loopback
from batchgen.shutdown import Shutdown
from batchgen.spool import Spool
from batchgen.tasks import POLL_S
from batchgen.throttle import BREAKER, OUTAGE, RETRY_AFTER, UNREACHABLE, Throttle, ThrottleCore
from batchgen.throttle import Limits as ThrottleLimits
from batchgen.worker import RunContext

DEFAULT_DOWNLOADS = 8
DEFAULT_DEADLINE_S = 300.0
SPOOL_SUFFIX = ".spool"


def _tell_stderr(text: str) -> None:
    write_line(sys.stderr, text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Faces:
    """How a run shows itself."""

    json: bool = False
    quiet: bool = False
    tell: Callable[[str], None] = _tell_stderr
    """Takes what there is to say before anything is sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A batch that is enrolled, and what this run may do with it."""

    batch: BatchId
    name: str
    to_do: int
    """Jobs to ask for, to look after or to download."""
    estimate: Micros
    max_cost: Micros | None
    max_waste: Micros


def run(manifests: list[Path], overrides: Overrides, faces: Faces) -> ExitCode:
    """Plan, enrol and run each manifest; the worst exit code of all.

    All manifests are read before the first is run. What keeps one of them from running is said,
    and the others run all the same, but for those of a provider that stopped dispatch. A budget of
    the command line is that of all together. Raises BatchgenError.
    """
    folder = manifests[0].absolute().parent
    everything = [prepare(path, overrides.db, ledger_folder=folder) for path in manifests]
    for prepared in everything:
        check(prepared, overrides)
    lists, images = PriceLists(), reference_images(faces)
    codes, stopped = [], dict[str, str]()
    for prepared in everything:
        provider = prepared.profile.name
        if provider in stopped:
            reason = f"left alone, since {provider} stopped before: {stopped[provider]}"
            write_line(sys.stderr, f"{prepared.loaded.name}: {reason}")
            continue
        try:
            end = _run_one(prepared, overrides, faces, lists, images)
        except BatchgenError as exc:
            write_line(sys.stderr, str(exc))
            codes.append(exc.exit_code)
            continue
        codes.append(end.code)
        if end.stopped_everything:
            break
        if end.stopped is not None and not end.stopped.startswith("budget"):
            stopped[provider] = end.stopped
        overrides = _less(overrides, end.spent)
    return max(codes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    """How the run of one manifest ended."""

    code: ExitCode
    stopped: str | None = None
    spent: Micros = ZERO
    """Charged and maybe charged."""

    @property
    def stopped_everything(self) -> bool:
        """Whether what ended it holds for any other manifest too."""
        ours = self.stopped is not None and self.stopped.startswith(("disk", "ledger", "bug"))
        return ours or self.code in (ExitCode.INTERRUPTED, ExitCode.TERMINATED)


def _less(overrides: Overrides, spent: Micros) -> Overrides:
    """What is left of the command line's budget for the manifests that follow."""
    if overrides.max_cost is None:
        return overrides
    left = max(0, parse_dollars(overrides.max_cost) - spent)
    return replace(overrides, max_cost=decimal_string(left))


def check(prepared: Prepared, overrides: Overrides) -> None:
    """Say what is wrong with key, budget, allowance or limits before anything is planned."""
    limits = prepared.loaded.manifest.limits
    allow_open_files(*_width(limits, overrides))
    key_of(prepared.profile, prepared.environment)
    _ = overrides.selection, overrides.deadline(_local_now()), channels_of(prepared)
    max_cost_of(limits, overrides.max_cost)
    waste_of(limits, overrides.max_waste)


def _width(limits: Limits, overrides: Overrides) -> tuple[int, int]:
    """Requests and downloads at the same time."""
    return (
        overrides.concurrency or limits.concurrency or DEFAULT_CONCURRENCY,
        limits.downloads or DEFAULT_DOWNLOADS,
    )


def resume(name: str, overrides: Overrides, faces: Faces) -> ExitCode:
    """Go on with a batch from what the ledger keeps of it; its manifest file is not needed.

    Raises BatchgenError.
    """
    ledger = Environment.load().ledger_path(overrides.db, None)
    with closing(open_for_reading(ledger)) as conn:
        row = find_batch(conn, name)
    path = Path(row.manifest_path)
    loaded = parse_manifest(row.manifest.encode(), file=path.name, path=path)
    prepared = settle_settings(loaded, ledger)
    check(prepared, overrides)
    with batch_lock(ledger, name), telling(prepared, faces.tell) as ending:
        with closing(open_for_writing(ledger)) as conn:
            reference_images(faces).restore(conn, prepared, row.id)
            start = _start(conn, prepared, overrides, row.id)
        ending.code = _go(prepared, start, overrides, faces).code
    return ending.code


def _run_one(
    prepared: Prepared,
    overrides: Overrides,
    faces: Faces,
    lists: PriceLists,
    images: ReferenceImages,
) -> _End:
    locked = batch_lock(prepared.ledger, prepared.loaded.name)
    with locked, telling(prepared, faces.tell) as ending:
        prepared, start = begin(prepared, overrides, faces, lists, images)
        end = _go(prepared, start, overrides, faces)
        ending.code = end.code
    return end


def begin(
    prepared: Prepared,
    overrides: Overrides,
    faces: Faces,
    lists: PriceLists,
    images: ReferenceImages,
) -> tuple[Prepared, Start]:
    """Plan and enrol a batch by the newest prices; its lock is the caller's to hold.

    Raises BatchgenError.
    """
    fresh = lists.get(prepared.profile.price_url)
    with closing(open_for_writing(prepared.ledger)) as conn:
        profile = with_kept_prices(prepared.profile, conn)
        planned = KnownPrices(profile, were_kept=profile is not prepared.profile)
        if isinstance(fresh, FetchedList):
            profile = replace(profile, prices=fresh.prices)
        elif fresh is not None:
            faces.tell(f"no fresh price list: {fresh}; prices are from {profile.price_source}")
        prepared = replace(prepared, profile=profile)
        start = _enrol(conn, prepared, overrides, faces, planned, images)
        if isinstance(fresh, FetchedList):
            keep_price_list(conn, fresh.url, fresh.kept)
    return prepared, start


def _enrol(
    conn: sqlite3.Connection,
    prepared: Prepared,
    overrides: Overrides,
    faces: Faces,
    planned: KnownPrices,
    images: ReferenceImages,
) -> Start:
    name, profile = prepared.loaded.name, prepared.profile
    urls = NeededUrls(conn, prepared.references)
    plan = _plan(conn, prepared, overrides, faces, planned, urls)
    if len(urls):
        missing = urls.missing
        fetched = images.bring(prepared, urls)
        if missing or fetched.fetched or fetched.failed:
            plan.staging.close()
            plan = _plan(conn, prepared, overrides, faces, planned, urls)
    staging = plan.staging
    for warning in plan.warnings:
        faces.tell(f"warning: {warning}")
    for notice in plan.changes.lines(profile.price_source):
        faces.tell(f"{name}: {notice}")
    if plan.changes.risen and not overrides.yes:
        raise StoppedError(
            f"{name}: prices have risen by more than 1 % since the last run; nothing was sent."
            " Say --yes to pay them"
        )
    batch = batch_id(conn, name)
    if batch is not None and not overrides.overwrite:
        for maker, count in staging.foreign_pictures(batch).items():
            raise SettingsError(
                f"{name}: this run would replace {count:,} pictures that {maker!r} made with ones"
                f" of {profile.name!r}; say --overwrite, or give the batch another name"
            )
    if not overrides.yes:
        key = key_of(profile, prepared.environment)
        check_models(profile, key, staging.models_to_ask(batch, only=overrides.only))
    if not (faces.quiet or faces.json):
        groups = staging.compare(
            batch, only=overrides.only, partial=prepared.loaded.manifest.partial
        )
        limits = prepared.loaded.manifest.limits
        quote = quote_of(conn, batch, profile.name, limits, overrides, groups)
        budgets = budgets_of(conn, limits, overrides)
        source = profile.price_source
        write_line(sys.stderr, plan_text(name, profile.name, source, groups, quote, budgets))
    if batch is not None:
        for notice in relocate(staging, batch, prepared.loaded.base):
            faces.tell(notice)
    return _start(conn, prepared, overrides, staging.enrol(prepared.identity))


@dataclass(frozen=True, slots=True)
class _Plan:
    """A plan, and what there is to say of it."""

    staging: Staging
    changes: PriceChanges
    warnings: list[Fault]


def _plan(
    conn: sqlite3.Connection,
    prepared: Prepared,
    overrides: Overrides,
    faces: Faces,
    planned: KnownPrices,
    urls: NeededUrls,
) -> _Plan:
    changes, warnings = PriceChanges(planned), list[Fault]()
    with planning(shown=not (faces.quiet or faces.json)) as progress:
        staging = stage(
            conn,
            prepared,
            accept_unknown_price=overrides.accept_unknown_price,
            progress=progress,
            priced=changes.note,
            warned=warnings.append,
            addresses=urls,
            selection=overrides.selection,
        )
    return _Plan(staging, changes, warnings)


def reference_images(faces: Faces) -> ReferenceImages:
    return ReferenceImages(shown=not (faces.quiet or faces.json), told=not faces.quiet)


def _start(
    conn: sqlite3.Connection, prepared: Prepared, overrides: Overrides, batch: BatchId
) -> Start:
    limits = prepared.loaded.manifest.limits
    open_work = unfinished(conn, batch, overrides.limit, only=overrides.only)
    if not overrides.yes:
        budgets = budgets_of(conn, limits, overrides)
        check_budgets(prepared.loaded.name, open_work.cost, budgets)
    return Start(
        batch=batch,
        name=prepared.loaded.name,
        to_do=open_work.jobs,
        estimate=open_work.cost,
        max_cost=max_cost_of(limits, overrides.max_cost),
        max_waste=waste_of(limits, overrides.max_waste).allowance(open_work.cost),
    )


def _go(prepared: Prepared, start: Start, overrides: Overrides, faces: Faces) -> _End:
    """Run what is enrolled, and say how it ended."""
    began = time.monotonic()
    outcome = Outcome()
    if start.to_do and not _agreed(prepared, start, overrides, faces):
        raise StoppedError(f"{start.name}: nothing was sent")
    if start.to_do:
        check_writable(_spool_folder(prepared))
        check_writable(_picture_folder(prepared))
        for folder in (_spool_folder(prepared), _picture_folder(prepared)):
            check_space(folder)
        key = key_of(prepared.profile, prepared.environment)
        progress = make_progress(start.to_do, json=faces.json, quiet=faces.quiet)
        log_path = prepared.environment.log_path(overrides.log_file)
        if log_path is not None:
            progress = LoggedProgress(progress, log_path, batch=start.name)
        with endpoint(prepared) as base_url:
            outcome = anyio.run(
                drive, prepared, start, overrides, progress, base_url, key, backend="asyncio"
            )
    with closing(open_for_reading(prepared.ledger)) as conn:
        found = status(conn, start.name)
    for error in outcome.internal_errors:
        write_line(sys.stderr, error)
    seconds = time.monotonic() - began
    if faces.json:
        write_line(sys.stdout, json.dumps(found.as_json()))
    else:
        _summarize(prepared, found, faces, made=outcome.made, seconds=seconds)
    run = found.last_run if start.to_do else None
    return _End(
        code=outcome.exit_code(found),
        stopped=outcome.stopped,
        spent=Micros(run.charged + run.maybe + run.reserved) if run else ZERO,
    )


def _agreed(prepared: Prepared, start: Start, overrides: Overrides, faces: Faces) -> bool:
    """Whether a person, where there is one, agrees to spend real money."""
    host = urlsplit(prepared.profile.base_url or "").hostname
    if overrides.yes or faces.json or faces.quiet or host is None or is_loopback(host):
        return True
    if not start.estimate:
        return True
    return ask(f"{start.name}: send {start.to_do:,} requests for about {dollars(start.estimate)}?")


def _summarize(
    prepared: Prepared, found: Status, faces: Faces, *, made: int, seconds: float
) -> None:
    if faces.quiet and not (found.troubled or found.unfinished):
        return
    pictures = _shown(_picture_folder(prepared))
    write_line(sys.stdout, summary_text(found, pictures=pictures, made=made, seconds=seconds))
    db = prepared.ledger
    found_alone = db.name == DB_NAME and db.parent in (Path.cwd(), Path.cwd() / "jobs")
    option = "" if found_alone else f" --db {_shown(db)}"
    has_log = prepared.profile.account_log is not None and prepared.profile.name != "local"
    write_line(sys.stdout, "next: " + next_step(found, option, has_log=has_log))


def _picture_folder(prepared: Prepared) -> Path:
    """Where the pictures go, but for jobs that name a folder of their own."""
    loaded = prepared.loaded
    output = loaded.manifest.output
    return loaded.base / (output.dir if output and output.dir else f"out/{loaded.name}")


def _spool_folder(prepared: Prepared) -> Path:
    return prepared.ledger.with_name(prepared.ledger.name + SPOOL_SUFFIX)


def _shown(path: Path) -> str:
    """A path as short as it can be typed from here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How the engine ended."""

    signal_number: int | None = None
    stopped: str | None = None
    internal_errors: tuple[str, ...] = ()
    made: int = 0

    def exit_code(self, found: Status) -> ExitCode:
        """The exit code by the table in README.md."""
        if self.signal_number is not None:
            interrupted = self.signal_number == signal.SIGINT
            return ExitCode.INTERRUPTED if interrupted else ExitCode.TERMINATED
        if self.internal_errors:
            return ExitCode.BUG
        if self.stopped is not None:
            return ExitCode.STOPPED
        if found.troubled or found.jobs[JobState.PAID]:
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
    """Run what is enrolled to its end, in the event loop of the caller."""
    limits = prepared.loaded.manifest.limits
    deadline = overrides.deadline(_local_now())
    concurrency, downloads = _width(limits, overrides)
    deadline_s = float(limits.deadline or DEFAULT_DEADLINE_S)
    throttle = Throttle(ThrottleCore(_throttle_limits(limits, concurrency)))
    grace_s = deadline_s if overrides.grace_s is None else overrides.grace_s

    def drain(reason: str) -> None:
        throttle.stop(reason)
        observe(Stopping(reason=reason))

    def observe(event: RunEvent) -> None:
        progress.observe(event)

    shutdown = Shutdown(grace_s, drain, signals=embedder is None)
    if embedder is not None:
        embedder.take(shutdown)
    spool = Spool(_spool_folder(prepared))
    await anyio.to_thread.run_sync(spool.prepare)
    async with LedgerWriter(prepared.ledger) as ledger:
        run_id = await ledger(
            lambda ledger: ledger.start_run(
                start.batch,
                estimate=start.estimate,
                max_cost=start.max_cost,
                max_waste=start.max_waste,
            )
        )
        context = RunContext(
            batch=start.batch,
            run=run_id,
            ledger=ledger,
            spool=spool,
            profile=prepared.profile,
            base_url=base_url,
            throttle=throttle,
            observe=observe,
            base=prepared.loaded.base,
            overwrite=overrides.overwrite,
        )
        settings = PoolSettings(
            concurrency=concurrency,
            downloads=downloads,
            deadline_s=deadline_s,
            key=key,
            limit=overrides.limit,
            only=overrides.only,
            poll_s=float(limits.poll or POLL_S),
        )
        pool = Pool(context, settings, shutdown, ssl_context())
        try:
            async with anyio.create_task_group() as showing:
                showing.start_soon(progress.run, throttle.status)
                if deadline is not None:
                    showing.start_soon(_stop_at, deadline, throttle)
                await pool.run()
                showing.cancel_scope.cancel()
        finally:
            progress.close()
        stopped = throttle.status().stopped
        stopped = _STOPPED_TEXT.get(stopped, stopped) if stopped else None
        outcome = Outcome(
            signal_number=shutdown.signal_number,
            stopped=stopped,
            internal_errors=tuple(context.internal_errors),
            made=context.made,
        )
        with suppress(LedgerWriteError):  # then it is what stopped the run, and said already
            await ledger(lambda ledger: _end(ledger, run_id, start.name, outcome))
        return outcome


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
    ledger.end_run(run_id, stopped=outcome.stopped, exit_code=code)


_STOPPED_TEXT = {
    UNREACHABLE: "unreachable: no connection to the endpoint; check the network and base_url",
    BREAKER: "breaker: request after request is left without a trustworthy answer, and may be"
    " billed; look at the provider's status and log before going on",
    OUTAGE: "outage: the provider answers every request with an error of its own; look at its"
    " status page and run again later",
    RETRY_AFTER: "throttled: the endpoint asks for more than an hour of silence; run again later",
}


def _throttle_limits(limits: Limits, concurrency: int) -> ThrottleLimits:
    default = ThrottleLimits()
    return ThrottleLimits(
        concurrency=concurrency,
        requests_per_minute=_number(limits.requests_per_minute),
        images_per_minute=_number(limits.images_per_minute),
        burst=limits.burst or default.burst,
        max_probes=limits.max_probes or default.max_probes,
        unreachable_s=float(limits.unreachable or default.unreachable_s),
    )


def _number(value: int | float | None) -> float | None:
    return None if value is None else float(value)
