"""Uncertain jobs: what their requests cost, and which of them a person has closed.

A person who has looked at one acknowledges it: kept with the time, never undone. The mark is on the
attempt that the job is held for. A new attempt has none, so that the job counts as uncertain again
if that one is lost too.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from batchgen.errors import SettingsError
from batchgen.job import BatchId, canonical_json
from batchgen.ledger.key_patterns import IS_MEANT, Only, only_values
from batchgen.ledger.notices import UNSEEN
from batchgen.ledger.sums import CHARGED, NOT_ACKNOWLEDGED, POSSIBLE
from batchgen.ledger.transaction import write_transaction
from batchgen.money import Micros, decimal_string

_OF_HELD_JOB: Final = """
    FROM attempts WHERE job_id = jobs.id AND attempts.fingerprint = held.fingerprint
        AND NOT EXISTS (SELECT 1 FROM images WHERE attempt_id = attempts.id
            AND images.state IN ('saved', 'replaced', 'pruned'))
"""
"""Attempts at the image that a job is held for. Attempts of the same fingerprint whose image was
saved before a refresh are left out: their money has bought an image."""
_UNCERTAIN: Final = f"""
    SELECT key, held.started_at AS sent_at, coalesce(reason, '') AS reason, held.request_id,
           held.id AS attempt, held.price AS price, held.acknowledged_at AS acknowledged_at,
           (SELECT sum({CHARGED}) {_OF_HELD_JOB}) AS charged,
           (SELECT sum({POSSIBLE}) {_OF_HELD_JOB}) AS maybe, estimated AS again
    FROM jobs JOIN attempts AS held
        ON held.rowid = (SELECT max(rowid) FROM attempts WHERE job_id = jobs.id)
    WHERE batch_id = ? AND retired = 0 AND state = 'uncertain'
"""
"""Uncertain jobs with the attempt that each is held for: its last one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UncertainSums:
    """Uncertain jobs: what their requests cost, and what new ones would."""

    jobs: int
    acknowledged: int
    """Those that a person has looked at and closed; in ``jobs`` too."""
    charged: Micros
    """By all attempts at the images that they are held for, the acknowledged jobs' too; no attempt
    whose image was saved."""
    maybe: Micros
    again: Micros
    """One new request for each."""

    def as_json(self) -> dict[str, object]:
        """Return a JSON object; money as decimal strings in dollars."""
        return {
            "charged": decimal_string(self.charged),
            "maybe": decimal_string(self.maybe),
            "again": decimal_string(self.again),
        }

    @classmethod
    def of(cls, held: Sequence[UncertainJob]) -> UncertainSums:
        """Sum up some of them."""
        return cls(
            jobs=len(held),
            acknowledged=sum(job.acknowledged_at is not None for job in held),
            charged=Micros(sum(job.charged for job in held)),
            maybe=Micros(sum(job.maybe for job in held)),
            again=Micros(sum(job.again for job in held)),
        )


def uncertain_sums(conn: sqlite3.Connection, batch: BatchId) -> UncertainSums:
    """Sum up the uncertain jobs of a batch."""
    row = conn.execute(
        "SELECT count(*) AS jobs, coalesce(sum(acknowledged_at IS NOT NULL), 0) AS acknowledged,"
        " coalesce(sum(charged), 0) AS charged, coalesce(sum(maybe), 0) AS maybe,"
        f" coalesce(sum(again), 0) AS again FROM ({_UNCERTAIN})",
        (batch,),
    ).fetchone()
    return UncertainSums(**dict(row))


@dataclass(frozen=True, slots=True, kw_only=True)
class UncertainJob:
    """A job that is held because its last request may have been billed."""

    key: str
    sent_at: str
    reason: str
    request_id: str | None
    """The provider's name for the request, where it gave one."""
    attempt: str
    """Our own name for it, which went along as ``Idempotency-Key``."""
    price: Micros
    charged: Micros
    """By all attempts at the image that it is held for."""
    maybe: Micros
    again: Micros
    """What a new request is expected to cost."""
    acknowledged_at: str | None
    """When a person closed it."""

    def as_json(self) -> dict[str, object]:
        """Return a JSON object; the price as a decimal string in dollars."""
        return {
            "key": self.key,
            "sent_at": self.sent_at,
            "reason": self.reason,
            "request_id": self.request_id,
            "attempt": self.attempt,
            "price": decimal_string(self.price),
            "charged": decimal_string(self.charged),
            "maybe": decimal_string(self.maybe),
            "acknowledged_at": self.acknowledged_at,
        }


def uncertain_jobs(
    conn: sqlite3.Connection, batch: BatchId, *, only_news: bool = False
) -> Iterator[UncertainJob]:
    """Yield the uncertain jobs of a batch, each with the attempt that it is held for."""
    news = f" AND {NOT_ACKNOWLEDGED} AND {UNSEEN}" if only_news else ""
    rows = conn.execute(f"{_UNCERTAIN}{news} ORDER BY sent_at, key", (batch,))
    for row in rows:
        yield UncertainJob(**dict(row))


def open_uncertain_jobs(
    conn: sqlite3.Connection, batch: BatchId, only: Only | None = None
) -> list[UncertainJob]:
    """Return the uncertain jobs that are not acknowledged, restricted to ``only``.

    Raises SettingsError if ``only`` matches no uncertain job.
    """
    held = list(uncertain_jobs(conn, batch))
    rows = conn.execute(
        "SELECT key FROM jobs WHERE batch_id = :batch AND retired = 0 AND state = 'uncertain'"
        f" AND {IS_MEANT}",
        {"batch": batch, **only_values(only)},
    )
    chosen = {row["key"] for row in rows}
    if only is not None and not chosen:
        raise SettingsError("--only: no uncertain job has such a key; nothing was changed")
    return [job for job in held if job.key in chosen and job.acknowledged_at is None]


def acknowledge(
    conn: sqlite3.Connection,
    batch: BatchId,
    only: Only | None = None,
    *,
    now: str,
) -> list[UncertainJob]:
    """Record the timestamp ``now`` as when a person closed the jobs; return those.

    Raises SettingsError as `open_uncertain_jobs` does.
    """
    with write_transaction(conn):
        found = open_uncertain_jobs(conn, batch, only)
        conn.execute(
            "UPDATE attempts SET acknowledged_at = ? WHERE acknowledged_at IS NULL"
            " AND id IN (SELECT value FROM json_each(?))",
            (now, canonical_json([job.attempt for job in found])),
        )
    return found
