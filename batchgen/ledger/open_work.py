"""What a run would have to do: jobs with money in them, and jobs without a price."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from batchgen.job import BatchId
from batchgen.money import Micros


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenWork:
    """What a run would have to do with."""

    jobs: int
    cost: Micros
    """Of those that a request would be sent for."""


def jobs_with_money(conn: sqlite3.Connection, batch: BatchId) -> int:
    """Count the jobs to recover or to download, retired ones too: money is in them."""
    (jobs,) = conn.execute(
        "SELECT count(*) FROM jobs"
        " WHERE batch_id = ? AND retired IN (0, 1) AND state IN ('sending', 'paid')",
        (batch,),
    ).fetchone()
    return int(jobs)


def unpriced_models(conn: sqlite3.Connection, batch: BatchId) -> dict[str, int]:
    """Count the pending jobs with a price of 0, by model; without a set price it is unknown."""
    rows = conn.execute(
        "SELECT model, count(*) FROM jobs WHERE batch_id = ? AND retired = 0"
        " AND state = 'pending' AND estimated = 0 GROUP BY model",
        (batch,),
    )
    return {row[0]: row[1] for row in rows}
