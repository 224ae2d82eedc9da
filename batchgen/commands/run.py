"""`batchgen run` and `batchgen resume`: begin, drive, and say how it ended."""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import anyio

from batchgen.console.log_file import LoggedProgress
from batchgen.console.progress import make_progress, write_line
from batchgen.errors import BatchgenError, ExitCode, SettingsError, message_of
from batchgen.job import BatchId
from batchgen.ledger.attempts import finished_attempts
from batchgen.ledger.database import open_for_reading
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.manifest_paths import base_of, manifest_of
from batchgen.ledger.queries import BatchStatus, find_batch, status
from batchgen.ledger.saved_images import replaced_by
from batchgen.manifest.loader import parse_manifest
from batchgen.money import ZERO, Micros, decimal_string, parse_dollars
from batchgen.report.status import next_step, replaced_text, summary_text
from batchgen.session.batch_lock import batch_lock
from batchgen.session.directories import image_directory, spool_directory
from batchgen.session.fresh_prices import PriceLists
from batchgen.session.missing_images import missing_images
from batchgen.session.notifications import telling
from batchgen.session.plan_and_enroll import (
    Faces,
    Start,
    begin,
    begin_again,
    check,
    reference_images,
)
from batchgen.session.prepare import Overrides, Prepared, key_of, prepare, settle_settings
from batchgen.session.reference_downloads import ReferenceImages
from batchgen.session.run_engine import Outcome, drive, endpoint
from batchgen.session.settings import DB_NAME, Environment, exposed_env_file
from batchgen.spool.spool import Spool
from batchgen.system.failpoints import arm
from batchgen.system.process import (
    disable_core_dumps,
    shorten_switch_interval,
    tune_allocator,
    tune_garbage_collector,
)


def run(manifests: list[Path], overrides: Overrides, faces: Faces) -> ExitCode:
    """Plan, enroll and run each manifest; the worst exit code of all.

    All manifests are read before the first is run. What keeps one of them from running is said,
    and the others run all the same, but for those of a provider that stopped dispatch. A budget of
    the command line is that of all together. Raises BatchgenError.
    """
    tune_allocator()
    _arm(Environment.load())
    directory = manifests[0].absolute().parent
    everything = [prepare(path, overrides.db, ledger_directory=directory) for path in manifests]
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
            write_line(sys.stderr, message_of(exc))
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


def resume(name: str, overrides: Overrides, faces: Faces) -> ExitCode:
    """Go on with a batch from what the ledger keeps of it; its manifest file is not needed.

    Raises BatchgenError.
    """
    tune_allocator()
    environment = Environment.load()
    _arm(environment)
    ledger = environment.ledger_path(overrides.db, None)
    with closing(open_for_reading(ledger)) as conn:
        row = find_batch(conn, name)
    path = manifest_of(ledger, row)
    loaded = parse_manifest(row.manifest.encode(), file=path.name, path=path)
    prepared = settle_settings(loaded, ledger)
    check(prepared, overrides)
    locked = batch_lock(ledger, name, take_over=overrides.take_over)
    with locked, telling(prepared, faces.tell) as ending:
        start = begin_again(prepared, overrides, faces, row, reference_images(faces))
        ending.code = _go(prepared, start, overrides, faces).code
    return ending.code


def _arm(environment: Environment) -> None:
    try:
        arm(environment.failpoint)
    except ValueError as exc:
        raise SettingsError(f"BATCHGEN_FAILPOINT: {exc}") from exc


def _run_one(
    prepared: Prepared,
    overrides: Overrides,
    faces: Faces,
    lists: PriceLists,
    images: ReferenceImages,
) -> _End:
    name = prepared.loaded.name
    locked = batch_lock(prepared.ledger, name, take_over=overrides.take_over)
    with locked, telling(prepared, faces.tell) as ending:
        prepared, start = begin(prepared, overrides, faces, lists, images)
        end = _go(prepared, start, overrides, faces)
        ending.code = end.code
    return end


def _go(prepared: Prepared, start: Start, overrides: Overrides, faces: Faces) -> _End:
    """Run what is enrolled, and say how it ended."""
    began = time.monotonic()
    outcome = Outcome(at_fault=start.at_fault)
    with closing(open_for_reading(prepared.ledger)) as conn:
        # A partial manifest may lie elsewhere than that of its batch.
        base = base_of(prepared.ledger, find_batch(conn, start.name))
        missing = missing_images(conn, start.batch, base)
    if missing.count:
        faces.tell(missing.text(start.name))
    if start.to_do:
        disable_core_dumps()
        tune_garbage_collector()
        shorten_switch_interval()
        if warning := exposed_env_file(prepared.loaded.base):
            faces.tell(f"warning: {warning}")
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
        if not start.to_do:
            _tidy_spool(conn, prepared, start.batch)
        found = status(conn, start.name)
        last = found.last_run if start.to_do else None
        replaced = replaced_by(conn, last.id) if last else 0
    for error in outcome.internal_errors:
        write_line(sys.stderr, error)
    seconds = time.monotonic() - began
    if faces.json:
        write_line(sys.stdout, json.dumps(found.as_json()))
    else:
        told = replaced_text(start.name, replaced, last.id) if last and replaced else None
        _summarize(prepared, found, faces, made=outcome.made, seconds=seconds, replaced=told)
    run = found.last_run if start.to_do else None
    code = outcome.exit_code(found)
    return _End(
        code=ExitCode.UNFINISHED if missing.count and code is ExitCode.DONE else code,
        stopped=outcome.stopped,
        spent=Micros(run.charged + run.maybe + run.reserved) if run else ZERO,
    )


def _tidy_spool(conn: sqlite3.Connection, prepared: Prepared, batch: BatchId) -> None:
    """Remove the answers that a run left, killed behind its last image."""
    spool = Spool(spool_directory(prepared))
    if spool.directory.is_dir():
        spool.prepare()
    for attempt in finished_attempts(Ledger(conn), batch, spool.attempts()):
        spool.remove(attempt)


def _summarize(
    prepared: Prepared,
    found: BatchStatus,
    faces: Faces,
    *,
    made: int,
    seconds: float,
    replaced: str | None,
) -> None:
    if faces.quiet and not (found.troubled or found.unfinished):
        return
    images = _shown(image_directory(prepared))
    write_line(sys.stdout, summary_text(found, images=images, made=made, seconds=seconds))
    if replaced is not None:
        write_line(sys.stdout, replaced)
    db = prepared.ledger
    here = _here()
    found_alone = here and db.name == DB_NAME and db.parent in (here, here / "jobs")
    option = "" if found_alone else f" --db {_shown(db)}"
    step = next_step(found, option, has_log=prepared.profile.has_log)
    write_line(sys.stdout, f"next: {step}")


def _shown(path: Path) -> str:
    """A path as short as it can be typed from here."""
    here = _here()
    return str(path.relative_to(here)) if here and path.is_relative_to(here) else str(path)


def _here() -> Path | None:
    """The current directory, which somebody may have removed during the night."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return None
