"""Paid images on their way to disk: due, placed, saved or lost.

Each function is one step in a transaction of its caller.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from batchgen.job import AttemptId, JobId, SavedImage, canonical_json
from batchgen.ledger.clock import timestamp
from batchgen.ledger.jobs import (
    fail_job,
    mark_job_done,
    read_job,
    reset_changed_job,
    set_job_reason,
)
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.records import DueImage, JobFinished, OldImage


def due_images(ledger: Ledger, job: JobId) -> list[DueImage]:
    """Return the images of a job that are paid for and not on disk."""
    rows = ledger.conn.execute(
        "SELECT images.id AS id, attempt_id, position, url, task, response, expires_at, root,"
        " path, sha256, coalesce(ended_at, started_at) AS answered_at,"
        " images.tries AS tries, trouble, not_before, copy_of,"
        " (SELECT old.width || 'x' || old.height || ' ' || old.format FROM images AS old"
        " WHERE old.job_id = images.job_id AND old.state = 'saved'"
        " AND old.attempt_id <> images.attempt_id ORDER BY old.position LIMIT 1) AS replaces,"
        " (SELECT count(*) FROM images AS before WHERE before.attempt_id ="
        " images.attempt_id AND before.position < images.position) AS rank FROM images"
        " JOIN attempts ON attempts.id = attempt_id"
        " WHERE images.job_id = ? AND images.state = 'due' ORDER BY position",
        (job,),
    )
    return [DueImage(**dict(row)) for row in rows]


def record_task_url(ledger: Ledger, image: int, url: str, expires_at: str | None) -> None:
    """Record the URL of an image whose task has finished."""
    ledger.conn.execute(
        "UPDATE images SET url = ?, expires_at = ? WHERE id = ?", (url, expires_at, image)
    )


def record_download_failure(
    ledger: Ledger,
    image: int,
    job: JobId,
    *,
    trouble: str,
    reason: str,
    not_before: datetime | None,
) -> None:
    """Record a failed download, and the reason why the job is still ``paid``."""
    ledger.conn.execute(
        "UPDATE images SET tries = tries + 1, tried_at = ?, trouble = ?, not_before = ?"
        " WHERE id = ?",
        (ledger.timestamp(), trouble, timestamp(not_before) if not_before else None, image),
    )
    set_job_reason(ledger, job, reason)


def record_placement(ledger: Ledger, image_id: int, root: str, image: SavedImage) -> None:
    """Record the root and path that a verified image is about to get.

    This is written before the rename. After a kill in between, the hash identifies the file, so
    that it need not be downloaded again.
    """
    ledger.conn.execute(
        "UPDATE images SET root = ?, path = ?, sha256 = ?, bytes = ?, width = ?, height = ?,"
        " format = ?, warnings = ? WHERE id = ?",
        (
            root,
            image.path,
            image.sha256,
            image.bytes,
            image.width,
            image.height,
            image.format,
            canonical_json(image.warnings) if image.warnings else None,
            image_id,
        ),
    )


def clear_placement(ledger: Ledger, image: int) -> None:
    """Clear the recorded path of an image because another file took the name meanwhile."""
    ledger.conn.execute("UPDATE images SET path = NULL WHERE id = ?", (image,))


def mark_image_saved(ledger: Ledger, image: int) -> JobFinished | None:
    """Record that the image has its final name, and that the name is durable.

    The last image of a job also finishes the job, in the same step; None while others are due.
    """
    row = ledger.conn.execute(
        "UPDATE images SET state = 'saved', saved_at = ? WHERE id = ? RETURNING job_id, attempt_id",
        (ledger.timestamp(), image),
    ).fetchone()
    return _finish_job(ledger, JobId(row["job_id"]), AttemptId(row["attempt_id"]))


def mark_extra_image_lost(ledger: Ledger, image: int, trouble: str) -> JobFinished | None:
    """Give up an image that came in addition to the requested one; this may finish the job."""
    row = ledger.conn.execute(
        "UPDATE images SET state = 'lost', trouble = ? WHERE id = ? RETURNING job_id, attempt_id",
        (trouble, image),
    ).fetchone()
    return _finish_job(ledger, JobId(row["job_id"]), AttemptId(row["attempt_id"]))


def mark_image_lost(ledger: Ledger, image: int, job: JobId, reason: str) -> None:
    """Fail the job of a paid image that is not available any more; only a person may rebuy it.

    The other due images of its response are given up too. If they stayed due, they would mix with
    the images of a later attempt.
    """
    row = ledger.conn.execute(
        "SELECT attempts.id AS id, fingerprint FROM images"
        " JOIN attempts ON attempts.id = attempt_id WHERE images.id = ?",
        (image,),
    ).fetchone()
    give_up_due_images(ledger, AttemptId(row["id"]))
    if read_job(ledger, job).fingerprint != row["fingerprint"]:
        reset_changed_job(ledger, job)
    else:
        fail_job(ledger, job, f"image_lost: {reason}")


def give_up_due_images(ledger: Ledger, attempt: AttemptId) -> None:
    """Mark all due images of an attempt as lost."""
    ledger.conn.execute(
        "UPDATE images SET state = 'lost' WHERE attempt_id = ? AND state = 'due'", (attempt,)
    )


def _finish_job(ledger: Ledger, job: JobId, attempt: AttemptId) -> JobFinished | None:
    """Finish a job without due images, and mark the images that it replaces.

    Those are all of earlier attempts. An image that waits for its publication replaces only others
    that wait.
    """
    still_due = "SELECT 1 FROM images WHERE job_id = ? AND state = 'due' LIMIT 1"
    if ledger.conn.execute(still_due, (job,)).fetchone() is not None:
        return None
    replaced = tuple(_replaceable_images(ledger, job, attempt))
    ledger.conn.execute(
        f"UPDATE images SET state = 'replaced' WHERE {_IS_REPLACED}", {"job": job, "new": attempt}
    )
    _clear_signed_urls(ledger, job)
    mark_job_done(ledger, job, attempt)
    rows = ledger.conn.execute(
        "DELETE FROM responses WHERE attempt_id IN (SELECT id FROM attempts WHERE job_id = ?)"
        " RETURNING attempt_id",
        (job,),
    )
    in_ledger = {row["attempt_id"] for row in rows.fetchall()}
    return JobFinished(
        attempt_id=attempt, replaced=replaced, has_spool_file=attempt not in in_ledger
    )


_IS_REPLACED: Final = """
    images.job_id = :job AND images.state = 'saved'
    AND images.id < (SELECT min(id) FROM images AS own WHERE own.attempt_id = :new)
    AND (images.unpublished = 1 OR EXISTS (SELECT 1 FROM images AS own
        WHERE own.attempt_id = :new AND own.state = 'saved' AND own.unpublished = 0))
"""


def _replaceable_images(ledger: Ledger, job: JobId, attempt: AttemptId) -> list[OldImage]:
    """Return saved images of earlier attempts whose paths no image of this attempt has taken."""
    rows = ledger.conn.execute(
        f"SELECT id, root, path, sha256 FROM images WHERE {_IS_REPLACED} AND NOT EXISTS ("
        "SELECT 1 FROM images AS new WHERE new.attempt_id = :new"
        " AND new.root = images.root AND new.path = images.path)",
        {"job": job, "new": attempt},
    )
    return [OldImage(**dict(row)) for row in rows]


def _clear_signed_urls(ledger: Ledger, job: JobId) -> None:
    """Clear URLs with a query or an expiry from the saved images of a job.

    A signed URL grants access to the image and expires soon. Other URLs are kept, so that an image
    whose file gets lost can be downloaded again for free.
    """
    ledger.conn.execute(
        "UPDATE images SET url = NULL WHERE job_id = ? AND state = 'saved'"
        " AND (url LIKE '%?%' OR expires_at IS NOT NULL)",
        (job,),
    )
