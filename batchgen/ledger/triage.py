"""What a person decides about jobs that wait for them."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

from batchgen.job import BatchId, JobState, canonical_json
from batchgen.ledger.ledger import Clock, timestamp, utc_now
from batchgen.ledger.queries import OpenWork
from batchgen.money import Micros


def retry_jobs(
    conn: sqlite3.Connection,
    batch: BatchId,
    *,
    states: Collection[JobState],
    only: str | None,
    clock: Clock = utc_now,
) -> OpenWork:
    """Put jobs back to pending with their tries forgotten; their attempts and doubts stay.

    ``only`` is a glob over keys, where ``*`` also stands for ``/``.
    """
    conn.execute("BEGIN IMMEDIATE")
    try:
        rows = conn.execute(
            "UPDATE jobs SET state = 'pending', reason = NULL, tries = 0, doubts = 0,"
            " changed_at = ? WHERE batch_id = ? AND retired = 0"
            " AND state IN (SELECT value FROM json_each(?)) AND (? IS NULL OR key GLOB ?)"
            " RETURNING estimated",
            (timestamp(clock()), batch, canonical_json([*states]), only, only),
        ).fetchall()
        conn.execute("COMMIT")
    except BaseException:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise
    return OpenWork(jobs=len(rows), cost=Micros(sum(row["estimated"] for row in rows)))
