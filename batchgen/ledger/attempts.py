"""Settle, correct and recover attempts. Each function is one step in a transaction of its caller.

An attempt counts as possibly charged from its reservation until it is settled. The sums of its run
change in the same step, see ``run_sums.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

from batchgen.job import (
    AttemptId,
    BatchId,
    Billed,
    ImageRef,
    JobId,
    RunId,
    canonical_json,
)
from batchgen.ledger.attempt_ends import AttemptEnd, close_attempts
from batchgen.ledger.images import NewImage, due_images, give_up_due_images, insert_images
from batchgen.ledger.jobs import (
    apply_decision,
    read_job,
    reset_changed_job,
)
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.records import (
    DueImage,
    OpenAttempt,
    Provenance,
)
from batchgen.ledger.run_sums import (
    add_waste,
    adjust_sums,
    run_totals,
)
from batchgen.money import Micros
from batchgen.outcomes.classify import Classification
from batchgen.outcomes.retry_policy import Next, after_attempt


def record_decompressed(
    ledger: Ledger,
    attempt: AttemptId,
    images: Sequence[tuple[ImageRef, str | None]],
    *,
    cost: Micros | None = None,
) -> list[DueImage]:
    """Replace the image that a compressed response counted as by those that it holds.

    ``cost`` is the cost that the response states; None keeps the recorded one.
    """
    ledger.conn.execute(
        "DELETE FROM images WHERE attempt_id = ? AND state = 'due' AND path IS NULL", (attempt,)
    )
    row = ledger.conn.execute(
        "SELECT job_id, cost, possible, run_id FROM attempts WHERE id = ?", (attempt,)
    ).fetchone()
    job = JobId(row["job_id"])
    insert_images(ledger, [NewImage(attempt, job, ref, expires) for ref, expires in images])
    if cost is not None:
        ledger.conn.execute(
            "UPDATE attempts SET cost = ?, possible = 0, price_known = 1 WHERE id = ?",
            (cost, attempt),
        )
        run = RunId(row["run_id"])
        adjust_sums(ledger.conn, run, charged=cost - row["cost"], possible=-row["possible"])
    return due_images(ledger, job)


def settle_attempt(
    ledger: Ledger,
    attempt: AttemptId,
    classification: Classification,
    *,
    allowance_of: RunId | None = None,
    response: str | None = None,
    hold: bool = False,
    probe: bool = False,
) -> Next:
    """Settle an attempt that returned no image, and move its job as the retry policy decides.

    A rebuy uses the waste allowance of the run ``allowance_of`` (default: the run of the attempt;
    at recovery, the run that recovers). ``hold`` keeps an uncertain job for a person. A ``probe``
    that found the provider still unavailable does not count as a try. If the job changed after the
    request, it is pending regardless of the classification.
    """
    end = AttemptEnd(attempt=attempt, classification=classification, response=response)
    (closed,) = close_attempts(ledger, [end])
    return _move_job(
        ledger, attempt, classification, allowance_of or closed.run, hold=hold, probe=probe
    )


def mark_response_spoiled(
    ledger: Ledger, attempt: AttemptId, classification: Classification, run: RunId
) -> Next:
    """Record that a paid response holds no usable image; its cost stays charged."""
    ledger.conn.execute(
        "UPDATE attempts SET outcome = 'spoiled', error_code = ?, message = ? WHERE id = ?",
        (classification.code, classification.message, attempt),
    )
    give_up_due_images(ledger, attempt)
    return _move_job(ledger, attempt, classification, run)


def record_task_failure(
    ledger: Ledger,
    attempt: AttemptId,
    classification: Classification,
    run: RunId,
    *,
    hold: bool = False,
) -> Next:
    """Record that an accepted, and so paid, task failed; the class says whether it is charged.

    ``hold`` leaves an uncertain job to a person, even if the allowance covers a rebuy.
    """
    row = ledger.conn.execute(
        "SELECT cost, possible, price, run_id FROM attempts WHERE id = ?", (attempt,)
    ).fetchone()
    is_charged = classification.billed is Billed.YES
    cost = row["cost"] if is_charged else 0
    open_rest = row["possible"] if is_charged else 0
    possible = row["price"] if classification.billed is Billed.MAYBE else open_rest
    ledger.conn.execute(
        "UPDATE attempts SET outcome = ?, billed = ?, cost = ?, possible = ?, error_code = ?,"
        " message = ? WHERE id = ?",
        (
            *(classification.outcome, classification.billed, cost, open_rest),
            *(classification.code, classification.message, attempt),
        ),
    )
    adjust_sums(
        ledger.conn,
        RunId(row["run_id"]),
        charged=cost - row["cost"],
        possible=possible - row["possible"],
    )
    give_up_due_images(ledger, attempt)
    return _move_job(ledger, attempt, classification, run, hold=hold)


def open_attempts(ledger: Ledger, batch: BatchId, *, foreseen: bool = False) -> list[OpenAttempt]:
    """Return attempts that dead runs left in flight; at most as many as those had requests.

    A run is dead once it has ended, or another run has taken over what it left. ``foreseen`` adds
    the attempts that the next run would take over.
    """
    rows = ledger.conn.execute(
        # CROSS JOIN keeps this order: the few open attempts first, never all jobs of a batch.
        "SELECT attempts.id AS attempt_id, run_id, job_id, spool,"
        " attempts.fingerprint AS fingerprint, price"
        " FROM attempts INDEXED BY attempts_open CROSS JOIN jobs ON jobs.id = job_id"
        " CROSS JOIN runs ON runs.id = run_id"
        " WHERE jobs.batch_id = ? AND outcome = 'sending'"
        " AND (? OR runs.ended_at IS NOT NULL OR taken_by IS NOT NULL)"
        " ORDER BY attempts.rowid",
        (batch, foreseen),
    ).fetchall()
    return [
        OpenAttempt(
            id=AttemptId(row["attempt_id"]),
            job=read_job(ledger, JobId(row["job_id"])),
            run_id=RunId(row["run_id"]),
            spool=row["spool"],
            fingerprint=row["fingerprint"],
            price=Micros(row["price"]),
        )
        for row in rows
    ]


def finished_attempts(ledger: Ledger, batch: BatchId, ids: Sequence[AttemptId]) -> list[AttemptId]:
    """Return those of the attempts whose jobs are done: their responses are no longer needed."""
    rows = ledger.conn.execute(
        # CROSS JOIN keeps this order: the named attempts, never all attempts of a batch.
        "SELECT attempts.id AS id FROM json_each(?) AS named"
        " CROSS JOIN attempts ON attempts.id = named.value"
        " CROSS JOIN jobs ON jobs.id = job_id"
        " WHERE batch_id = ? AND state = 'done'",
        (canonical_json(list(ids)), batch),
    )
    return [AttemptId(row["id"]) for row in rows]


def read_provenance(ledger: Ledger, attempt: AttemptId) -> Provenance:
    """Return the provenance of the images of an attempt."""
    row = ledger.conn.execute(
        "SELECT batches.name AS batch, run_id AS run, attempts.provider AS provider,"
        " attempts.model AS model, request_id, cost,"
        " coalesce(ended_at, started_at) AS made_at,"
        " attempts.fingerprint = jobs.fingerprint AS is_current FROM attempts"
        " JOIN jobs ON jobs.id = job_id JOIN batches ON batches.id = batch_id"
        " WHERE attempts.id = ?",
        (attempt,),
    ).fetchone()
    return Provenance(**{**dict(row), "is_current": bool(row["is_current"])})


def _move_job(
    ledger: Ledger,
    attempt: AttemptId,
    classification: Classification,
    run: RunId,
    *,
    hold: bool = False,
    probe: bool = False,
) -> Next:
    """Move the job of a settled attempt as the retry policy decides; ``run`` pays for a rebuy."""
    row = ledger.conn.execute(
        "SELECT job_id, fingerprint, price FROM attempts WHERE id = ?", (attempt,)
    ).fetchone()
    job = read_job(ledger, JobId(row["job_id"]))
    if job.fingerprint != row["fingerprint"]:
        return reset_changed_job(ledger, job.id)
    totals = run_totals(ledger, run)
    decision = after_attempt(
        classification,
        tries=job.tries,
        doubts=job.doubts,
        cuts=job.cuts,
        price=Micros(row["price"]),
        wasted=totals.wasted,
        max_waste=totals.max_waste,
        hold=hold,
        probe=probe,
    )
    apply_decision(ledger, job.id, decision)
    if decision.wasted:
        add_waste(ledger, run, decision.wasted)
    return decision
