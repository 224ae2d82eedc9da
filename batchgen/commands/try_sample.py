"""`batchgen try`: make a few different images of a manifest first, then ask to make the others."""

from __future__ import annotations

import json
import sys
import webbrowser
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from pathlib import Path

from batchgen.commands.plan import ledger_of, staged
from batchgen.commands.run import is_good_sample, run, run_all
from batchgen.console.ask import ask, can_ask, has_browser
from batchgen.console.progress import write_line
from batchgen.console.terminal import TerminalPresenter
from batchgen.errors import ExitCode, SettingsError
from batchgen.ledger.batch_status import BatchStatus, status
from batchgen.ledger.batches import find_batch
from batchgen.ledger.database import open_for_reading
from batchgen.ledger.key_patterns import Only
from batchgen.ledger.review import ImageFilter
from batchgen.ledger.saved_images import saved_images
from batchgen.ledger.staged_jobs import jobs_without_error, sample_keys
from batchgen.money import decimal_string
from batchgen.planning.matrix_cells import matrix_axes
from batchgen.review.page_url import page_url
from batchgen.session.bucket_ledger import refuse_bucket_ledger
from batchgen.session.overrides import Overrides
from batchgen.session.prepare import Prepared, RunSpec, prepare
from batchgen.system.process_table import user_name
from batchgen.system.shell_command import shell_command
from batchgen.text import counted


def try_sample(
    manifest: Path, overrides: Overrides, presenter: TerminalPresenter, *, sample: int
) -> ExitCode:
    """Run the most different jobs of a manifest, show their images, and ask to run the others.

    At a terminal with a browser it offers the review page of the sample, or the comparison if the
    manifest has a matrix. The page stays open until the person says whether to go on; elsewhere it
    prints the paths. The images of the sample belong
    to the batch; no later run makes them again unless they were rejected. Without a person to ask,
    and if the sample leaves a problem, the other jobs wait. One budget covers both runs. Raises
    BatchgenError.
    """
    refuse_bucket_ledger(manifest, overrides.db, "try")
    prepared = prepare(manifest, overrides.db)
    keys, total = _sample(prepared, sample)
    budget = RunSpec.of(prepared, overrides).limits.max_cost
    first = run_all([manifest], replace(overrides, only=Only.of(keys), is_sample=True), presenter)
    code = first.code
    if not first.ran:
        return code
    is_over = not is_good_sample(code, _status(prepared)) or len(keys) == total or presenter.as_json
    name, others = prepared.identity.name, counted(total - len(keys), "image")
    with _shown(prepared, keys, presenter, offers_page=not is_over):
        if is_over:
            return code
        question = f"Make the other {others} of {name} too?"
        continues = can_ask() and ask(question, "y/N").lower() in ("y", "yes")
    if continues:
        if budget is not None:
            left = max(0, budget - first.spent)
            overrides = replace(overrides, max_cost=decimal_string(left))
        return run([manifest], overrides, presenter)
    ledger = ("--db", overrides.db) if overrides.db is not None else ()
    command = shell_command("run", manifest, *ledger)
    write_line(sys.stdout, f"next: {command}   # makes the other images")
    return code


@contextmanager
def _shown(
    prepared: Prepared, keys: Sequence[str], presenter: TerminalPresenter, *, offers_page: bool
) -> Iterator[None]:
    """Show the sample on the review page while the block runs, or print the paths of its images."""
    if offers_page and _wants_page(prepared):
        with _page(prepared, keys) as home:
            url = page_url(home, "compare") if _has_matrix(prepared) else home
            write_line(sys.stdout, f"{prepared.identity.name}: review page at {url}")
            webbrowser.open(url)
            yield
        return
    for path in _images(prepared, set(keys)):
        write_line(sys.stdout, json.dumps({"image": path}) if presenter.as_json else f"  {path}")
    yield


def _page(prepared: Prepared, keys: Sequence[str]) -> AbstractContextManager[str]:
    """Return a review page of some jobs, whose URL its context yields. Raises BatchgenError."""
    # Imported here: without a browser none of it is needed.
    from batchgen.review.batch import ReviewBatch, View
    from batchgen.review.server import serving

    view = View(by=user_name(), chosen=ImageFilter(only=Only.of(keys)))
    return serving(ReviewBatch(prepared.ledger, prepared.identity.name, view))


def _has_matrix(prepared: Prepared) -> bool:
    return bool(matrix_axes(prepared.loaded))


def _wants_page(prepared: Prepared) -> bool:
    """Ask whether to open the review page, where a person and a browser are."""
    if not can_ask() or not has_browser(prepared.environment.get):
        return False
    reply = ask("Open the review page of these images?", "Y/n")
    return reply.lower() not in ("n", "no")


def _sample(prepared: Prepared, sample: int) -> tuple[list[str], int]:
    """Return the keys of the sample, and the number of all jobs without an error.

    Raises SettingsError.
    """
    with closing(ledger_of(prepared)) as conn:
        staged(conn, prepared)
        keys = sample_keys(conn, sample, in_rows=_has_matrix(prepared))
        total = jobs_without_error(conn)
    if not keys:
        raise SettingsError(f"{prepared.loaded.path.name}: no job without an error to try")
    return keys, total


def _status(prepared: Prepared) -> BatchStatus:
    with closing(open_for_reading(prepared.ledger)) as conn:
        return status(conn, prepared.identity.name)


def _images(prepared: Prepared, keys: Collection[str]) -> list[str]:
    with closing(open_for_reading(prepared.ledger)) as conn:
        batch = find_batch(conn, prepared.identity.name).id
        saved = [one for one in saved_images(conn, batch) if one.key in keys]
    return [f"{one.root}/{one.path}" for one in saved]
