"""Attempts to match with a provider's log, and what the log proves of them, written down."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from batchgen.job import AttemptId, BatchId, Billed, JobId, Outcome, RunId
from batchgen.ledger.clock import Clock, timestamp, utc_now
from batchgen.ledger.open_work import OpenWork
from batchgen.ledger.run_sums import adjust_sums
from batchgen.ledger.transaction import write_transaction
from batchgen.money import Micros
from batchgen.reconciliation.settlement import Reconciliation, Sent, Settled

_SENT: Final = """
    SELECT attempts.id AS id, key, jobs.batch_id = :batch AS ours, attempts.model AS model, price,
           cost, attempts.started_at AS started_at, attempts.ended_at AS ended_at, outcome, billed,
           request_id, least, possible, refunded, price_known
    FROM runs CROSS JOIN attempts ON run_id = runs.id CROSS JOIN jobs ON jobs.id = job_id
    WHERE provider = :provider AND copy_of IS NULL
"""
# The provider of each attempt: that of its batch may have changed since.


def sent_attempts(
    conn: sqlite3.Connection,
    batch: BatchId,
    provider: str,
    *,
    settle: timedelta,
    since: date | None = None,
) -> list[Sent]:
    """Return a batch's attempts at a provider since a day (UTC), and all others of that time."""
    values: dict[str, object] = {
        "batch": batch,
        "provider": provider,
        "since": since.isoformat() if since else "",
    }
    ours = _sent(
        conn,
        " AND runs.batch_id = :batch AND attempts.started_at >= :since"
        " AND (runs.ended_at IS NULL OR runs.ended_at >= :since)",
        values,
    )
    if not ours:
        return []
    begin = min(sent.started_at for sent in ours) - settle
    end = max(sent.ended_at or sent.started_at for sent in ours) + settle
    known = {sent.id for sent in ours}
    others = _sent(
        conn,
        " AND attempts.started_at <= :end AND runs.started_at <= :end"
        " AND (attempts.ended_at IS NULL OR attempts.ended_at >= :begin)"
        " AND (runs.ended_at IS NULL OR runs.ended_at >= :begin)",
        values | {"begin": timestamp(begin), "end": timestamp(end), "batch": None},
    )
    return [*ours, *(sent for sent in others if sent.id not in known)]


def _sent(conn: sqlite3.Connection, condition: str, values: dict[str, object]) -> list[Sent]:
    return [
        Sent(
            id=AttemptId(row["id"]),
            key=row["key"],
            ours=bool(row["ours"]),
            model=row["model"],
            price=Micros(row["price"]),
            cost=Micros(row["cost"]),
            started_at=datetime.fromisoformat(row["started_at"]),
            ended_at=datetime.fromisoformat(row["ended_at"]) if row["ended_at"] else None,
            outcome=Outcome(row["outcome"]),
            billed=Billed(row["billed"]),
            request_id=row["request_id"],
            least=None if row["least"] is None else Micros(row["least"]),
            possible=Micros(row["possible"]),
            refunded=Micros(row["refunded"]),
            price_known=bool(row["price_known"]),
        )
        for row in conn.execute(_SENT + condition, values)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What settling did to jobs that were held for a person."""

    pending: OpenWork
    """Never charged, so that they may be requested again."""
    charged: int
    """Charged, and their responses are lost; still held."""


def settle_attempts(
    conn: sqlite3.Connection, found: Reconciliation, clock: Clock = utc_now
) -> Moved:
    """Write what a log has proven, all of it or nothing. Attempts changed since are left alone.

    A job that was held for an attempt that was never charged goes back to pending, unless another
    attempt at the same image is charged or uncertain.
    """
    now = timestamp(clock())
    with write_transaction(conn):
        charged = {_charge(conn, settled, now) for settled in found.billed} - {None}
        for settled in found.corrected:
            _correct(conn, settled)
        released = [_release(conn, settled, now) for settled in found.unbilled]
    prices = [price for price in released if price is not None]
    pending = OpenWork(jobs=len(prices), cost=Micros(sum(prices)))
    return Moved(pending=pending, charged=len(charged))


def _charge(conn: sqlite3.Connection, settled: Settled, now: str) -> JobId | None:
    """Charge an attempt that was uncertain or free; return the job that is held for it."""
    sent = settled.attempt
    row = conn.execute(
        "UPDATE attempts SET billed = 'yes', cost = ?, possible = 0, refunded = ?, price_known = 1,"
        " request_id = coalesce(request_id, ?)"
        " WHERE id = ? AND billed = ? AND outcome <> 'sending' RETURNING run_id, job_id, price",
        (settled.amount, settled.refunded, settled.request_id, sent.id, sent.billed),
    ).fetchone()
    if row is None:
        return None
    maybe = row["price"] if sent.billed is Billed.MAYBE else 0
    adjust_sums(conn, RunId(row["run_id"]), charged=settled.amount, possible=-maybe)
    held = conn.execute(
        "UPDATE jobs SET reason = 'charged: the provider''s log has the charge, and the response"
        " is lost', changed_at = ? WHERE id = ? AND state = 'uncertain'",
        (now, row["job_id"]),
    )
    return JobId(row["job_id"]) if held.rowcount else None


def _correct(conn: sqlite3.Connection, settled: Settled) -> None:
    """Change the amount of a charged attempt, to 0 if all is refunded."""
    sent = settled.attempt
    row = conn.execute(
        "UPDATE attempts SET cost = ?, possible = 0, refunded = ?, price_known = 1, billed = ?"
        " WHERE id = ? AND billed = 'yes' AND cost = ? AND possible = ? RETURNING run_id",
        (
            *(settled.amount, settled.refunded, Billed.YES if settled.amount else Billed.NO),
            *(sent.id, sent.cost, sent.possible),
        ),
    ).fetchone()
    if row is not None:
        adjust_sums(
            conn, RunId(row["run_id"]), charged=settled.amount - sent.cost, possible=-sent.possible
        )


def _release(conn: sqlite3.Connection, settled: Settled, now: str) -> Micros | None:
    """Record that an uncertain attempt is free; return the price of its job if that is pending."""
    row = conn.execute(
        "UPDATE attempts SET billed = 'no', refunded = ?, request_id = coalesce(request_id, ?)"
        " WHERE id = ? AND billed = 'maybe'"
        " AND outcome <> 'sending' RETURNING run_id, job_id, price",
        (settled.refunded, settled.request_id, settled.attempt.id),
    ).fetchone()
    if row is None:
        return None
    adjust_sums(conn, RunId(row["run_id"]), charged=0, possible=-row["price"])
    return release_job(conn, JobId(row["job_id"]), now)


def release_job(conn: sqlite3.Connection, job: JobId, now: str) -> Micros | None:
    """Make a held job pending unless another attempt holds it; return the price of its request.

    None if it stays as it is.
    """
    moved = conn.execute(
        "UPDATE jobs SET state = 'pending', reason = NULL, tries = 0, doubts = 0, cuts = 0,"
        " changed_at = ?"
        " WHERE id = ? AND state = 'uncertain' AND retired = 0 AND NOT EXISTS (SELECT 1"
        " FROM attempts WHERE job_id = jobs.id AND attempts.fingerprint = jobs.fingerprint"
        " AND outcome = 'ambiguous' AND billed <> 'no') RETURNING estimated",
        (now, job),
    ).fetchone()
    return None if moved is None else Micros(moved["estimated"])
