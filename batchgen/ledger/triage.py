"""What a person decides about jobs that wait for them."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from batchgen.job import ROW_REASON, BatchId, JobState, canonical_json
from batchgen.ledger.ledger import Clock, timestamp, utc_now
from batchgen.ledger.only import IS_MEANT, Only, only_values
from batchgen.ledger.queries import OpenWork
from batchgen.ledger.transaction import write_transaction
from batchgen.money import Micros

_CHOSEN: Final = (
    "WHERE batch_id = :batch AND retired = 0"
    f" AND state IN (SELECT value FROM json_each(:states)) AND {IS_MEANT}"
    " AND (:code IS NULL OR substr(reason, 1, instr(reason || ':', ':') - 1) = :code)"
    " AND changed_at >= :since"
    # Without its row such a job cannot be sent; the next run tries it again by itself.
    f" AND (reason IS NULL OR reason NOT GLOB '{ROW_REASON}:*')"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Which of the jobs that wait for a person."""

    states: Collection[JobState]
    only: Only | None = None
    code: str | None = None
    """What their reason begins with: ``moderation_blocked``, ``picture_lost``."""
    since: datetime | None = None
    """Only those that came to wait at this moment or later."""

    def values(self, batch: BatchId, now: datetime) -> dict[str, object]:
        """As the statements want it."""
        return {
            "batch": batch,
            "states": canonical_json([*self.states]),
            **only_values(self.only),
            "code": self.code,
            "since": timestamp(self.since) if self.since else "",
            "now": timestamp(now),
        }


def waiting_jobs(conn: sqlite3.Connection, batch: BatchId, chosen: Chosen) -> OpenWork:
    """How many jobs `retry_jobs` would put back, and what one request for each would cost."""
    return _count(conn, chosen.values(batch, utc_now()))


def _count(conn: sqlite3.Connection, values: dict[str, object]) -> OpenWork:
    found = conn.execute(
        f"SELECT count(*) AS jobs, coalesce(sum(estimated), 0) AS cost FROM jobs {_CHOSEN}",
        values,
    ).fetchone()
    return OpenWork(jobs=found["jobs"], cost=Micros(found["cost"]))


def retry_jobs(
    conn: sqlite3.Connection, batch: BatchId, chosen: Chosen, *, clock: Clock = utc_now
) -> OpenWork:
    """Put jobs back to pending with their tries forgotten; their attempts and doubts stay."""
    values = chosen.values(batch, clock())
    with write_transaction(conn):
        found = _count(conn, values)
        conn.execute(
            "UPDATE jobs SET state = 'pending', reason = NULL, tries = 0, doubts = 0, cuts = 0,"
            f" changed_at = :now {_CHOSEN}",
            values,
        )
    return found
