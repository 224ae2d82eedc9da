"""What the progress guard keeps: which kinds of request brought an image lately, and what it stops.

Each function runs inside a transaction of its caller.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from batchgen.job import RunId
from batchgen.ledger.clock import timestamp
from batchgen.ledger.ledger import Ledger

_FRESH_FOR: Final = timedelta(hours=24)


def proven_kinds(ledger: Ledger, provider: str) -> set[tuple[str, str]]:
    """Return model and route of what brought a verified image in the last 24 hours."""
    now = ledger.now()
    rows = ledger.conn.execute(
        "SELECT model, route FROM canaries WHERE provider = ? AND verified_at BETWEEN ? AND ?",
        (provider, timestamp(now - _FRESH_FOR), timestamp(now)),
    )
    return {(row["model"], row["route"]) for row in rows}


def record_canary(ledger: Ledger, provider: str, model: str, route: str) -> None:
    """Write that an image of this kind is verified on disk."""
    ledger.conn.execute(
        "INSERT INTO canaries (provider, model, route, verified_at) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (provider, model, route) DO UPDATE SET verified_at = excluded.verified_at",
        (provider, model, route, ledger.timestamp()),
    )


def delete_canary(ledger: Ledger, provider: str, model: str, route: str) -> None:
    """Make the next run begin with canaries of this kind."""
    ledger.conn.execute(
        "DELETE FROM canaries WHERE provider = ? AND model = ? AND route = ?",
        (provider, model, route),
    )


def reopen_refused_jobs(ledger: Ledger, run: RunId, is_shared: Callable[[str, str], bool]) -> int:
    """Make jobs pending again that failed in this run for the reason that stopped it.

    ``is_shared`` takes code and message of a refusal. Returns the number of jobs.
    """
    rows = ledger.conn.execute(
        "SELECT job_id, error_code, message FROM attempts JOIN jobs ON jobs.id = job_id"
        " WHERE run_id = ? AND outcome = 'refused' AND state = 'failed'"
        " AND attempts.fingerprint = jobs.fingerprint",
        (run,),
    ).fetchall()
    jobs = {
        row["job_id"] for row in rows if is_shared(row["error_code"] or "", row["message"] or "")
    }
    ledger.conn.executemany(
        "UPDATE jobs SET state = 'pending', reason = NULL, tries = 0, changed_at = ? WHERE id = ?",
        [(ledger.timestamp(), job) for job in jobs],
    )
    return len(jobs)
