"""Record responses that hold images. A step in a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from batchgen.job import ImageRef, JobState
from batchgen.ledger.attempt_ends import AttemptEnd, close_attempts
from batchgen.ledger.images import NewImage, due_images_of, give_up_due_images, insert_images
from batchgen.ledger.jobs import mark_jobs_paid
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.records import DueImage
from batchgen.ledger.value_rows import with_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class PaidResponse:
    """An attempt that returned images."""

    end: AttemptEnd
    images: Sequence[tuple[ImageRef, str | None]]
    """References of the images, with the expiry of their URLs."""
    body: bytes | None = field(default=None, repr=False)
    """The response itself where it is not in the spool."""


def record_responses(ledger: Ledger, paid: Sequence[PaidResponse]) -> list[list[DueImage]]:
    """Settle attempts that returned images; return for each the images to bring to disk now.

    The attempts are of different jobs. Raises RunTakenOver.
    """
    closed = close_attempts(ledger, [one.end for one in paid])
    bodies = [(one.end.attempt, one.body) for one in paid if one.body is not None]
    if bodies:
        clause, values = with_rows(("attempt", "body"), bodies)
        insert = "INSERT INTO responses (attempt_id, body) SELECT attempt, body FROM one"
        ledger.conn.execute(clause + insert, values)
    insert_images(
        ledger,
        [
            NewImage(one.end.attempt, attempt.job, ref, expires)
            for one, attempt in zip(paid, closed, strict=True)
            for ref, expires in one.images
        ],
    )
    states = mark_jobs_paid(ledger, [attempt.job for attempt in closed])
    for one, attempt in zip(paid, closed, strict=True):
        if states[attempt.job] is JobState.DONE:
            give_up_due_images(ledger, one.end.attempt)
    due = due_images_of(ledger, [attempt.job for attempt in closed])
    return [due[attempt.job] for attempt in closed]
