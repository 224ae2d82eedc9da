"""Responses that turn up after their attempts were given up. Each function is one step.

A cluster has such responses: an actor stored one, and its report was lost with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from batchgen.job import (
    AttemptId,
    BatchId,
    Billed,
    ImageRef,
    JobId,
    JobState,
    RunId,
    canonical_json,
)
from batchgen.ledger.images import NewImage, give_up_due_images, insert_images
from batchgen.ledger.jobs import mark_jobs_paid, read_job
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.reconciliation import release_job
from batchgen.ledger.run_sums import adjust_sums
from batchgen.money import Micros
from batchgen.outcomes.classify import Classification


@dataclass(frozen=True, slots=True, kw_only=True)
class LateAttempt:
    """An attempt that was given up without its response."""

    id: AttemptId
    prompt: str
    model: str


def needed_responses(ledger: Ledger, batch: BatchId, ids: Sequence[AttemptId]) -> list[AttemptId]:
    """Return those of the attempts whose response a run reads.

    They are open, were given up, or have an image in the response that is not saved.
    """
    has_inline = _HAS_DUE.format(more=" AND images.url IS NULL")
    is_needed = f"(outcome IN ('sending', 'ambiguous') OR {has_inline})"
    return [one.id for one in _those(ledger, batch, ids, is_needed)]


def spent_attempts(
    ledger: Ledger, batch: BatchId | None, ids: Sequence[AttemptId]
) -> list[AttemptId]:
    """Return those of the attempts whose objects in a bucket are no longer needed.

    Without a batch, of all batches.
    """
    has_due = _HAS_DUE.format(more="")
    is_spent = f"outcome NOT IN ('sending', 'ambiguous', 'spoiled') AND NOT {has_due}"
    return [one.id for one in _those(ledger, batch, ids, is_spent)]


def late_attempts(ledger: Ledger, batch: BatchId, ids: Sequence[AttemptId]) -> list[LateAttempt]:
    """Return those of the attempts that were given up without a response."""
    return _those(ledger, batch, ids, "outcome = 'ambiguous'")


_HAS_DUE: Final = (
    "EXISTS (SELECT 1 FROM images WHERE images.attempt_id = attempts.id"
    " AND images.state = 'due'{more})"
)


def _those(
    ledger: Ledger, batch: BatchId | None, ids: Sequence[AttemptId], condition: str
) -> list[LateAttempt]:
    rows = ledger.conn.execute(
        "SELECT attempts.id AS id, prompt, attempts.model AS model FROM json_each(?) AS named"
        " CROSS JOIN attempts ON attempts.id = named.value CROSS JOIN jobs ON jobs.id = job_id"
        f" WHERE (? IS NULL OR batch_id = ?) AND {condition}",
        (canonical_json(list(ids)), batch, batch),
    )
    return [LateAttempt(**dict(row)) for row in rows]


def record_late_response(
    ledger: Ledger,
    attempt: AttemptId,
    classification: Classification,
    images: Sequence[tuple[ImageRef, str | None]],
    *,
    response: str,
    cost: Micros | None = None,
) -> JobState | None:
    """Charge an attempt whose response with images turned up; return the state of its job.

    The images are due unless the job was requested again meanwhile, or has changed: then only the
    charge is recorded. None if the attempt is not given up any more.
    """
    row = ledger.conn.execute(
        "SELECT job_id, run_id, fingerprint, price, least, cost, possible, billed FROM attempts"
        " WHERE id = ? AND outcome = 'ambiguous'",
        (attempt,),
    ).fetchone()
    if row is None:
        return None
    charged, possible = row["cost"], row["possible"]  # a provider's log may have settled them
    before = row["price"] if row["billed"] == Billed.MAYBE else row["possible"]
    if row["billed"] != Billed.YES:
        least = row["price"] if row["least"] is None else row["least"]
        charged = least if cost is None else cost
        possible = row["price"] - least if cost is None else 0
    ledger.conn.execute(
        "UPDATE attempts SET outcome = ?, billed = 'yes', cost = ?, possible = ?, http_status = ?,"
        " error_code = NULL, message = 'its response came late', response = ?,"
        " request_id = coalesce(?, request_id), price_known = price_known OR ? WHERE id = ?",
        (
            *(classification.outcome, charged, possible, classification.status, response),
            *(classification.request_id, cost is not None, attempt),
        ),
    )
    adjust_sums(
        ledger.conn,
        RunId(row["run_id"]),
        charged=charged - row["cost"],
        possible=possible - before,
    )
    job = read_job(ledger, JobId(row["job_id"]))
    insert_images(ledger, [NewImage(attempt, job.id, ref, expires) for ref, expires in images])
    waits = job.state in (JobState.UNCERTAIN, JobState.PENDING, JobState.FAILED, JobState.BLOCKED)
    if waits and job.fingerprint == row["fingerprint"] and _is_alone(ledger, attempt, job.id):
        return mark_jobs_paid(ledger, [job.id])[job.id]
    give_up_due_images(ledger, attempt)
    return job.state


def _is_alone(ledger: Ledger, attempt: AttemptId, job: JobId) -> bool:
    """Return whether no other attempt of a job is open or has an image that is due."""
    found = ledger.conn.execute(
        "SELECT 1 FROM attempts WHERE job_id = ? AND id <> ? AND (outcome = 'sending' OR EXISTS"
        " (SELECT 1 FROM images WHERE attempt_id = attempts.id AND images.state = 'due'))",
        (job, attempt),
    ).fetchone()
    return found is None


def record_late_refusal(
    ledger: Ledger, attempt: AttemptId, classification: Classification
) -> JobState | None:
    """Record that the late response of an attempt shows no charge; its held job is pending again.

    None if the attempt is not given up any more, or a provider's log has charged it.
    """
    row = ledger.conn.execute(
        "UPDATE attempts SET outcome = ?, billed = 'no', http_status = ?, error_code = ?,"
        " message = ? WHERE id = ? AND outcome = 'ambiguous' AND billed = 'maybe'"
        " RETURNING job_id, run_id, price",
        (
            *(classification.outcome, classification.status, classification.code or None),
            *(classification.message or None, attempt),
        ),
    ).fetchone()
    if row is None:
        return None
    adjust_sums(ledger.conn, RunId(row["run_id"]), charged=0, possible=-row["price"])
    release_job(ledger.conn, JobId(row["job_id"]), ledger.timestamp())
    return read_job(ledger, JobId(row["job_id"])).state
