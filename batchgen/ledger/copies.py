"""Steps of a job that gets a copy of the image of another one (``share: true``).

Each function is one step, run inside a transaction of its caller. A copy is an attempt without a
price; from there on its image is placed like any that is paid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from batchgen.job import AttemptId, BatchId, JobId, RunId
from batchgen.ledger.groups import is_meant
from batchgen.ledger.images import give_up_due_images
from batchgen.ledger.key_patterns import Only, only_values
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.records import DueImage
from batchgen.ledger.runs import record_heartbeat


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """A saved image that is to be copied."""

    root: str
    path: str
    sha256: str


# The leader's image must be made of what the follower is planned as.
_TO_COPY: Final = """
    jobs INDEXED BY jobs_by_sharing CROSS JOIN jobs AS leader ON leader.id = jobs.shares
    WHERE jobs.batch_id = :batch AND jobs.shares IS NOT NULL AND jobs.retired = 0
      AND jobs.state = 'pending' AND leader.state = 'done'
      AND leader.fingerprint = jobs.fingerprint
"""
_PAGE: Final = f"""
SELECT jobs.id AS id FROM {_TO_COPY} AND jobs.id > :after AND {is_meant("jobs.key")}
ORDER BY jobs.id LIMIT :limit
"""
_BEGIN: Final = """
INSERT INTO attempts (id, job_id, run_id, fingerprint, provider, model, started_at, ended_at,
    outcome, billed, price, message, request_id, copy_of)
SELECT :attempt, jobs.id, :run, jobs.fingerprint, original.provider, original.model, :now, :now,
    'ok', 'no', 0, 'shares ' || leader.key, original.request_id, original.id
FROM jobs CROSS JOIN jobs AS leader ON leader.id = jobs.shares
CROSS JOIN images ON images.job_id = leader.id AND images.state = 'saved'
CROSS JOIN attempts AS original ON original.id = images.attempt_id
WHERE jobs.id = :job AND jobs.state = 'pending' AND jobs.retired = 0 AND leader.state = 'done'
  AND original.fingerprint = jobs.fingerprint ORDER BY images.id DESC LIMIT 1
"""
_DUE: Final = """
INSERT INTO images (job_id, attempt_id, position, state, task, root)
SELECT jobs.id, :attempt, position, 'due', task, jobs.root
FROM attempts CROSS JOIN jobs ON jobs.id = attempts.job_id
CROSS JOIN images ON images.attempt_id = attempts.copy_of AND images.state = 'saved'
WHERE attempts.id = :attempt
"""
_WAIT: Final = """
UPDATE jobs SET reason = 'shares ' || leader.key || ', which '
    || iif(leader.state = 'failed', 'failed', 'is ' || leader.state)
FROM jobs AS leader WHERE leader.id = jobs.shares AND jobs.batch_id = :batch
  AND jobs.shares IS NOT NULL AND jobs.retired = 0 AND jobs.state = 'pending'
  AND leader.state IN ('failed', 'blocked', 'uncertain')
"""
_WAITING: Final = f"""
SELECT count(*) FROM jobs INDEXED BY jobs_by_sharing
CROSS JOIN jobs AS leader ON leader.id = jobs.shares
WHERE jobs.batch_id = :batch AND jobs.shares IS NOT NULL AND jobs.retired = 0
  AND jobs.state = 'pending' AND leader.state IN ('done', 'failed', 'blocked', 'uncertain')
  AND {is_meant("jobs.key")}
"""


def jobs_to_copy(
    ledger: Ledger, batch: BatchId, *, after: JobId, limit: int, only: Only | None
) -> list[JobId]:
    """Return a page of the jobs that wait for a copy of an image that is saved."""
    values = {"batch": batch, "after": after, "limit": limit, **only_values(only)}
    return [JobId(row["id"]) for row in ledger.conn.execute(_PAGE, values)]


def begin_copy(ledger: Ledger, run: RunId, job: JobId, attempt: AttemptId) -> bool:
    """Write the attempt of a copy, and its images as due; False if there is nothing to copy.

    Raises RunTakenOver.
    """
    record_heartbeat(ledger)
    now = ledger.timestamp()
    values = {"attempt": attempt, "run": run, "job": job, "now": now}
    if ledger.conn.execute(_BEGIN, values).rowcount != 1:
        return False
    ledger.conn.execute(_DUE, {"attempt": attempt})
    ledger.conn.execute(
        "UPDATE jobs SET state = 'paid', reason = NULL, changed_at = ? WHERE id = ?", (now, job)
    )
    return True


def find_original(ledger: Ledger, image: DueImage) -> Original | None:
    """Return the saved image that a due one copies, if it is still that of its job."""
    row = ledger.conn.execute(
        "SELECT root, path, sha256 FROM images WHERE attempt_id = ? AND position = ?"
        " AND state = 'saved'",
        (image.copy_of, image.position),
    ).fetchone()
    return None if row is None else Original(**dict(row))


def give_up_copy(ledger: Ledger, job: JobId, attempt: AttemptId, reason: str) -> str:
    """Let a job wait for another copy, since this one can't be made; return the reason."""
    give_up_due_images(ledger, attempt)
    row = ledger.conn.execute(
        "UPDATE attempts SET outcome = 'safe', message = message || ': ' || ? WHERE id = ?"
        " RETURNING message",
        (reason, attempt),
    ).fetchone()
    ledger.conn.execute(
        "UPDATE jobs SET state = 'pending', reason = ?, changed_at = ? WHERE id = ?",
        (row["message"], ledger.timestamp(), job),
    )
    return str(row["message"])


def record_copy_waits(ledger: Ledger, batch: BatchId, only: Only | None) -> int:
    """Write why jobs wait for a copy at the end of a run.

    Returns how many of those that the run takes up wait for a person.
    """
    ledger.conn.execute(_WAIT, {"batch": batch})
    values = {"batch": batch, **only_values(only)}
    (waiting,) = ledger.conn.execute(_WAITING, values).fetchone()
    return int(waiting)
