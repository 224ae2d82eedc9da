"""`batchgen retry`: return jobs that wait for a decision to pending. Sends nothing."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from batchgen.commands.locked_batch import locked_batch
from batchgen.console.progress import write_line
from batchgen.errors import ExitCode
from batchgen.job import BatchId, JobState
from batchgen.ledger.batch_status import status
from batchgen.ledger.batches import find_batch
from batchgen.ledger.database import open_for_reading
from batchgen.ledger.key_patterns import resolve_jobs
from batchgen.ledger.retry_selection import Retried, RetrySelection, preview_retry, retry_jobs
from batchgen.money import decimal_string, rounded_dollars
from batchgen.session.settings import Environment
from batchgen.system.shell_command import batch_command
from batchgen.text import counted


def retry(
    name: str,
    db: Path | None,
    chosen: RetrySelection,
    *,
    buy: bool,
    dry_run: bool = False,
    as_json: bool = False,
) -> ExitCode:
    """Return the selected jobs to pending; with ``dry_run`` only list them.

    Lost images are downloaded once more before their jobs are rebought, unless ``buy`` is set.
    """
    if dry_run:
        ledger = Environment.load().ledger_path(db, None)
        with closing(open_for_reading(ledger)) as conn:
            row = find_batch(conn, name)
            moved = preview_retry(conn, row.id, _resolved(conn, chosen, row.id, name), buy=buy)
            waiting = status(conn, name).shown_jobs
    else:
        with locked_batch(name, db) as batch:
            resolved = _resolved(batch.conn, chosen, batch.row.id, name)
            moved = retry_jobs(batch.conn, batch.row.id, resolved, buy=buy)
            waiting = status(batch.conn, name).shown_jobs
    if as_json:
        write_line(sys.stdout, json.dumps(_record(name, moved, dry_run=dry_run)))
    else:
        for line in _lines(name, moved, dry_run=dry_run) or [_none_text(name, chosen, waiting)]:
            write_line(sys.stdout, line)
    return ExitCode.DONE


def _record(name: str, moved: Retried, *, dry_run: bool) -> dict[str, object]:
    return {
        "batch": name,
        "dry_run": dry_run,
        "pending": moved.jobs,
        "downloads": moved.free,
        "estimated": decimal_string(moved.cost),
    }


def _lines(name: str, moved: Retried, *, dry_run: bool) -> list[str]:
    """Return what was or would be changed; nothing if no job was selected."""
    lines = []
    if moved.free:
        images = counted(moved.free, "lost image")
        are = "would be" if dry_run else "is" if moved.free == 1 else "are"
        again = "; if that fails, the next `retry` requests a new image"
        lines.append(f"{name}: {images} {are} downloaded once more for free{again}")
    if moved.jobs:
        are = "would be" if dry_run else "is" if moved.jobs == 1 else "are"
        cost = rounded_dollars(moved.cost)
        lines.append(
            f"{name}: {counted(moved.jobs, 'job')} {are} pending again, estimated at {cost}"
        )
    if lines:
        lines.append("nothing was changed" if dry_run else f"next: {batch_command('resume', name)}")
    return lines


def _none_text(name: str, chosen: RetrySelection, waiting: Mapping[str, int]) -> str:
    """Say that no job was selected, and which option selects those that wait."""
    wanted = " or ".join(state.value for state in JobState if state in chosen.states)
    others = [
        f"{waiting[state]:,} {state}: --{state}"
        for state in ("failed", "blocked", "uncertain")
        if JobState(state) not in chosen.states and waiting[state]
    ]
    hint = f" ({', '.join(others)})" if others else ""
    rows = "; the next run tries jobs again whose row was at fault"
    return f"no matching {wanted} jobs in {name}{hint}; nothing was changed{rows}"


def _resolved(
    conn: sqlite3.Connection, chosen: RetrySelection, batch: BatchId, name: str
) -> RetrySelection:
    return replace(chosen, only=resolve_jobs(conn, chosen.only, batch, name))
