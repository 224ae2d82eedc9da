"""Paid images that are not on disk: those that wait for a download, and those that were given up.

An image that was given up keeps its URL, so that a person can have it downloaded once more for
free before another one is bought.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from batchgen.job import BatchId, JobId, canonical_json
from batchgen.ledger.clock import timestamp
from batchgen.outcomes.download_policy import keep_until

LAST_PAID: Final = (
    "attempts.rowid = (SELECT max(rowid) FROM attempts WHERE job_id = jobs.id"
    " AND outcome IN ('ok', 'spoiled')) AND attempts.fingerprint = jobs.fingerprint"
)
"""The attempt whose images are those of the job as it is planned now."""
FETCHABLE: Final = "(url IS NOT NULL OR task IS NOT NULL)"
_REASON: Final = "download: a lost image is downloaded once more"


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingImages:
    """Paid images whose download has failed so far and is tried again."""

    images: int
    tries: int
    """Of the image that was tried most."""
    until: str
    """When the first of them is given up, unless it was downloaded by then."""
    not_before: str | None
    """Until when an image host asked to wait; None where none did."""

    def as_json(self) -> dict[str, object]:
        """Return a JSON object; moments are in ISO 8601, UTC."""
        return {
            "images": self.images,
            "tries": self.tries,
            "until": self.until,
            "not_before": self.not_before,
        }


def waiting_images(conn: sqlite3.Connection, batch: BatchId) -> WaitingImages | None:
    """Count the paid images of a batch that wait for another download; None where none does."""
    rows = conn.execute(
        "SELECT images.tries AS tries, not_before, expires_at,"
        " coalesce(ended_at, started_at) AS answered_at FROM jobs"
        " CROSS JOIN images ON images.job_id = jobs.id AND images.state = 'due'"
        " CROSS JOIN attempts ON attempts.id = attempt_id"
        " WHERE batch_id = ? AND retired IN (0, 1) AND jobs.state = 'paid' AND images.tries > 0",
        (batch,),
    ).fetchall()
    if not rows:
        return None
    asked = [row["not_before"] for row in rows if row["not_before"]]
    return WaitingImages(
        images=len(rows),
        tries=max(row["tries"] for row in rows),
        until=timestamp(min(map(_until, rows))),
        not_before=min(asked, default=None),
    )


def _until(row: sqlite3.Row) -> datetime:
    expires_at = row["expires_at"]
    return keep_until(
        answered_at=datetime.fromisoformat(row["answered_at"]),
        expires_at=datetime.fromisoformat(expires_at) if expires_at else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LostImage:
    """A paid image that was given up and can be downloaded once more."""

    image: int
    key: str
    root: str
    path: str
    """Where it would go, below ``root``."""


def lost_images(conn: sqlite3.Connection, batch: BatchId, now: datetime) -> Iterator[LostImage]:
    """Yield the lost images of a batch whose URL is known.

    Extra images of done jobs only while their URL may work: their jobs lack nothing.
    """
    rows = conn.execute(
        "SELECT images.id AS image, key, images.root AS root, coalesce(images.path, jobs.path)"
        " AS path, jobs.state AS state, expires_at, coalesce(ended_at, started_at) AS answered_at"
        " FROM jobs JOIN images ON images.job_id = jobs.id AND images.state = 'lost'"
        " JOIN attempts ON attempts.id = attempt_id"
        " WHERE batch_id = ? AND retired = 0 AND jobs.state IN ('failed', 'done')"
        f" AND {FETCHABLE} AND {LAST_PAID} ORDER BY jobs.id, position",
        (batch,),
    )
    for row in rows:
        if row["state"] == "failed" or now < _until(row):
            yield LostImage(image=row["image"], key=row["key"], root=row["root"], path=row["path"])


def refetch(conn: sqlite3.Connection, jobs: Iterable[JobId], now: datetime) -> int:
    """Make the lost images of jobs due once more; return for how many jobs.

    Runs inside the transaction of its caller. A response that counted as spoiled because of what
    its URL served then is a good one again.
    """
    chosen = canonical_json(list(jobs))
    attempts = canonical_json(
        [
            row["id"]
            for row in conn.execute(
                "SELECT attempts.id AS id FROM json_each(?) AS chosen"
                " CROSS JOIN jobs ON jobs.id = chosen.value"
                f" CROSS JOIN attempts ON attempts.job_id = jobs.id AND {LAST_PAID}",
                (chosen,),
            )
        ]
    )
    conn.execute(
        "UPDATE images SET state = 'due', refetched = 1, not_before = NULL WHERE state = 'lost'"
        f" AND {FETCHABLE} AND attempt_id IN (SELECT value FROM json_each(?))",
        (attempts,),
    )
    conn.execute(
        "UPDATE attempts SET outcome = 'ok', error_code = NULL, message = NULL"
        " WHERE outcome = 'spoiled' AND id IN (SELECT value FROM json_each(?))",
        (attempts,),
    )
    moved = conn.execute(
        "UPDATE jobs SET state = 'paid', reason = ?, tries = 0, doubts = 0, changed_at = ?"
        " WHERE id IN (SELECT value FROM json_each(?)) AND EXISTS"
        " (SELECT 1 FROM images WHERE job_id = jobs.id AND images.state = 'due')",
        (_REASON, timestamp(now), chosen),
    )
    return moved.rowcount
