"""Reserve, settle and recover attempts. Each function is one step in a transaction of its caller.

An attempt counts as possibly charged from its reservation until it is settled. The sums of its run
change in the same step, see ``run_sums.py``.
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
    Job,
    JobId,
    JobState,
    RunId,
    canonical_json,
)
from batchgen.ledger.budgets import period_budgets
from batchgen.ledger.images import due_images, give_up_due_images
from batchgen.ledger.jobs import (
    apply_decision,
    mark_job_paid,
    mark_job_sending,
    read_job,
    reset_changed_job,
)
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.records import (
    BudgetReached,
    DueImage,
    NotPending,
    OpenAttempt,
    Provenance,
    Reserved,
)
from batchgen.ledger.run_sums import (
    UNLIMITED,
    add_waste,
    adjust_sums,
    reserve_price,
    run_budget,
    run_totals,
    settle_price,
)
from batchgen.ledger.runs import taken_over_error
from batchgen.money import Micros, PriceTerms
from batchgen.outcomes.classify import Classification
from batchgen.outcomes.retry_policy import Next, after_attempt

_PRICED: Final = PriceTerms()


@dataclass(frozen=True, slots=True)
class _Closed:
    """An attempt whose end is written, and what it costs."""

    job: JobId
    run: RunId
    price: Micros
    charged: Micros
    possible: Micros


def reserve_attempt(
    ledger: Ledger,
    run: RunId,
    job: Job,
    attempt: AttemptId,
    *,
    provider: str,
    terms: PriceTerms = _PRICED,
) -> Reserved | BudgetReached | NotPending:
    """Reserve the price and insert the attempt, which counts as possibly charged from now on."""
    now = ledger.timestamp()
    for budget in (run_budget(ledger, run), *period_budgets(ledger.conn, now)):
        is_limited = budget.max_cost < UNLIMITED
        if budget.used + job.price > budget.max_cost or (is_limited and not terms.is_known):
            return BudgetReached(
                max_cost=budget.max_cost,
                used=budget.used,
                period=budget.period,
                price_known=terms.is_known,
            )
    if not mark_job_sending(ledger, job, now):
        return NotPending()
    ledger.conn.execute(
        "INSERT INTO attempts (id, job_id, run_id, fingerprint, provider, model, started_at,"
        " outcome, billed, price, least, price_known)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, 'sending', 'maybe', ?, min(?, ?), ?)",
        (
            *(attempt, job.id, run, job.fingerprint, provider, job.model, now, job.price),
            *(terms.least, job.price, terms.is_known),
        ),
    )
    reserve_price(ledger, run, job.price)
    return Reserved()


def record_response(
    ledger: Ledger,
    attempt: AttemptId,
    classification: Classification,
    images: Sequence[tuple[ImageRef, str | None]],
    *,
    response: str | None,
    body: bytes | None = None,
    cost: Micros | None = None,
) -> list[DueImage]:
    """Settle an attempt that returned images, and return the images to bring to disk now.

    ``images`` are the references with the expiry of their URLs. ``response`` is the name of the
    spooled response; ``body`` is the response itself where it is not in the spool. ``cost`` is the
    cost that the response states. Without it the attempt is charged its price. If an option leaves
    the price open, the attempt is charged the least, and the rest is possible.
    """
    closed = _close_attempt(ledger, attempt, classification, response=response, cost=cost)
    if body is not None:
        ledger.conn.execute(
            "INSERT INTO responses (attempt_id, body) VALUES (?, ?)", (attempt, body)
        )
    _insert_images(ledger, attempt, closed.job, images)
    state = mark_job_paid(ledger, closed.job)
    _settle_sums(ledger, closed, classification)
    if state is JobState.DONE:
        give_up_due_images(ledger, attempt)
    return due_images(ledger, closed.job)


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
    _insert_images(ledger, attempt, job, images)
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
    closed = _close_attempt(ledger, attempt, classification, response=response)
    _settle_sums(ledger, closed, classification)
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


def _close_attempt(
    ledger: Ledger,
    attempt: AttemptId,
    classification: Classification,
    *,
    response: str | None,
    cost: Micros | None = None,
) -> _Closed:
    """Write the end of an attempt in flight. Raises RunTakenOver."""
    is_charged = classification.billed is Billed.YES
    row = ledger.conn.execute(
        "UPDATE attempts SET ended_at = ?, outcome = ?, billed = ?,"
        " cost = iif(?, coalesce(?, least, price), 0),"
        " possible = iif(?, price - coalesce(least, price), 0),"
        " price_known = price_known OR ?,"
        " http_status = ?, error_code = ?, message = ?, request_id = ?, response = ?"
        " WHERE id = ? AND outcome = 'sending'"
        " RETURNING price, cost, possible, job_id, run_id",
        (
            ledger.timestamp(),
            classification.outcome,
            classification.billed,
            is_charged,
            cost,
            is_charged and cost is None,
            cost is not None,
            classification.status,
            classification.code or None,
            classification.message or None,
            classification.request_id,
            response,
            attempt,
        ),
    ).fetchone()
    if row is None:
        _raise_if_taken_over(ledger, attempt)
        raise AssertionError(f"attempt {attempt} is closed already")
    return _Closed(
        job=JobId(row["job_id"]),
        run=RunId(row["run_id"]),
        price=Micros(row["price"]),
        charged=Micros(row["cost"]),
        possible=Micros(row["possible"]),
    )


def _insert_images(
    ledger: Ledger,
    attempt: AttemptId,
    job: JobId,
    images: Sequence[tuple[ImageRef, str | None]],
) -> None:
    """Insert the images of an attempt as due."""
    ledger.conn.executemany(
        "INSERT INTO images (job_id, attempt_id, position, state, url, task, expires_at, root)"
        " SELECT id, ?, ?, 'due', ?, ?, ?, root FROM jobs WHERE id = ?",
        [(attempt, ref.index, ref.url, ref.task, expires, job) for ref, expires in images],
    )


def _settle_sums(ledger: Ledger, closed: _Closed, classification: Classification) -> None:
    """Move the price of an attempt from reserved to charged and possible in its run."""
    possible = closed.price if classification.billed is Billed.MAYBE else closed.possible
    settle_price(ledger, closed.run, closed.price, charged=closed.charged, possible=possible)


def _raise_if_taken_over(ledger: Ledger, attempt: AttemptId) -> None:
    row = ledger.conn.execute(
        "SELECT runs.id AS id FROM attempts JOIN runs ON runs.id = run_id"
        " WHERE attempts.id = ? AND taken_by IS NOT NULL",
        (attempt,),
    ).fetchone()
    if row is not None:
        raise taken_over_error(ledger, RunId(row["id"]))


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
