"""The decisions about images that count for a plan: of several about the same bytes, the newest."""

from __future__ import annotations

import sqlite3
from decimal import Decimal
from enum import StrEnum
from typing import Final

from batchgen.job import BatchId
from batchgen.planning.amendments import Amendment


class Decision(StrEnum):
    """A decision about one image."""

    ACCEPT = "accept"
    REJECT = "reject"
    """The next run regenerates it with the prompt of the manifest."""
    REDO = "redo"
    """As `REJECT`, with a note or another prompt."""
    CLEAR = "clear"
    """Undecided again."""


NEWEST: Final = (
    "SELECT max(decided.id) FROM decisions AS decided"
    " WHERE decided.image_id = images.id AND decided.sha256 = images.sha256"
)
"""The id of the decision that counts for a row of ``images``; NULL if it is undecided."""

IS_NEWEST: Final = (
    "(images.unpublished = 1 OR NOT EXISTS (SELECT 1 FROM images AS newer INDEXED BY"
    " images_unpublished WHERE newer.job_id = images.job_id AND newer.state = 'saved'"
    " AND newer.unpublished = 1))"
)
"""Whether a saved image is the newest of its job, and not a published one with a new one that
waits."""

CURRENT: Final = (
    "decisions CROSS JOIN images ON images.id = decisions.image_id"
    " AND images.sha256 = decisions.sha256"
    " CROSS JOIN jobs ON jobs.id = decisions.job_id"
    " WHERE decisions.id IN (SELECT max(id) FROM decisions GROUP BY image_id, sha256)"
)
"""The decisions that count for images, with ``images`` and ``jobs``; add conditions by AND."""
_AMENDMENTS: Final = """
SELECT key, jobs.prompt AS enrolled, decisions.prompt AS prompt,
       decisions.replaced_prompt AS replaced_prompt
FROM decisions CROSS JOIN jobs ON jobs.id = decisions.job_id
WHERE jobs.batch_id = :batch AND decisions.prompt IS NOT NULL
  AND decisions.id IN (SELECT max(id) FROM decisions GROUP BY image_id, sha256)
ORDER BY decisions.id
"""


def amendments(
    conn: sqlite3.Connection, batch: BatchId, *, enrolled_only: bool = False
) -> dict[str, Amendment]:
    """Return the amended prompts of a batch by key; of several for a job, the newest.

    With ``enrolled_only``, only those that an earlier run has taken up.
    """
    found = dict[str, Amendment]()
    for row in conn.execute(_AMENDMENTS, {"batch": batch}):
        found[row["key"]] = Amendment(prompt=row["prompt"], replaced_prompt=row["replaced_prompt"])
        if enrolled_only and row["enrolled"] != row["prompt"]:
            del found[row["key"]]
    return found


_MIN_DECIDED: Final = 50


def accepted_percent(conn: sqlite3.Connection, batch: BatchId) -> Decimal | None:
    """Return how many of the decided images of a batch were accepted, replaced ones included.

    In percent with one decimal; None with fewer than 50 decided images.
    """
    row = conn.execute(
        "SELECT coalesce(sum(decision = 'accept'), 0) AS accepted, count(*) AS decided"
        " FROM decisions CROSS JOIN jobs ON jobs.id = job_id WHERE batch_id = ?"
        " AND decision <> 'clear'"
        " AND decisions.id IN (SELECT max(id) FROM decisions GROUP BY image_id, sha256)",
        (batch,),
    ).fetchone()
    if row["decided"] < _MIN_DECIDED:
        return None
    return Decimal(1000 * row["accepted"] // row["decided"]).scaleb(-1)


REJECTED: Final = """
CREATE TABLE staging.rejected (
    job INTEGER PRIMARY KEY, decision TEXT NOT NULL, fingerprint TEXT NOT NULL
)
"""
"""The jobs of a plan whose newest image was rejected in review, with its fingerprint."""
_FIND_REJECTED: Final = f"""
INSERT OR REPLACE INTO staging.rejected (job, decision, fingerprint)
SELECT jobs.id, decision, (SELECT attempts.fingerprint FROM attempts WHERE id = images.attempt_id)
FROM {CURRENT} AND jobs.batch_id = ? AND images.state = 'saved' AND {IS_NEWEST}
    AND decision IN ('reject', 'redo') ORDER BY decisions.id
"""


def find_rejected(conn: sqlite3.Connection, batch: BatchId) -> None:
    """Note the jobs whose saved image was rejected, over an empty plan."""
    conn.execute("DELETE FROM staging.rejected")
    conn.execute(_FIND_REJECTED, (batch,))
