"""Which jobs that wait for a person are new since the last notice, and the record of notices."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

from batchgen.job import BatchId
from batchgen.ledger.sums import NOT_ACKNOWLEDGED
from batchgen.ledger.transaction import write_transaction

_TROUBLED: Final = "retired = 0 AND state IN ('failed', 'blocked', 'uncertain')"
# The last attempt; for a job that failed before any, its reason: that is the same every night.
_CAUSE: Final = """coalesce((SELECT id FROM attempts WHERE job_id = jobs.id
    ORDER BY rowid DESC LIMIT 1), reason, '')"""
UNSEEN: Final = f"""NOT EXISTS (SELECT 1 FROM noticed_jobs AS seen WHERE seen.job_id = jobs.id
    AND seen.state = jobs.state AND seen.cause = {_CAUSE})"""
"""Whether no notice has named a job with the state that it is in now, for the same attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """How many jobs began to wait for a person, and since when that counts."""

    run: int | None
    """The run after which it counts; None counts from the beginning."""
    since: str | None
    failed: int
    blocked: int
    uncertain: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.failed + self.blocked + self.uncertain


def unseen(conn: sqlite3.Connection, batch: BatchId) -> News:
    """Count what no notice has named yet."""
    last = conn.execute(
        "SELECT run_id, noticed_at FROM notices WHERE batch_id = ? ORDER BY id DESC LIMIT 1",
        (batch,),
    ).fetchone()
    run, since = (last["run_id"], last["noticed_at"]) if last else (None, None)
    return _count(conn, batch, UNSEEN, run, since)


def changed_after(
    conn: sqlite3.Connection, batch: BatchId, run: int | None, since: str | None
) -> News:
    """Count the jobs that began to wait after a run's end; everything, where that run is None."""
    return _count(conn, batch, "(:since IS NULL OR changed_at > :since)", run, since)


def _count(
    conn: sqlite3.Connection, batch: BatchId, condition: str, run: int | None, since: str | None
) -> News:
    row = conn.execute(
        "SELECT coalesce(sum(state = 'failed'), 0) AS failed,"
        " coalesce(sum(state = 'blocked'), 0) AS blocked,"
        " coalesce(sum(state = 'uncertain'), 0) AS uncertain FROM jobs"
        f" WHERE batch_id = :batch AND {_TROUBLED} AND {NOT_ACKNOWLEDGED} AND {condition}",
        {"batch": batch, "since": since},
    ).fetchone()
    return News(run=run, since=since, **dict(row))


def keep_notice(conn: sqlite3.Connection, batch: BatchId, now: str) -> None:
    """Record at the timestamp ``now`` that a notice names all jobs that wait for a person."""
    with write_transaction(conn):
        conn.execute(
            "INSERT INTO notices (batch_id, run_id, noticed_at)"
            " SELECT ?, max(id), ? FROM runs WHERE batch_id = ?",
            (batch, now, batch),
        )
        conn.execute(
            "DELETE FROM noticed_jobs WHERE job_id IN (SELECT id FROM jobs WHERE batch_id = ?)",
            (batch,),
        )
        conn.execute(
            "INSERT INTO noticed_jobs (job_id, state, cause)"
            f" SELECT id, state, {_CAUSE} FROM jobs WHERE batch_id = ? AND {_TROUBLED}",
            (batch,),
        )
