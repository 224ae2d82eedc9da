"""Attempts that the backup of a ledger does not have, recorded again from their intents."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from batchgen.errors import ExitCode
from batchgen.job import AttemptId, Outcome, RunId, canonical_json
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.run_sums import adjust_reserved, adjust_sums
from batchgen.ledger.runs import end_open_run
from batchgen.money import Micros

MACHINE_LOST = "the machine of this run was lost; its ledger is from the backup"


@dataclass(frozen=True, slots=True, kw_only=True)
class LostAttempt:
    """An attempt as its intent describes it."""

    attempt: AttemptId
    batch: str
    key: str
    fingerprint: str
    provider: str
    model: str
    price: Micros
    least: Micros | None
    price_known: bool
    started_at: str


def unrecorded(conn: sqlite3.Connection, ids: Sequence[AttemptId]) -> set[AttemptId]:
    """Return those of the attempts that the ledger does not have."""
    rows = conn.execute(
        "SELECT named.value AS id FROM json_each(?) AS named"
        " WHERE NOT EXISTS (SELECT 1 FROM attempts WHERE attempts.id = named.value)",
        (canonical_json(list(ids)),),
    )
    return {AttemptId(row["id"]) for row in rows}


def end_lost_runs(ledger: Ledger) -> None:
    """End all runs that have not ended; the caller knows that their machine is gone."""
    rows = ledger.conn.execute("SELECT id FROM runs WHERE ended_at IS NULL").fetchall()
    for row in rows:
        end_open_run(
            ledger, RunId(row["id"]), stopped=MACHINE_LOST, exit_code=int(ExitCode.STOPPED)
        )


def record_lost_attempts(ledger: Ledger, lost: Iterable[LostAttempt]) -> list[LostAttempt]:
    """Insert attempts as open ones of the newest run of their batch; return those without a job.

    They count as possibly charged until the next run settles them, as after a kill. The job of an
    attempt that a driver began after another one took its place may have its image by now: it
    keeps its state, and only the possible charge is recorded. That attempt ends here, as no run
    settles it: a provider's log never covers one without an end.
    """
    homeless = []
    for one in sorted(lost, key=lambda one: one.attempt):
        row = ledger.conn.execute(
            "SELECT jobs.id AS job, (SELECT max(id) FROM runs WHERE batch_id = batches.id) AS run,"
            " state IN ('paid', 'done') AND fingerprint = ? AS has_image"
            " FROM batches JOIN jobs ON batch_id = batches.id WHERE name = ? AND key = ?",
            (one.fingerprint, one.batch, one.key),
        ).fetchone()
        if row is None or row["run"] is None:
            homeless.append(one)
            continue
        outcome = Outcome.AMBIGUOUS if row["has_image"] else Outcome.SENDING
        ledger.conn.execute(
            "INSERT INTO attempts (id, job_id, run_id, fingerprint, provider, model, started_at,"
            " ended_at, outcome, billed, price, least, price_known, message)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'maybe', ?, ?, ?, ?)",
            (
                *(one.attempt, row["job"], row["run"], one.fingerprint, one.provider, one.model),
                *(one.started_at, ledger.timestamp() if row["has_image"] else None, outcome),
                *(one.price, one.least, one.price_known),
                "its job has an image already" if row["has_image"] else None,
            ),
        )
        if row["has_image"]:
            adjust_sums(ledger.conn, RunId(row["run"]), charged=0, possible=one.price)
            continue
        ledger.conn.execute(
            "UPDATE jobs SET state = 'sending', reason = NULL, changed_at = ? WHERE id = ?",
            (ledger.timestamp(), row["job"]),
        )
        adjust_reserved(ledger.conn, RunId(row["run"]), one.price)
    return homeless
