"""What the dashboard shows of a run. Each function is a short read: long ones hold up the run."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from batchgen.job import BatchId, canonical_json

_PAGE: Final = 5_000
_LAST_ROWID: Final = 2**63 - 1
_NEAR: Final = 2_000
"""Attempts before and after the newest one that may have the newest images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A run with its money."""

    id: int
    started_at: str
    ended_at: str | None
    estimate: int
    max_cost: int | None
    charged: int
    maybe: int
    reserved: int
    stopped: str | None
    exit_code: int | None
    next: int | None
    """The run of the batch that came after it; None for the newest."""

    @property
    def is_closed(self) -> bool:
        """Whether it sends no more requests; a run that was killed is closed by the next one."""
        return self.ended_at is not None or self.next is not None


def run_row(conn: sqlite3.Connection, batch: BatchId, run: int | None) -> RunRow | None:
    """Return a run of a batch, for None the newest; None for an unknown run."""
    row = conn.execute(
        "SELECT id, started_at, ended_at, estimate, max_cost, charged, maybe, reserved, stopped,"
        " exit_code, (SELECT min(later.id) FROM runs AS later WHERE later.batch_id = runs.batch_id"
        " AND later.id > runs.id) AS next FROM runs WHERE batch_id = :batch"
        " AND (:run IS NULL OR id = :run) ORDER BY id DESC LIMIT 1",
        {"batch": batch, "run": run},
    ).fetchone()
    return None if row is None else RunRow(**dict(row))


@dataclass(frozen=True, slots=True)
class SeenAttempt:
    """One request of a run, as far as it has come."""

    rowid: int
    started_at: str
    ended_at: str | None
    outcome: str
    cost: int
    http_status: int | None


_ATTEMPT: Final = "SELECT rowid, started_at, ended_at, outcome, cost, http_status FROM attempts"


def attempt_span(conn: sqlite3.Connection, run: int) -> tuple[int, int]:
    """Return the first and the last rowid of a run's attempts; (0, 0) without any."""
    row = conn.execute(
        "SELECT coalesce(min(rowid), 0), coalesce(max(rowid), 0) FROM attempts WHERE run_id = ?",
        (run,),
    ).fetchone()
    return row[0], row[1]


def attempts_after(
    conn: sqlite3.Connection, run: int, rowid: int, last: int | None = None
) -> list[SeenAttempt]:
    """Return a page of the attempts of a run that are newer than one, oldest first.

    ``last`` ends the search, which would else read all later runs of the ledger too.
    """
    rows = conn.execute(
        f"{_ATTEMPT} WHERE +run_id = ? AND rowid > ? AND rowid <= coalesce(?, {_LAST_ROWID})"
        f" AND copy_of IS NULL ORDER BY rowid LIMIT {_PAGE}",
        (run, rowid, last),
    )
    return [SeenAttempt(*row) for row in rows]


def attempts_of(conn: sqlite3.Connection, rowids: Collection[int]) -> list[SeenAttempt]:
    """Return some attempts as they are now."""
    rows = conn.execute(
        f"{_ATTEMPT} WHERE rowid IN (SELECT value FROM json_each(?)) AND ended_at IS NOT NULL",
        (canonical_json(sorted(rowids)),),
    )
    return [SeenAttempt(*row) for row in rows]


def newest_images(
    conn: sqlite3.Connection, batch: BatchId, run: int, last: int
) -> list[dict[str, Any]]:
    """Return the newest 24 saved images of a run, near the rowid of its last attempt."""
    rows = conn.execute(
        "SELECT images.id AS id, key, sha256, format FROM attempts"
        " CROSS JOIN images ON images.attempt_id = attempts.id AND images.state = 'saved'"
        " CROSS JOIN jobs ON jobs.id = images.job_id"
        " WHERE attempts.rowid BETWEEN ? AND ?"
        " AND +run_id = ? AND batch_id = ? ORDER BY attempts.rowid DESC LIMIT 24",
        (last - _NEAR, last + _NEAR, run, batch),
    )
    return [dict(row) for row in rows]


def newest_failures(conn: sqlite3.Connection, batch: BatchId) -> list[dict[str, Any]]:
    """Return the newest jobs that wait for a person, with their reasons and lines."""
    rows = conn.execute(
        "SELECT key, state, coalesce(reason, '') AS reason, source, changed_at FROM jobs"
        " WHERE batch_id = ? AND retired = 0 AND state IN ('failed', 'blocked', 'uncertain')"
        " ORDER BY changed_at DESC LIMIT 8",
        (batch,),
    )
    return [dict(row) for row in rows]


def recent_runs(conn: sqlite3.Connection, batch: BatchId) -> list[dict[str, Any]]:
    """Return the newest eight runs that sent something, newest first."""
    rows = conn.execute(
        "SELECT id, started_at, ended_at, charged, maybe + reserved AS possible, billed_attempts"
        " AS charged_attempts, stopped FROM runs WHERE batch_id = ? AND (billed_attempts > 0"
        " OR ended_at IS NULL) ORDER BY id DESC LIMIT 8",
        (batch,),
    )
    return [dict(row) for row in rows]


def soonest_expiry(conn: sqlite3.Connection, batch: BatchId) -> str | None:
    """Return when the first paid image that is not on disk can no longer be downloaded."""
    row = conn.execute(
        "SELECT min(expires_at) AS at FROM jobs CROSS JOIN images ON images.job_id = jobs.id"
        " AND images.state = 'due' WHERE batch_id = ? AND retired IN (0, 1)"
        " AND jobs.state = 'paid'",
        (batch,),
    ).fetchone()
    return None if row is None else row["at"]


def change_counter(conn: sqlite3.Connection) -> int:
    """Return a number that differs as soon as another connection has written."""
    (number,) = conn.execute("PRAGMA data_version").fetchone()
    return int(number)
