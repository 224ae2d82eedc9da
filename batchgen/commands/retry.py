"""`batchgen retry`: jobs that wait for a person go back to pending. Nothing is sent."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

from batchgen.errors import ExitCode
from batchgen.job import JobState
from batchgen.ledger.database import open_for_writing
from batchgen.ledger.queries import find_batch
from batchgen.ledger.triage import retry_jobs
from batchgen.lock import batch_lock
from batchgen.money import dollars
from batchgen.progress import write_line
from batchgen.settings import Environment


def retry(name: str, db: Path | None, *, states: frozenset[JobState], only: str | None) -> ExitCode:
    """Put jobs of these states, whose key fits the glob ``only``, back to pending."""
    ledger = Environment.load().ledger_path(db, None)
    with batch_lock(ledger, name), closing(open_for_writing(ledger)) as conn:
        batch = find_batch(conn, name)
        moved = retry_jobs(conn, batch.id, states=states, only=only)
    write_line(
        sys.stdout,
        f"{name}: {moved.jobs:,} jobs are pending again, estimated at {dollars(moved.cost)}"
        if moved.jobs
        else f"{name}: no such jobs; nothing was changed",
    )
    if moved.jobs:
        write_line(sys.stdout, f"next: batchgen resume {name}")
    return ExitCode.DONE
