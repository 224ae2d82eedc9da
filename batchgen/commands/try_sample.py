"""`batchgen try`: make a few different images of a manifest first, then ask to make the others."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from batchgen.commands.plan import ledger_of, staged
from batchgen.commands.run import run, run_all
from batchgen.console.ask import ask, can_ask
from batchgen.console.progress import write_line
from batchgen.console.shell_command import shell_command
from batchgen.console.terminal import TerminalPresenter
from batchgen.errors import ExitCode, SettingsError
from batchgen.ledger.batches import find_batch
from batchgen.ledger.database import open_for_reading
from batchgen.ledger.key_patterns import Only
from batchgen.ledger.saved_images import saved_images
from batchgen.ledger.staged_jobs import sample_keys
from batchgen.money import decimal_string
from batchgen.session.overrides import Overrides
from batchgen.session.prepare import Prepared, RunSpec, prepare
from batchgen.text import counted


def try_sample(
    manifest: Path, overrides: Overrides, presenter: TerminalPresenter, *, sample: int
) -> ExitCode:
    """Run the most different jobs of a manifest, print their images, and ask to run the others.

    The images of the sample belong to the batch; no later run makes them again. Without a person
    to ask, and if the sample leaves a problem, the other jobs wait. One budget covers both runs.
    Raises BatchgenError.
    """
    prepared = prepare(manifest, overrides.db)
    keys, total = _sample(prepared, sample)
    budget = RunSpec.of(prepared, overrides).limits.max_cost
    first = run_all([manifest], replace(overrides, only=Only.of(keys)), presenter)
    code = first.code
    if not first.ran:
        return code
    for path in _images(prepared, set(keys)):
        write_line(sys.stdout, json.dumps({"image": path}) if presenter.as_json else f"  {path}")
    if code is not ExitCode.DONE or len(keys) == total or presenter.as_json:
        return code
    others = counted(total - len(keys), "image")
    question = f"Make the other {others} of {prepared.identity.name} too?"
    if can_ask() and ask(question, "y/N").lower() in ("y", "yes"):
        if budget is not None:
            left = max(0, budget - first.spent)
            overrides = replace(overrides, max_cost=decimal_string(left))
        return run([manifest], overrides, presenter)
    write_line(sys.stdout, f"next: {shell_command('run', manifest)}   # makes the other images")
    return code


def _sample(prepared: Prepared, sample: int) -> tuple[list[str], int]:
    """Return the keys of the sample, and the number of all jobs. Raises SettingsError."""
    with closing(ledger_of(prepared)) as conn:
        staging = staged(conn, prepared)
        keys, total = sample_keys(conn, sample), staging.jobs
    if not keys:
        raise SettingsError(f"{prepared.loaded.path.name}: no job without an error to try")
    return keys, total


def _images(prepared: Prepared, keys: Collection[str]) -> list[str]:
    with closing(open_for_reading(prepared.ledger)) as conn:
        batch = find_batch(conn, prepared.identity.name).id
        saved = [one for one in saved_images(conn, batch) if one.key in keys]
    return [f"{one.root}/{one.path}" for one in saved]
