"""Paid images on their way to disk: due, placed, saved or lost.

Each function is one step in a transaction of its caller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias

from batchgen.job import AttemptId, ImageRef, JobId, SavedImage, canonical_json
from batchgen.ledger.clock import timestamp
from batchgen.ledger.jobs import (
    fail_job,
    mark_jobs_done,
    read_job,
    reset_changed_job,
    set_job_reason,
)
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.records import DueImage, JobFinished, OldImage
from batchgen.ledger.value_rows import with_parts_of_rows, with_rows


@dataclass(frozen=True, slots=True)
class NewImage:
    """An image that a response holds or names."""

    attempt: AttemptId
    job: JobId
    ref: ImageRef
    expires_at: str | None


ImageName: TypeAlias = tuple[str, int]
"""The attempt of an image and its position in the response."""


@dataclass(frozen=True, slots=True)
class Placement:
    """The root and path that a verified image has, or is about to get."""

    image: int
    root: str
    saved: SavedImage


def due_images(ledger: Ledger, job: JobId) -> list[DueImage]:
    """Return the images of a job that are paid for and not on disk."""
    return due_images_of(ledger, [job])[job]


def due_images_of(ledger: Ledger, jobs: Sequence[JobId]) -> dict[JobId, list[DueImage]]:
    """Return the images of each job that are paid for and not on disk."""
    found: dict[JobId, list[DueImage]] = {job: [] for job in jobs}
    clause, values = with_rows(("job",), [(job,) for job in found])
    rows = ledger.conn.execute(f"{clause} {_DUE}", values)
    for row in rows.fetchall():
        columns = dict(row)
        found[columns.pop("job_id")].append(DueImage(**columns))
    return found


# CROSS JOIN keeps this order: the few jobs first, never all due images.
_DUE: Final = """
    SELECT images.job_id AS job_id, images.id AS id, attempt_id, position, url, task, response,
    expires_at, root, path, sha256, coalesce(ended_at, started_at) AS answered_at,
    images.tries AS tries, trouble, not_before, copy_of,
    (SELECT old.width || 'x' || old.height || ' ' || old.format FROM images AS old
        WHERE old.job_id = images.job_id AND old.state = 'saved'
        AND old.attempt_id <> images.attempt_id ORDER BY old.position LIMIT 1) AS replaces,
    (SELECT count(*) FROM images AS before WHERE before.attempt_id = images.attempt_id
        AND before.position < images.position) AS rank
    FROM one CROSS JOIN images ON images.job_id = one.job AND images.state = 'due'
    CROSS JOIN attempts ON attempts.id = attempt_id ORDER BY position
"""


def insert_images(ledger: Ledger, images: Sequence[NewImage]) -> None:
    """Insert images of attempts as due."""
    columns = ("attempt", "job", "number", "link", "poll", "expires")
    rows = [
        (one.attempt, one.job, one.ref.index, one.ref.url, one.ref.task, one.expires_at)
        for one in images
    ]
    for clause, values in with_parts_of_rows(columns, rows):
        ledger.conn.execute(
            f"{clause} INSERT INTO images (job_id, attempt_id, position, state, url, task,"
            " expires_at, root) SELECT id, attempt, number, 'due', link, poll, expires, root"
            " FROM one CROSS JOIN jobs ON jobs.id = one.job",
            values,
        )


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


def record_placements(ledger: Ledger, placements: Sequence[Placement]) -> list[None]:
    """Record the roots and paths that verified images are about to get.

    This is written before a rename. After a kill in between, the hash identifies the file, so
    that it need not be downloaded again. It is not needed where a second name identifies the file.
    """
    clause, values = with_rows(("image", *_PLACED), [_placed_row(one) for one in placements])
    ledger.conn.execute(f"{clause} UPDATE images SET {_PLACE} FROM one WHERE id = image", values)
    return [None] * len(placements)


_PLACED: Final = ("root", "path", "sha256", "bytes", "width", "height", "format", "warnings")
_PLACE: Final = ", ".join(f"{name} = one.{name}" for name in _PLACED)


def _placed_row(placement: Placement) -> tuple[object, ...]:
    saved = placement.saved
    return (
        *(placement.image, placement.root, saved.path, saved.sha256, saved.bytes, saved.width),
        *(saved.height, saved.format),
        canonical_json(saved.warnings) if saved.warnings else None,
    )


def finished_images(ledger: Ledger, images: Sequence[ImageName]) -> set[ImageName]:
    """Return those of the images that are known and not due any more."""
    found = set[ImageName]()
    for clause, values in with_parts_of_rows(("attempt", "number"), images):
        rows = ledger.conn.execute(
            f"{clause} SELECT attempt_id, position FROM one CROSS JOIN images"
            " ON attempt_id = attempt AND position = number AND state <> 'due'",
            values,
        )
        found.update((row["attempt_id"], row["position"]) for row in rows.fetchall())
    return found


def clear_placement(ledger: Ledger, image: int) -> None:
    """Clear the recorded path of an image because another file took the name meanwhile."""
    ledger.conn.execute("UPDATE images SET path = NULL WHERE id = ?", (image,))


def mark_images_saved(ledger: Ledger, placements: Sequence[Placement]) -> list[JobFinished | None]:
    """Record that images have their final names, and that the names are durable.

    The last image of a job also finishes the job, in the same step; None while others are due.
    """
    found: dict[int, tuple[JobId, AttemptId]] = {}
    for clause, values in with_parts_of_rows(
        ("image", *_PLACED), [_placed_row(one) for one in placements]
    ):
        rows = ledger.conn.execute(
            f"{clause} UPDATE images SET {_PLACE}, state = 'saved', saved_at = ?"
            " FROM one WHERE id = image RETURNING id, job_id, attempt_id",
            [*values, ledger.timestamp()],
        )
        for row in rows.fetchall():
            found[row["id"]] = JobId(row["job_id"]), AttemptId(row["attempt_id"])
    images = [placement.image for placement in placements]
    last = {found[image][0]: image for image in images}
    finished = _finish_jobs(ledger, {job: found[image][1] for job, image in last.items()})
    return [
        finished.get(found[image][0]) if last[found[image][0]] == image else None
        for image in images
    ]


def mark_extra_image_lost(ledger: Ledger, image: int, trouble: str) -> JobFinished | None:
    """Give up an image that came in addition to the requested one; this may finish the job."""
    row = ledger.conn.execute(
        "UPDATE images SET state = 'lost', trouble = ? WHERE id = ? RETURNING job_id, attempt_id",
        (trouble, image),
    ).fetchone()
    job = JobId(row["job_id"])
    return _finish_jobs(ledger, {job: AttemptId(row["attempt_id"])}).get(job)


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


def _finish_jobs(ledger: Ledger, attempts: Mapping[JobId, AttemptId]) -> dict[JobId, JobFinished]:
    """Finish those of the jobs that have no due images, and mark the images that they replace.

    Those are all of earlier attempts. An image that waits for its publication replaces only others
    that wait.
    """
    conn = ledger.conn
    clause, values = with_rows(("job",), [(job,) for job in attempts])
    still_due = "SELECT DISTINCT job FROM one CROSS JOIN images ON job_id = job AND state = 'due'"
    waiting = {row["job"] for row in conn.execute(f"{clause} {still_due}", values).fetchall()}
    ended = {job: attempt for job, attempt in attempts.items() if job not in waiting}
    if not ended:
        return {}
    replaced = _replace_images(ledger, ended)
    clause, values = with_rows(("job",), [(job,) for job in ended])
    conn.execute(f"{clause} {_CLEAR_SIGNED_URLS}", values)
    mark_jobs_done(ledger, ended)
    rows = conn.execute(f"{clause} {_DELETE_RESPONSES}", values)
    in_ledger = {row["attempt_id"] for row in rows.fetchall()}
    return {
        job: JobFinished(
            attempt_id=attempt,
            replaced=tuple(replaced.get(job, ())),
            has_spool_file=attempt not in in_ledger,
        )
        for job, attempt in ended.items()
    }


_CLEAR_SIGNED_URLS: Final = """
    UPDATE images SET url = NULL WHERE job_id IN (SELECT job FROM one) AND state = 'saved'
    AND (url LIKE '%?%' OR expires_at IS NOT NULL)
"""
"""A signed URL grants access to the image and expires soon. Other URLs are kept, so that an image
whose file gets lost can be downloaded again for free."""
_DELETE_RESPONSES: Final = """
    DELETE FROM responses WHERE attempt_id IN
    (SELECT id FROM one CROSS JOIN attempts ON job_id = job) RETURNING attempt_id
"""
_REPLACED: Final = """
    SELECT images.id AS id, one.job AS job, images.root AS root, images.path AS path, sha256,
    EXISTS (SELECT 1 FROM images AS new WHERE new.attempt_id = one.attempt
        AND new.root = images.root AND new.path = images.path) AS is_overwritten
    FROM one CROSS JOIN images ON images.job_id = one.job AND images.state = 'saved'
    WHERE images.id < (SELECT min(id) FROM images AS own WHERE own.attempt_id = one.attempt)
    AND (images.unpublished = 1 OR EXISTS (SELECT 1 FROM images AS own
        WHERE own.attempt_id = one.attempt AND own.state = 'saved' AND own.unpublished = 0))
    ORDER BY images.id
"""


def _replace_images(
    ledger: Ledger, attempts: Mapping[JobId, AttemptId]
) -> dict[JobId, list[OldImage]]:
    """Mark the saved images of earlier attempts as replaced.

    Return those whose paths no image of the new attempt has taken.
    """
    clause, values = with_rows(("job", "attempt"), list(attempts.items()))
    rows = ledger.conn.execute(f"{clause} {_REPLACED}", values).fetchall()
    now = ledger.timestamp()
    for clause, values in with_parts_of_rows(("image",), [(row["id"],) for row in rows]):
        ledger.conn.execute(
            f"{clause} UPDATE images SET state = 'replaced', replaced_at = ?"
            " WHERE id IN (SELECT image FROM one)",
            [*values, now],
        )
    left: dict[JobId, list[OldImage]] = {}
    for row in rows:
        if not row["is_overwritten"]:
            old = OldImage(id=row["id"], root=row["root"], path=row["path"], sha256=row["sha256"])
            left.setdefault(JobId(row["job"]), []).append(old)
    return left
