"""What a person decides about jobs that wait for them."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from batchgen.job import ROW_REASON, BatchId, JobId, JobState, canonical_json
from batchgen.ledger.clock import Clock, timestamp, utc_now
from batchgen.ledger.key_patterns import IS_MEANT, Only, only_values
from batchgen.ledger.open_work import OpenWork
from batchgen.ledger.paid_images import FETCHABLE, LAST_PAID, refetch
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
class RetrySelection:
    """Which of the jobs that wait for a person."""

    states: Collection[JobState]
    only: Only | None = None
    code: str | None = None
    """What their reason begins with: ``moderation_blocked``, ``image_lost``."""
    since: datetime | None = None
    """Only those that began to wait at this moment or later."""

    def values(self, batch: BatchId, now: datetime) -> dict[str, object]:
        """Return the selection as the values of the statements."""
        return {
            "batch": batch,
            "states": canonical_json([*self.states]),
            **only_values(self.only),
            "code": self.code,
            "since": timestamp(self.since) if self.since else "",
            "now": timestamp(now),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried(OpenWork):
    """Jobs that a person has tried again; ``jobs`` and ``cost`` are those to be paid for."""

    free: int
    """Jobs whose lost image is downloaded once more instead."""


_LOST: Final = (
    " AND EXISTS (SELECT 1 FROM images JOIN attempts ON attempts.id = attempt_id"
    " WHERE images.job_id = jobs.id AND images.state = 'lost' AND refetched = 0"
    f" AND {FETCHABLE} AND {LAST_PAID})"
)


def preview_retry(
    conn: sqlite3.Connection, batch: BatchId, chosen: RetrySelection, *, buy: bool = False
) -> Retried:
    """Return what `retry_jobs` would do, and what one request for each pending job would cost."""
    return _count(conn, chosen.values(batch, utc_now()), buy=buy)


def _count(conn: sqlite3.Connection, values: dict[str, object], *, buy: bool) -> Retried:
    count = f"SELECT count(*) AS jobs, coalesce(sum(estimated), 0) AS cost FROM jobs {_CHOSEN}"
    all_of_them = conn.execute(count, values).fetchone()
    if buy:
        return Retried(jobs=all_of_them["jobs"], cost=Micros(all_of_them["cost"]), free=0)
    lost = conn.execute(count + _LOST, values).fetchone()
    return Retried(
        jobs=all_of_them["jobs"] - lost["jobs"],
        cost=Micros(all_of_them["cost"] - lost["cost"]),
        free=lost["jobs"],
    )


def retry_jobs(
    conn: sqlite3.Connection,
    batch: BatchId,
    chosen: RetrySelection,
    *,
    buy: bool = False,
    clock: Clock = utc_now,
) -> Retried:
    """Put jobs back to pending with their tries forgotten; their attempts stay as they are.

    A job whose lost image has a URL is ``paid`` again instead, once: the next run downloads it for
    free. With ``buy`` it is pending at once, and images that wait for a download are given up.
    """
    now = clock()
    values = chosen.values(batch, now)
    with write_transaction(conn):
        found = _count(conn, values, buy=buy)
        if buy:
            conn.execute(
                "UPDATE images SET state = 'lost' WHERE state = 'due'"
                f" AND job_id IN (SELECT id FROM jobs {_CHOSEN})",
                values,
            )
        else:
            lost = conn.execute(f"SELECT id FROM jobs {_CHOSEN}{_LOST}", values).fetchall()
            refetch(conn, [JobId(row["id"]) for row in lost], now)
        conn.execute(
            "UPDATE jobs SET state = 'pending', reason = NULL, tries = 0, doubts = 0, cuts = 0,"
            f" changed_at = :now {_CHOSEN}",
            values,
        )
    return found
