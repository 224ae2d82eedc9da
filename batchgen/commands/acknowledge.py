"""`batchgen acknowledge`: close uncertain jobs that a person has looked at. Nothing is sent."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from batchgen.console.progress import write_line
from batchgen.errors import ExitCode
from batchgen.ledger.clock import timestamp, utc_now
from batchgen.ledger.database import open_for_reading, open_for_writing
from batchgen.ledger.queries import find_batch
from batchgen.ledger.uncertain import UncertainJob, open_uncertain_jobs
from batchgen.ledger.uncertain import acknowledge as write
from batchgen.money import decimal_string, dollars
from batchgen.report.costs import counted
from batchgen.session.batch_lock import batch_lock
from batchgen.session.settings import Environment


def acknowledge(
    name: str, db: Path | None, only: Sequence[str], *, dry_run: bool, as_json: bool
) -> ExitCode:
    """Close uncertain jobs, all or those whose key is or fits one of ``only``.

    Raises SettingsError for a pattern that fits none, and UnknownBatchError.
    """
    ledger = Environment.load().ledger_path(db, None)
    if dry_run:
        with closing(open_for_reading(ledger)) as conn:
            found = open_uncertain_jobs(conn, find_batch(conn, name).id, only)
    else:
        with batch_lock(ledger, name), closing(open_for_writing(ledger)) as conn:
            now = timestamp(utc_now())
            found = write(conn, find_batch(conn, name).id, only, now=now)
    charged = sum(doubt.charged for doubt in found)
    maybe = sum(doubt.maybe for doubt in found)
    if as_json:
        record = {
            "batch": name,
            "dry_run": dry_run,
            "acknowledged": [doubt.key for doubt in found],
            "charged": decimal_string(charged),
            "maybe": decimal_string(maybe),
        }
        write_line(sys.stdout, json.dumps(record, ensure_ascii=False))
    else:
        money = f"charged {dollars(charged)}, possible {dollars(maybe)}"
        write_line(sys.stdout, f"{name}: {_text(found, dry_run=dry_run)}: {money}")
    return ExitCode.DONE


def _text(found: Sequence[UncertainJob], *, dry_run: bool) -> str:
    jobs = counted(len(found), "uncertain job")
    if dry_run:
        return f"{jobs} would be acknowledged; nothing was changed"
    return f"{jobs} acknowledged; still listed by status --uncertain, and retry can make them again"
