"""The throttle of a run over time: one row every ten seconds, for the dashboard."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from batchgen.job import RunId
from batchgen.ledger.ledger import Ledger

SAMPLE_EVERY_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The throttle at one moment."""

    in_flight: int
    width: int
    """Requests that it lets be in flight at present."""
    allowed: int
    """Requests that the limits of the run allow."""
    waiting_for: str | None
    """Why no request starts; None while requests start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedSample(Sample):
    """A sample as it is in the ledger."""

    at: str
    queued: int
    """Jobs that were paid and wait for their download."""


def record_sample(ledger: Ledger, run: RunId, sample: Sample) -> None:
    """Append a sample; one step in a transaction of the caller."""
    ledger.conn.execute(
        "INSERT INTO samples (run_id, at, in_flight, width, allowed, waiting_for, queued)"
        " SELECT id, ?, ?, ?, ?, ?, (SELECT count(*) FROM jobs WHERE jobs.batch_id = runs.batch_id"
        " AND retired IN (0, 1) AND state = 'paid') FROM runs WHERE id = ?",
        (
            ledger.timestamp(),
            sample.in_flight,
            sample.width,
            sample.allowed,
            sample.waiting_for,
            run,
        ),
    )


def samples_of(conn: sqlite3.Connection, run: int) -> list[RecordedSample]:
    """Return the samples of a run, oldest first."""
    rows = conn.execute(
        "SELECT at, in_flight, width, allowed, waiting_for, queued FROM samples"
        " WHERE run_id = ? ORDER BY at",
        (run,),
    )
    return [RecordedSample(**dict(row)) for row in rows]
