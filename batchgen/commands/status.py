"""`batchgen status`: show the state of batches, for a person or a program."""

from __future__ import annotations

import json
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Final

from batchgen.console.color import shown
from batchgen.errors import ExitCode, UnknownBatchError
from batchgen.ledger.batches import batch_names, find_batch
from batchgen.ledger.database import open_for_reading
from batchgen.ledger.uncertain import uncertain_jobs
from batchgen.report.live_status import status_text
from batchgen.report.metrics import metrics_text
from batchgen.report.status import uncertain_text
from batchgen.session.live_status import LiveStatus, live_status
from batchgen.session.settings import Environment

_CLEAR_SCREEN: Final = "\x1b[H\x1b[J"


def status(name: str | None, db: Path | None, *, as_json: bool, watch_s: float | None) -> ExitCode:
    """Show one batch, or all of the ledger; repeat every ``watch_s`` seconds until interrupted."""
    ledger = Environment.load().ledger_path(db, None)
    while True:
        found = _read(ledger, name)
        if watch_s is not None and not as_json and sys.stdout.isatty():
            sys.stdout.write(_CLEAR_SCREEN)
        for one in found:
            text = json.dumps(one.as_json()) if as_json else shown(status_text(one), sys.stdout)
            sys.stdout.write(text + "\n")
        sys.stdout.flush()
        if watch_s is None:
            return ExitCode.DONE
        time.sleep(watch_s)


def uncertain(name: str, db: Path | None, *, as_json: bool) -> ExitCode:
    """List the jobs that may be charged without an image: when, why, and at which price."""
    ledger = Environment.load().ledger_path(db, None)
    with closing(open_for_reading(ledger)) as conn:
        for job in uncertain_jobs(conn, find_batch(conn, name).id):
            text = json.dumps(job.as_json()) if as_json else uncertain_text(job)
            sys.stdout.write(text + "\n")
    return ExitCode.DONE


def metrics(name: str | None, db: Path | None) -> ExitCode:
    """Write one batch, or all of the ledger, as OpenMetrics text."""
    found = _read(Environment.load().ledger_path(db, None), name)
    sys.stdout.write(metrics_text([one.status for one in found]))
    return ExitCode.DONE


def _read(ledger: Path, name: str | None) -> list[LiveStatus]:
    with closing(open_for_reading(ledger)) as conn:
        names = [name] if name is not None else batch_names(conn)
        if not names:
            raise UnknownBatchError(f"{ledger}: the ledger holds no batch yet")
        return [live_status(conn, ledger, one) for one in names]
