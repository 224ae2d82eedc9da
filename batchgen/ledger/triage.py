"""What a person decides about jobs that wait for them."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import Final

from batchgen.job import BatchId, JobState, canonical_json
from batchgen.ledger.ledger import Clock, timestamp, utc_now
from batchgen.ledger.queries import OpenWork
from batchgen.money import Micros

_CHOSEN: Final = (
    "WHERE batch_id = :batch AND retired = 0"
    " AND state IN (SELECT value FROM json_each(:states)) AND (:only IS NULL OR key GLOB :only)"
)


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
    chosen = {
        "batch": batch,
        "states": canonical_json([*states]),
        "only": only,
        "now": timestamp(clock()),
    }
    conn.execute("BEGIN IMMEDIATE")
    try:
        found = conn.execute(
            f"SELECT count(*) AS jobs, coalesce(sum(estimated), 0) AS cost FROM jobs {_CHOSEN}",
            chosen,
        ).fetchone()
        conn.execute(
            "UPDATE jobs SET state = 'pending', reason = NULL, tries = 0, doubts = 0,"
            f" changed_at = :now {_CHOSEN}",
            chosen,
        )
        conn.execute("COMMIT")
    except BaseException:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise
    return OpenWork(jobs=found["jobs"], cost=Micros(found["cost"]))
