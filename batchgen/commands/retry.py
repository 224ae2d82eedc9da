"""`batchgen retry`: return jobs that wait for a decision to pending. Sends nothing."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from batchgen.commands.locked_batch import locked_batch
from batchgen.console.progress import write_line
from batchgen.errors import ExitCode
from batchgen.job import BatchId
from batchgen.ledger.batches import find_batch
from batchgen.ledger.database import open_for_reading
from batchgen.ledger.only import resolve_jobs
from batchgen.ledger.retry_selection import RetrySelection, preview_retry, retry_jobs
from batchgen.money import dollars
from batchgen.session.settings import Environment


def retry(
    name: str, db: Path | None, chosen: RetrySelection, *, buy: bool, dry_run: bool
) -> ExitCode:
    """Return the selected jobs to pending; with ``dry_run`` only list them.

    Lost images are downloaded once more before their jobs are rebought, unless ``buy`` is set.
    """
    if dry_run:
        ledger = Environment.load().ledger_path(db, None)
        with closing(open_for_reading(ledger)) as conn:
            row = find_batch(conn, name)
            moved = preview_retry(conn, row.id, _resolved(conn, chosen, row.id, name), buy=buy)
        would = f"{moved.jobs:,} jobs would be pending again, estimated at {dollars(moved.cost)}"
        if moved.free:
            would += f"; {moved.free:,} lost images would be downloaded once more for free"
        write_line(sys.stdout, f"{name}: {would}; nothing was changed")
        return ExitCode.DONE
    with locked_batch(name, db) as batch:
        resolved = _resolved(batch.conn, chosen, batch.row.id, name)
        moved = retry_jobs(batch.conn, batch.row.id, resolved, buy=buy)
    if not moved.jobs and not moved.free:
        write_line(
            sys.stdout,
            f"{name}: no such jobs; nothing was changed. The next `batchgen run` tries jobs again"
            " whose row was at fault",
        )
        return ExitCode.DONE
    if moved.free:
        what = "1 lost image is" if moved.free == 1 else f"{moved.free:,} lost images are"
        write_line(
            sys.stdout,
            f"{name}: {what} downloaded once more for free; if that fails,"
            " the next `retry` buys again",
        )
    if moved.jobs:
        write_line(
            sys.stdout,
            f"{name}: {moved.jobs:,} jobs are pending again, estimated at {dollars(moved.cost)}",
        )
    write_line(sys.stdout, f"next: batchgen resume {name}")
    return ExitCode.DONE


def _resolved(
    conn: sqlite3.Connection, chosen: RetrySelection, batch: BatchId, name: str
) -> RetrySelection:
    return replace(chosen, only=resolve_jobs(conn, chosen.only, batch, name))
