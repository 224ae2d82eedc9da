"""The jobs and images of a comparison grid."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

from batchgen.job import BatchId, JobState
from batchgen.ledger.key_patterns import IS_MEANT, Only, only_values
from batchgen.ledger.review import LETTER, MOST_IMAGES, ImageFilter, view_query

_MOST_TEXT: Final = 300
"""Characters of a prompt or a reason that a grid shows."""
_FACTS: Final = f"""images.id AS id, key, {LETTER} AS letter, attempts.cost AS cost,
    (julianday(attempts.ended_at) - julianday(attempts.started_at)) * 86400 AS seconds"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedImage:
    """One image of a grid."""

    id: int
    key: str
    letter: str
    """Its decision; see `ImageIndex`."""
    cost: int
    """Micros."""
    seconds: float | None
    """From the start of the request to the end of its response; None if the end is not known."""


def compared_images(
    conn: sqlite3.Connection, batch: BatchId, chosen: ImageFilter
) -> list[ComparedImage]:
    """Return the saved images of live jobs that pass a filter, in the order of the manifest."""
    query, values = view_query(_FACTS, batch, chosen)
    return [ComparedImage(**dict(row)) for row in conn.execute(query, values)]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobNote:
    """What a grid says of a job whose image is not there."""

    state: JobState
    reason: str
    price: int
    """Expected cost of its request in micros."""


def job_notes(conn: sqlite3.Connection, batch: BatchId, only: Only | None) -> dict[str, JobNote]:
    """Return the states of the live jobs of a batch by key, at most `MOST_IMAGES` of them."""
    rows = conn.execute(
        f"SELECT key, state, substr(coalesce(reason, ''), 1, {_MOST_TEXT}) AS reason, estimated"
        f" FROM jobs WHERE batch_id = :batch AND retired = 0 AND {IS_MEANT}"
        f" ORDER BY id LIMIT {MOST_IMAGES}",
        {"batch": batch, **only_values(only)},
    )
    return {
        row["key"]: JobNote(
            state=JobState(row["state"]), reason=row["reason"], price=row["estimated"]
        )
        for row in rows
    }


def job_prompts(conn: sqlite3.Connection, batch: BatchId, only: Only | None) -> dict[str, str]:
    """Return the first characters of the prompts of the same jobs as `job_notes`, by key."""
    rows = conn.execute(
        f"SELECT key, iif(length(prompt) > {_MOST_TEXT}, substr(prompt, 1, {_MOST_TEXT}) || '…',"
        " prompt) AS prompt FROM jobs"
        f" WHERE batch_id = :batch AND retired = 0 AND {IS_MEANT} ORDER BY id LIMIT {MOST_IMAGES}",
        {"batch": batch, **only_values(only)},
    )
    return {row["key"]: row["prompt"] for row in rows}


def plan_number(conn: sqlite3.Connection, batch: BatchId) -> int:
    """Return how often the manifest of a batch was enrolled."""
    return int(conn.execute("SELECT plan FROM batches WHERE id = ?", (batch,)).fetchone()["plan"])
