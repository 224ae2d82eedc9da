"""The recent pace of a run, as other processes see it in the ledger. Never writes."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from batchgen.ledger.clock import timestamp

_WINDOW: Final = timedelta(minutes=2)
_MINUTE: Final = timedelta(minutes=1)
_MAX_ROWS: Final = 5_000
"""Attempts that are read at most, so that a status of a long run stays fast."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPace:
    """How fast a run has been working lately."""

    per_minute: float
    """Attempts with images per minute, over two minutes or since the start if later."""
    last_image_at: datetime | None
    throttled: int
    """Responses of 429 or 503 in the last minute."""
    learned_per_minute: float | None = None
    """Requests per minute that 429s taught since the run began; None if it had no 429."""

    def left_s(self, jobs: int) -> float | None:
        """Return how long this number of jobs will take, in seconds; None without a rate."""
        return jobs / self.per_minute * 60 if self.per_minute else None


def run_pace(conn: sqlite3.Connection, run: int, started_at: str, now: datetime) -> RunPace:
    """Return the pace of a run."""
    recent = _ends(conn, run, billed="yes", outcome="ok", since=now - _WINDOW)
    started = datetime.fromisoformat(started_at)
    begin = max(started, now - _WINDOW)
    if len(recent) == _MAX_ROWS:
        begin = recent[-1]
    span_s = max((now - begin).total_seconds(), 1.0)
    return RunPace(
        per_minute=len(recent) / span_s * 60,
        last_image_at=_last_image(conn, run),
        throttled=len(_ends(conn, run, billed="no", outcome="throttled", since=now - _MINUTE)),
        learned_per_minute=_learned_per_minute(conn, run, started),
    )


def _learned_per_minute(conn: sqlite3.Connection, run: int, since: datetime) -> float | None:
    """Return the rate that was learned last, if it was since a moment and the run had a 429.

    The ledger does not say which key a run uses: without a 429 of its own, the rate may be that of
    another run's key.
    """
    row = conn.execute(
        "SELECT value FROM paces WHERE kind = 'interval' AND changed_at >= ?"
        " AND EXISTS (SELECT 1 FROM attempts"
        " WHERE run_id = ? AND billed = 'no' AND outcome = 'throttled')"
        " ORDER BY changed_at DESC LIMIT 1",
        (since.timestamp(), run),
    ).fetchone()
    return None if row is None else 60.0 / float(row["value"])


def _ends(
    conn: sqlite3.Connection, run: int, *, billed: str, outcome: str, since: datetime
) -> list[datetime]:
    """Return the ends of attempts since a moment, newest first."""
    # Later attempts have higher rowids, so the index is read backwards and only as far as needed.
    rows = conn.execute(
        "SELECT ended_at FROM (SELECT ended_at FROM attempts WHERE run_id = ? AND billed = ?"
        " AND outcome = ? ORDER BY rowid DESC LIMIT ?) WHERE ended_at >= ?",
        (run, billed, outcome, _MAX_ROWS, timestamp(since)),
    )
    return sorted((datetime.fromisoformat(row["ended_at"]) for row in rows), reverse=True)


def _last_image(conn: sqlite3.Connection, run: int) -> datetime | None:
    row = conn.execute(
        "SELECT max(ended_at) AS at FROM (SELECT ended_at FROM attempts WHERE run_id = ?"
        " AND billed = 'yes' AND outcome = 'ok' ORDER BY rowid DESC LIMIT 100)",
        (run,),
    ).fetchone()
    return None if row["at"] is None else datetime.fromisoformat(row["at"])
