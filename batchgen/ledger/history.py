"""What earlier requests say about the duration and the losses of later ones."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from batchgen.job import BatchId


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What earlier requests say about later ones."""

    latency_s: float | None
    """Of the last responses with an image by this provider; None where there were too few."""
    per_minute: float | None
    """Images a minute in the last run of the batch; None where it made too few."""
    again_percent: Decimal | None
    """Requests of the batch that cost money and brought no image, to those that did."""


_HISTORY_ATTEMPTS: Final = 2_000


_MIN_RESPONSES: Final = 5


_MIN_PAID: Final = 50


def history(conn: sqlite3.Connection, batch: BatchId | None, provider: str) -> History:
    """Look at the newest attempts of the ledger, and at all of the batch's runs."""
    responses = conn.execute(
        "SELECT count(*) AS n, avg(julianday(ended_at) - julianday(started_at)) AS days FROM"
        " attempts WHERE rowid > (SELECT max(rowid) FROM attempts) - ?"
        " AND outcome = 'ok' AND copy_of IS NULL AND provider = ?",
        (_HISTORY_ATTEMPTS, provider),
    ).fetchone()
    paid = conn.execute(_PAID, {"batch": batch}).fetchone()
    made, lost = paid["billed"] - paid["spoiled"], paid["spoiled"] + paid["maybe"]
    known = made + lost >= _MIN_PAID and made
    again = Decimal(1000 * lost // made).scaleb(-1) if known else None
    return History(
        latency_s=responses["days"] * _DAY_S if responses["n"] >= _MIN_RESPONSES else None,
        per_minute=_last_rate(conn, batch),
        again_percent=again,
    )


_DAY_S: Final = 86_400


_MIN_RATED: Final = 100


def _last_rate(conn: sqlite3.Connection, batch: BatchId | None) -> float | None:
    """Return the images per minute, by the newest attempts of the last run that has any."""
    row = conn.execute(
        "SELECT count(*) AS n, julianday(max(ended_at)) - julianday(min(started_at)) AS days"
        " FROM attempts WHERE rowid > (SELECT max(rowid) FROM attempts) - ? AND outcome = 'ok'"
        " AND copy_of IS NULL"
        " AND +run_id = (SELECT max(id) FROM runs WHERE batch_id = ? AND billed_attempts > 0)",
        (_HISTORY_ATTEMPTS, batch),
    ).fetchone()
    if row["n"] < _MIN_RATED or not row["days"]:
        return None
    return float(row["n"] / (row["days"] * 1440))


_OF_BATCH: Final = "run_id IN (SELECT id FROM runs WHERE batch_id = :batch)"


_PAID: Final = f"""
SELECT (SELECT coalesce(sum(billed_attempts), 0) FROM runs WHERE batch_id = :batch) AS billed,
       (SELECT count(*) FROM attempts WHERE {_OF_BATCH} AND billed = 'yes' AND outcome < 'ok')
       + (SELECT count(*) FROM attempts WHERE {_OF_BATCH} AND billed = 'yes' AND outcome > 'ok')
       AS spoiled,
       (SELECT count(*) FROM attempts WHERE {_OF_BATCH} AND billed = 'maybe'
        AND outcome <> 'sending') AS maybe
"""
