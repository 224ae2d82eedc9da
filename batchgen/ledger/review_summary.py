"""Summaries for the review page: what can be filtered, what changed, what the decisions cost."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any, Final

from batchgen.job import BatchId
from batchgen.ledger.newest_decisions import CURRENT, IS_NEWEST, NEWEST


def newest_run_with_images(conn: sqlite3.Connection, batch: BatchId) -> int | None:
    """Return the newest run of a batch that saved an image which is still in use, or None."""
    runs = conn.execute("SELECT id FROM runs WHERE batch_id = ? ORDER BY id DESC", (batch,))
    for row in runs.fetchall():
        found = conn.execute(
            "SELECT 1 FROM attempts CROSS JOIN images ON images.attempt_id = attempts.id"
            " AND images.state = 'saved' WHERE run_id = ? LIMIT 1",
            (row["id"],),
        ).fetchone()
        if found is not None:
            return int(row["id"])
    return None


_FACETS: Final = {
    "runs": "SELECT id AS value, started_at AS detail FROM runs WHERE batch_id = :batch"
    " AND billed_attempts > 0 ORDER BY id DESC LIMIT 30",
    "models": "SELECT DISTINCT model AS value, '' AS detail FROM jobs WHERE batch_id = :batch"
    " AND retired = 0 ORDER BY 1 LIMIT 50",
    "tags": "SELECT DISTINCT tag.value AS value, '' AS detail FROM (SELECT DISTINCT tags FROM jobs"
    " WHERE batch_id = :batch AND retired = 0) AS used CROSS JOIN json_each(used.tags) AS tag"
    " ORDER BY 1 LIMIT 100",
    "sizes": "SELECT DISTINCT width || 'x' || height AS value, '' AS detail FROM jobs"
    " CROSS JOIN images ON images.job_id = jobs.id AND images.state = 'saved'"
    " WHERE batch_id = :batch AND retired = 0 ORDER BY 1 LIMIT 50",
}


_MOST_LOOKED_AT: Final = 50_000
"""Sizes have no index; of more images they are not listed, since the read would hold up a run."""


def facets(conn: sqlite3.Connection, batch: BatchId) -> dict[str, list[dict[str, Any]]]:
    """Return the values that the images of a batch can be filtered by."""
    (saved,) = conn.execute("SELECT saved FROM tallies WHERE batch_id = ?", (batch,)).fetchone()
    return {
        name: [dict(row) for row in conn.execute(sql, {"batch": batch})]
        for name, sql in _FACETS.items()
        if name != "sizes" or saved <= _MOST_LOOKED_AT
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class BasketGroup:
    """Jobs that the next run sends because of decisions, with the price of one request each."""

    group: str
    """``rejected`` or ``redo`` (with another prompt)."""
    jobs: int
    cost: int
    """Micros."""


def basket(conn: sqlite3.Connection, batch: BatchId) -> list[BasketGroup]:
    """Return what the decisions of a batch ask the next run to send."""
    rows = conn.execute(
        "SELECT iif(redo_prompt IS NULL, 'rejected', 'redo') AS grp, count(*) AS jobs,"
        " sum(estimated) AS cost FROM (SELECT estimated, max(decisions.prompt) AS redo_prompt"
        f" FROM {CURRENT} AND jobs.batch_id = ? AND retired = 0 AND images.state = 'saved'"
        f" AND {IS_NEWEST} AND decision IN ('reject', 'redo') GROUP BY jobs.id)"
        " GROUP BY 1 ORDER BY 1 DESC",
        (batch,),
    )
    return [BasketGroup(group=row["grp"], jobs=row["jobs"], cost=row["cost"]) for row in rows]


@dataclass(frozen=True, slots=True)
class Position:
    """How far a page has followed the ledger."""

    decision: int
    """Id of the newest decision."""
    saved: int
    """Saved images of the batch."""
    newest: int
    """Id of the newest image."""
    unpublished: int = 0
    """Images of the ledger that are not published."""


def position(conn: sqlite3.Connection, batch: BatchId) -> Position:
    """Return where the ledger is now. It reads three rows and counts the images that wait."""
    row = conn.execute(
        "SELECT coalesce((SELECT max(id) FROM decisions), 0) AS decision, saved,"
        " coalesce((SELECT max(id) FROM images), 0) AS newest, (SELECT count(*) FROM images INDEXED"
        " BY images_unpublished WHERE state = 'saved' AND unpublished = 1) AS unpublished"
        " FROM tallies WHERE batch_id = ?",
        (batch,),
    ).fetchone()
    return Position(row["decision"], row["saved"], row["newest"], row["unpublished"])


def decided_since(conn: sqlite3.Connection, batch: BatchId, decision: int) -> list[int]:
    """Return the images that were decided about after a decision, at most 1,000."""
    rows = conn.execute(
        "SELECT DISTINCT image_id FROM decisions CROSS JOIN jobs ON jobs.id = job_id"
        " WHERE decisions.id > ? AND batch_id = ? LIMIT 1000",
        (decision, batch),
    )
    return [row["image_id"] for row in rows]


DECISION_COLUMNS: Final = (
    *("key", "path", "sha256", "decision", "note", "prompt", "decided_by", "decided_at"),
)
"""Columns of the rows of `exported_decisions`."""


def exported_decisions(conn: sqlite3.Connection, batch: BatchId) -> list[dict[str, Any]]:
    """Return the decision that counts for each saved image, in the manifest's order."""
    rows = conn.execute(
        "SELECT key, images.path AS path, images.sha256 AS sha256, decision, note,"
        " decisions.prompt AS prompt, decided_by, decided_at"
        f" FROM {CURRENT} AND jobs.batch_id = ? AND retired = 0 AND images.state = 'saved'"
        " AND decision <> 'clear'"
        " ORDER BY jobs.id, images.position",
        (batch,),
    )
    return [dict(row) for row in rows]


def decided_images(conn: sqlite3.Connection, batch: BatchId) -> list[dict[str, Any]]:
    """Return the newest image of each job with the decision that counts for it, if there is one."""
    rows = conn.execute(
        "SELECT images.id AS image, key, images.path AS path, images.sha256 AS sha256, decision,"
        " note, decisions.prompt AS prompt FROM jobs"
        " CROSS JOIN images ON images.job_id = jobs.id AND images.state = 'saved'"
        f" LEFT JOIN decisions ON decisions.id = ({NEWEST})"
        f" WHERE jobs.batch_id = ? AND retired = 0 AND {IS_NEWEST}",
        (batch,),
    )
    return [dict(row) for row in rows]
