"""`batchgen acknowledge`: close uncertain jobs that a person has reviewed. Sends nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from batchgen.commands.locked_batch import locked_batch
from batchgen.console.progress import write_line
from batchgen.errors import ExitCode
from batchgen.ledger.batches import find_batch
from batchgen.ledger.clock import timestamp, utc_now
from batchgen.ledger.database import open_for_reading
from batchgen.ledger.key_patterns import Only, resolve_jobs
from batchgen.ledger.uncertain import UncertainJob, open_uncertain_jobs
from batchgen.ledger.uncertain import acknowledge as write
from batchgen.money import Micros, decimal_string, rounded_dollars
from batchgen.session.settings import Environment
from batchgen.text import counted


def acknowledge(
    name: str, db: Path | None, only: Only | None, *, dry_run: bool, as_json: bool
) -> ExitCode:
    """Close the uncertain jobs that ``only`` selects; None selects all.

    Raises SettingsError if a key or pattern matches no job, or if no job that matches is
    uncertain, and UnknownBatchError.
    """
    if dry_run:
        ledger = Environment.load().ledger_path(db, None)
        with closing(open_for_reading(ledger)) as conn:
            row = find_batch(conn, name)
            found = open_uncertain_jobs(conn, row.id, resolve_jobs(conn, only, row.id, name))
    else:
        with locked_batch(name, db) as batch:
            chosen = resolve_jobs(batch.conn, only, batch.row.id, name)
            found = write(batch.conn, batch.row.id, chosen, now=timestamp(utc_now()))
    charged = Micros(sum(job.charged for job in found))
    maybe = Micros(sum(job.maybe for job in found))
    if as_json:
        record = {
            "batch": name,
            "dry_run": dry_run,
            "acknowledged": [job.key for job in found],
            "charged": decimal_string(charged),
            "maybe": decimal_string(maybe),
        }
        write_line(sys.stdout, json.dumps(record, ensure_ascii=False))
    elif not found:
        text = f"{name}: no uncertain job to acknowledge; nothing was changed"
        write_line(sys.stdout, text)
    else:
        money = f"charged {rounded_dollars(charged)}, possible {rounded_dollars(maybe)}"
        write_line(sys.stdout, f"{name}: {_text(found, dry_run=dry_run)}: {money}")
    return ExitCode.DONE


def _text(found: Sequence[UncertainJob], *, dry_run: bool) -> str:
    jobs = counted(len(found), "uncertain job")
    if dry_run:
        return f"{jobs} would be acknowledged; nothing was changed"
    return f"{jobs} acknowledged; still listed by status --uncertain, and retry can make them again"
