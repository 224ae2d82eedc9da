"""Read the jobs of a run and move them between states.

Each function is one step in a transaction of its caller.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final

from batchgen.job import AttemptId, BatchId, Job, JobId, JobState, Publish, Verify
from batchgen.ledger.key_patterns import IS_MEANT, Only, only_values
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.reference_paths import reference_paths
from batchgen.ledger.value_rows import with_rows
from batchgen.money import Micros
from batchgen.outcomes.retry_policy import Next

_COLUMNS: Final = (
    "id, key, state, fingerprint, model, prompt, options, images, mask, root, path, verify, "
    "keep_previous, keep_partials, sidecar, metadata, publish, estimated, tries, doubts, cuts, "
    "EXISTS (SELECT 1 FROM images WHERE job_id = jobs.id) AS has_images"
)
_HAS_PLANNED_IMAGE: Final = """
    (jobs.renewal IS NULL AND EXISTS (SELECT 1 FROM images
        JOIN attempts ON attempts.id = images.attempt_id
        WHERE images.job_id = jobs.id AND images.state = 'saved'
          AND attempts.fingerprint = jobs.fingerprint))
"""
"""True if the saved image is the one that the job plans, so that it needs no other."""
_ORIGINAL_DONE_AT: Final = """
    (SELECT jobs.done_at FROM attempts AS copy
        CROSS JOIN attempts AS original ON original.id = copy.copy_of
        CROSS JOIN jobs ON jobs.id = original.job_id WHERE copy.id = one.attempt)
"""
"""Time at which the original of a copied image was done; NULL for an attempt that is not a copy."""


def pending_jobs(
    ledger: Ledger, batch: BatchId, *, after: JobId, limit: int, only: Only | None = None
) -> list[Job]:
    """Return the next page of pending jobs in manifest order, starting after ``after``."""
    rows = ledger.conn.execute(
        f"SELECT {_COLUMNS} FROM jobs"
        " WHERE batch_id = :batch AND retired = 0 AND state = 'pending' AND id > :after"
        " AND shares IS NULL"
        f" AND {IS_MEANT} ORDER BY id LIMIT :limit",
        {"batch": batch, "after": after, "limit": limit, **only_values(only)},
    )
    return [_job(ledger.conn, row) for row in rows]


def paid_jobs(ledger: Ledger, batch: BatchId) -> list[JobId]:
    """Return the jobs with paid images that are not all on disk, soonest expiry first."""
    rows = ledger.conn.execute(
        "SELECT jobs.id AS id FROM jobs LEFT JOIN images"
        " ON images.job_id = jobs.id AND images.state = 'due'"
        " WHERE batch_id = ? AND retired IN (0, 1) AND jobs.state = 'paid'"
        " GROUP BY jobs.id ORDER BY coalesce(min(expires_at), 'never'), jobs.id",
        (batch,),
    )
    return [JobId(row["id"]) for row in rows]


def read_job(ledger: Ledger, job: JobId) -> Job:
    """Return one job in its current state."""
    row = ledger.conn.execute(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (job,)).fetchone()
    return _job(ledger.conn, row)


def mark_jobs_sending(ledger: Ledger, jobs: Sequence[Job], now: str) -> set[JobId]:
    """Move pending jobs to ``sending``; return those that were pending and have not changed."""
    clause, values = with_rows(("job", "planned"), [(job.id, job.fingerprint) for job in jobs])
    rows = ledger.conn.execute(
        f"{clause} UPDATE jobs SET state = 'sending', reason = NULL, changed_at = ? FROM one"
        " WHERE id = job AND state = 'pending' AND retired = 0 AND fingerprint = planned"
        " RETURNING id",
        [*values, now],
    )
    return {JobId(row["id"]) for row in rows.fetchall()}


def mark_jobs_paid(ledger: Ledger, jobs: Sequence[JobId]) -> dict[JobId, JobState]:
    """Move jobs to ``paid`` and return their states.

    The state is ``done`` if the plan has changed back to the image on disk. That happens at
    recovery only.
    """
    clause, values = with_rows(("job",), [(job,) for job in jobs])
    rows = ledger.conn.execute(
        f"{clause} UPDATE jobs SET state = iif({_HAS_PLANNED_IMAGE}, 'done', 'paid'),"
        " reason = NULL, changed_at = ? WHERE id IN (SELECT job FROM one) RETURNING id, state",
        [*values, ledger.timestamp()],
    )
    return {JobId(row["id"]): JobState(row["state"]) for row in rows.fetchall()}


def mark_jobs_done(ledger: Ledger, attempts: Mapping[JobId, AttemptId]) -> None:
    """Move paid jobs to ``done``, or to ``pending`` if their plan changed after the request.

    A job is done too if the plan has changed back to an image that is still published.

    A copy is as old as its original, so ``done_at`` of a copy is that of the original's job.
    """
    now = ledger.timestamp()
    clause, values = with_rows(("job", "attempt"), list(attempts.items()))
    ledger.conn.execute(
        f"{clause} UPDATE jobs SET reason = NULL, changed_at = ?,"
        f" done_at = coalesce({_ORIGINAL_DONE_AT}, ?), renewal = NULL,"
        " state = iif(EXISTS (SELECT 1 FROM images JOIN attempts ON attempts.id = images.attempt_id"
        " WHERE images.job_id = jobs.id AND images.state = 'saved'"
        " AND attempts.fingerprint = jobs.fingerprint), 'done', 'pending')"
        " FROM one WHERE jobs.id = one.job AND jobs.state = 'paid'",
        [*values, now, now],
    )


def apply_decision(ledger: Ledger, job: JobId, decision: Next) -> None:
    """Write the state, reason and counters that the retry policy decided after an attempt."""
    ledger.conn.execute(
        "UPDATE jobs SET state = ?, reason = ?, tries = tries + ?, doubts = doubts + ?,"
        " cuts = cuts + ?, changed_at = ? WHERE id = ?",
        (
            decision.state,
            decision.reason or None,
            decision.counts_try,
            decision.counts_uncertain,
            decision.counts_cut,
            ledger.timestamp(),
            job,
        ),
    )


def reset_changed_job(ledger: Ledger, job: JobId) -> Next:
    """Make a job pending whose plan changed after the request that produced no image.

    The job is done instead if the plan has changed back to the image on disk.
    """
    ledger.conn.execute(
        f"UPDATE jobs SET state = iif({_HAS_PLANNED_IMAGE}, 'done', 'pending'), reason = NULL,"
        " tries = 0, doubts = 0, cuts = 0, changed_at = ? WHERE id = ?",
        (ledger.timestamp(), job),
    )
    return Next(state=read_job(ledger, job).state)


def fail_job(ledger: Ledger, job: JobId, reason: str) -> None:
    """Move a job to ``failed`` from any state."""
    ledger.conn.execute(
        "UPDATE jobs SET state = 'failed', reason = ?, changed_at = ? WHERE id = ?",
        (reason, ledger.timestamp(), job),
    )


def fail_pending_job(ledger: Ledger, job: JobId, reason: str) -> bool:
    """Fail a job before a request was sent for it; return False if it was not pending."""
    changed = ledger.conn.execute(
        "UPDATE jobs SET state = 'failed', reason = ?, changed_at = ?"
        " WHERE id = ? AND state = 'pending'",
        (reason, ledger.timestamp(), job),
    )
    return changed.rowcount == 1


def set_job_reason(ledger: Ledger, job: JobId, reason: str) -> None:
    """Record why a job makes no progress, without moving it."""
    ledger.conn.execute("UPDATE jobs SET reason = ? WHERE id = ?", (reason, job))


def _job(conn: sqlite3.Connection, row: sqlite3.Row) -> Job:
    values: dict[str, Any] = dict(row)
    images, mask = reference_paths(conn, values["images"], values["mask"])
    return Job(
        id=JobId(values["id"]),
        key=values["key"],
        state=JobState(values["state"]),
        fingerprint=values["fingerprint"],
        model=values["model"],
        prompt=values["prompt"],
        options=json.loads(values["options"]),
        images=images,
        mask=mask,
        root=values["root"],
        path=values["path"],
        verify=Verify(values["verify"]),
        keep_previous=values["keep_previous"],
        keep_partials=bool(values["keep_partials"]),
        sidecar=bool(values["sidecar"]),
        metadata=bool(values["metadata"]),
        publish=Publish(values["publish"]),
        price=Micros(values["estimated"]),
        tries=values["tries"],
        doubts=values["doubts"],
        cuts=values["cuts"],
        has_images=bool(values["has_images"]),
    )
