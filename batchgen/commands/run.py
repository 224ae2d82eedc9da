"""`batchgen run` and `batchgen resume`: start a run, wait for its end, and print its summary."""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from batchgen.console.progress import write_line, write_text
from batchgen.console.tally import RunFacts
from batchgen.console.terminal import TerminalPresenter
from batchgen.engine.linked_parts import remove_finished
from batchgen.engine.stop_reasons import stops_all_batches, stops_provider
from batchgen.errors import BatchgenError, ExitCode, LedgerError, SettingsError, message_of
from batchgen.job import BatchId
from batchgen.ledger.attempts import finished_attempts
from batchgen.ledger.batch_status import BatchStatus, LastRun, status
from batchgen.ledger.batches import find_batch
from batchgen.ledger.clock import timestamp, utc_now
from batchgen.ledger.database import open_for_reading, open_for_writing
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.manifest_paths import manifest_of
from batchgen.ledger.owners import open_runs
from batchgen.ledger.saved_places import replaced_by
from batchgen.ledger.unpublished import publications
from batchgen.manifest.loader import parse_manifest
from batchgen.money import ZERO, Micros
from batchgen.report.status import next_step, replaced_text, summary_text
from batchgen.session.batch_lock import batch_lock
from batchgen.session.bucket_ledger import held_ledger
from batchgen.session.cluster import cluster_of, grace_of
from batchgen.session.directories import image_place, spool_directory
from batchgen.session.env_file import exposed_env_file
from batchgen.session.fresh_prices import PriceLists
from batchgen.session.missing_images import missing_images
from batchgen.session.notifications import Ending, notifying
from batchgen.session.overrides import Overrides
from batchgen.session.plan_and_enroll import EnrolledRun, begin, begin_again, validate
from batchgen.session.prepare import Prepared, RunSpec, prepare, settle_settings
from batchgen.session.publish import publish_accepted
from batchgen.session.reference_downloads import ReferenceImages
from batchgen.session.remote import RemoteParts, responses_wait
from batchgen.session.run_engine import RunResult, drive, ended_on_error, endpoint
from batchgen.session.settings import Environment
from batchgen.spool.spool import Spool
from batchgen.system.failpoints import arm
from batchgen.system.process import (
    disable_core_dumps,
    shorten_switch_interval,
    tune_allocator,
    tune_garbage_collector,
)
from batchgen.system.shell_command import shortest
from batchgen.urls import is_bucket

if TYPE_CHECKING:
    from batchgen.cluster.ledger_backup import LedgerBackup
    from batchgen.session.channels import FinishedReport


def is_good_sample(code: ExitCode, found: BatchStatus) -> bool:
    """Return whether `try` proposes the other jobs after a sample that ended like this."""
    return code in (ExitCode.DONE, ExitCode.UNFINISHED) and found.is_sound


def run(manifests: list[Path], overrides: Overrides, presenter: TerminalPresenter) -> ExitCode:
    """Plan, enroll and run each manifest, and return the worst exit code. Raises BatchgenError."""
    return run_all(manifests, overrides, presenter).code


@dataclass(frozen=True, slots=True, kw_only=True)
class RunsEnd:
    """How the runs of all manifests ended."""

    code: ExitCode
    """The worst of their exit codes."""
    ran: int = 0
    """Runs that were approved and have ended."""
    spent: Micros = ZERO
    """Charged and possibly charged."""


def run_all(manifests: list[Path], overrides: Overrides, presenter: TerminalPresenter) -> RunsEnd:
    """Plan, enroll and run each manifest.

    All manifests are read before the first one runs. An error of one manifest is reported, and the
    others still run, except for those of a provider that stopped dispatch. A budget of the command
    line covers all manifests together. Raises BatchgenError.
    """
    tune_allocator()
    _arm(Environment.load())
    with held_ledger(manifests[0], overrides, presenter.notice) as backup:
        return _run_each(manifests, overrides, presenter, backup)


def _run_each(
    manifests: list[Path],
    overrides: Overrides,
    presenter: TerminalPresenter,
    backup: LedgerBackup | None,
) -> RunsEnd:
    directory = manifests[0].absolute().parent
    everything = [prepare(path, overrides.db, ledger_directory=directory) for path in manifests]
    specs = [RunSpec.of(prepared, overrides) for prepared in everything]
    for spec in specs:
        validate(spec)
    sources = _Sources(PriceLists(), ReferenceImages(presenter), backup)
    codes, stopped, spent, ran = [], dict[str, str](), ZERO, 0
    for spec in specs:
        provider = spec.prepared.profile.name
        if provider in stopped:
            reason = f"left alone, since {provider} stopped before: {stopped[provider]}"
            write_line(sys.stderr, f"{spec.name}: {reason}")
            continue
        try:
            end = _run_one(_with_rest_of_budget(spec, spent), presenter, sources)
        except BatchgenError as exc:
            write_line(sys.stderr, message_of(exc))
            codes.append(exc.exit_code)
            continue
        codes.append(end.code)
        ran += 1
        spent = Micros(spent + end.spent)
        if end.stopped_everything:
            break
        if end.stopped is not None and stops_provider(end.stopped):
            stopped[provider] = end.stopped
    return RunsEnd(code=max(codes), ran=ran, spent=spent)


@dataclass(frozen=True, slots=True)
class _Sources:
    """What the runs of one command share."""

    lists: PriceLists
    images: ReferenceImages
    backup: LedgerBackup | None


def _with_rest_of_budget(spec: RunSpec, spent: Micros) -> RunSpec:
    """Subtract what earlier manifests spent, if the command line sets the budget."""
    budget = spec.limits.max_cost
    if spec.overrides.max_cost is None or budget is None:
        return spec
    left = Micros(max(0, budget - spent))
    return replace(spec, limits=replace(spec.limits, max_cost=left))


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    """How the run of one manifest ended."""

    code: ExitCode
    stopped: str | None = None
    spent: Micros = ZERO
    """Charged and possibly charged."""

    @property
    def stopped_everything(self) -> bool:
        """Return whether the cause of the end holds for any other manifest too."""
        return stops_all_batches(self.stopped) or self.code in (
            ExitCode.INTERRUPTED,
            ExitCode.TERMINATED,
        )


def resume(name: str, overrides: Overrides, presenter: TerminalPresenter) -> ExitCode:
    """Continue a batch from the ledger; its manifest file is not needed.

    Raises BatchgenError.
    """
    tune_allocator()
    environment = Environment.load()
    _arm(environment)
    with held_ledger(None, overrides, presenter.notice) as backup:
        ledger = environment.ledger_path(overrides.db, None)
        return _resume(name, ledger, overrides, presenter, backup)


def _resume(
    name: str,
    ledger: Path,
    overrides: Overrides,
    presenter: TerminalPresenter,
    backup: LedgerBackup | None,
) -> ExitCode:
    with closing(open_for_reading(ledger)) as conn:
        row = find_batch(conn, name)
    path = manifest_of(ledger, row)
    loaded = parse_manifest(row.manifest.encode(), file=path.name, path=path)
    spec = RunSpec.of(settle_settings(loaded, ledger), overrides)
    validate(spec)
    with _held(spec, presenter, backup) as (ending, parts):
        enrolled = begin_again(spec, presenter, row, ReferenceImages(presenter))
        ending.code = _go(enrolled, presenter, parts).code
    return ending.code


def _read_report(ledger: Path, name: str) -> FinishedReport:
    # Imported here: most runs notify no channel, and the import would delay all of them.
    from batchgen.report.gather import finished_report

    return finished_report(ledger, name)


def _arm(environment: Environment) -> None:
    try:
        arm(environment.failpoint)
    except ValueError as exc:
        raise SettingsError(f"BATCHGEN_FAILPOINT: {exc}") from exc


def _run_one(spec: RunSpec, presenter: TerminalPresenter, sources: _Sources) -> _End:
    with _held(spec, presenter, sources.backup) as (ending, parts):
        enrolled = begin(spec, presenter, sources.lists, sources.images)
        end = _go(enrolled, presenter, parts)
        ending.code = end.code
    return end


@contextmanager
def _held(
    spec: RunSpec, presenter: TerminalPresenter, backup: LedgerBackup | None
) -> Iterator[tuple[Ending, RemoteParts]]:
    """Hold a batch, report the end of its run, and yield what the run uses elsewhere."""
    prepared = spec.prepared
    locked = batch_lock(prepared.ledger, spec.name, take_over=spec.overrides.take_over)
    on_cluster = cluster_of(spec, presenter.notice, keeps_intents=backup is not None)
    reporting = notifying(prepared, presenter.notice, _read_report)
    with locked, reporting as ending, on_cluster as cluster:
        grace_s = grace_of(prepared.environment)
        yield ending, RemoteParts(batch=spec.name, grace_s=grace_s, cluster=cluster, backup=backup)


def _go(enrolled: EnrolledRun, presenter: TerminalPresenter, parts: RemoteParts) -> _End:
    """Run the enrolled jobs, and print the result."""
    began = time.monotonic()
    prepared = enrolled.spec.prepared
    result = RunResult(at_fault=enrolled.at_fault)
    with closing(open_for_reading(prepared.ledger, checked=True)) as conn:
        missing = missing_images(conn, enrolled.batch, prepared.base)
        has_work = bool(enrolled.to_do) or responses_wait(
            conn, prepared, enrolled.batch, parts.backup
        )
    if missing.count:
        presenter.notice(missing.text(enrolled.name))
    if has_work:
        with ended_on_error(enrolled):
            if parts.backup is not None:
                parts.backup.start()
            result = _drive(enrolled, presenter, parts)
            _publish(enrolled)
    with closing(open_for_reading(prepared.ledger, checked=True)) as conn:
        if not has_work:
            _tidy_spool(conn, prepared, enrolled.batch)
            if open_runs(conn, enrolled.name):
                remove_finished(Ledger(conn), prepared.base, enrolled.batch)
        found = _with_stop(status(conn, enrolled.name), result)
        last = found.last_run if has_work else None
        replaced = replaced_by(conn, last.id) if last else 0
    for error in result.internal_errors:
        write_line(sys.stderr, error)
    code = result.exit_code(found)
    if missing.count and code is ExitCode.DONE:
        code = ExitCode.UNFINISHED
    if presenter.as_json:
        from batchgen.session.live_status import LiveStatus  # only JSON output needs it

        write_line(sys.stdout, json.dumps(LiveStatus.ended(found).as_json()))
    elif found.troubled or found.unfinished or not presenter.quiet:
        write_text(
            sys.stdout, _summary(prepared, found, last, result.made, time.monotonic() - began)
        )
        if last and replaced:
            write_line(sys.stdout, replaced_text(enrolled.name, replaced, last.id))
        # The end of a good sample is followed by a proposal of `try`.
        is_good = enrolled.spec.overrides.is_sample and is_good_sample(code, found)
        if not (is_good and found.unfinished):
            write_text(sys.stdout, f"next: {next_step(found, has_log=prepared.profile.has_log)}")
    return _End(
        code=code,
        stopped=result.stopped,
        spent=Micros(last.charged + last.maybe + last.reserved) if last else ZERO,
    )


def _with_stop(found: BatchStatus, result: RunResult) -> BatchStatus:
    """Return a status that says why its run stopped, also if that could not be written."""
    last = found.last_run
    if last is None or last.ended_at is not None or result.stopped is None:
        return found
    end = replace(last, stopped=result.stopped, ended_at=timestamp(utc_now()))
    return replace(found, last_run=end)


def _drive(enrolled: EnrolledRun, presenter: TerminalPresenter, parts: RemoteParts) -> RunResult:
    disable_core_dumps()
    tune_garbage_collector()
    shorten_switch_interval()
    prepared = enrolled.spec.prepared
    if warning := exposed_env_file(prepared.loaded.base):
        presenter.notice(f"warning: {warning}")
    for notice in prepared.environment.notices:
        presenter.notice(f"notice: {notice}")
    limits = enrolled.spec.limits
    progress = presenter.run_progress(
        RunFacts(
            total=enrolled.to_do,
            budget=limits.max_cost,
            concurrency=limits.concurrency,
            grace_s=limits.grace_s,
        )
    )
    log_path = prepared.environment.log_path(enrolled.spec.overrides.log_file)
    if log_path is not None:
        from batchgen.console.log_file import LoggedProgress  # few runs write a log

        progress = LoggedProgress(progress, log_path, batch=enrolled.name)
    with endpoint(prepared) as base_url:
        run_it = partial(drive, enrolled, progress, base_url, parts=parts)
        return anyio.run(run_it, backend="asyncio")


def _publish(enrolled: EnrolledRun) -> None:
    """Publish what was accepted during the run."""
    ledger = enrolled.spec.prepared.ledger
    with closing(open_for_reading(ledger, checked=True)) as conn:
        if not publications(Ledger(conn), enrolled.batch):
            return
    with suppress(LedgerError, SettingsError), closing(open_for_writing(ledger)) as conn:
        publish_accepted(conn, find_batch(conn, enrolled.name), ledger)


def _tidy_spool(conn: sqlite3.Connection, prepared: Prepared, batch: BatchId) -> None:
    """Remove the responses left by a run that was killed after its last image."""
    spool = Spool(spool_directory(prepared))
    if spool.directory.is_dir():
        spool.prepare()
    for attempt in finished_attempts(Ledger(conn), batch, spool.attempts()):
        spool.remove(attempt)


def _summary(
    prepared: Prepared, found: BatchStatus, run: LastRun | None, made: int, seconds: float
) -> str:
    place = image_place(prepared)
    images = place if is_bucket(place) else shortest(Path(place))
    return summary_text(found, run=run, images=images, made=made, seconds=seconds)
