"""Where a batch has saved images, and how many of a run replaced one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from batchgen.job import BatchId


def done_places(conn: sqlite3.Connection, batch: BatchId) -> Iterator[str]:
    """Yield the paths of saved images of done jobs, relative to the base of their directories.

    Objects in buckets are left out.
    """
    rows = conn.execute(
        "SELECT images.root || '/' || images.path AS place FROM jobs"
        " CROSS JOIN images ON job_id = jobs.id AND images.state = 'saved'"
        " WHERE batch_id = ? AND retired = 0 AND jobs.state = 'done'"
        " AND NOT images.root GLOB '[a-z][a-z0-9]://*'",
        (batch,),
    )
    return (row["place"] for row in rows)


def saved_roots(conn: sqlite3.Connection, batch: BatchId) -> list[str]:
    """Return the output directories in which a batch has saved images."""
    rows = conn.execute(
        "SELECT DISTINCT images.root AS root FROM jobs CROSS JOIN images ON job_id = jobs.id"
        " WHERE batch_id = ? AND images.state = 'saved' ORDER BY 1",
        (batch,),
    )
    return [row["root"] for row in rows]


def replaced_by(conn: sqlite3.Connection, run: int) -> int:
    """Count the jobs with an image of this run whose previous version is kept."""
    (number,) = conn.execute(
        "SELECT count(DISTINCT jobs.id) FROM attempts CROSS JOIN images AS new"
        " ON new.attempt_id = attempts.id AND new.state = 'saved' AND new.unpublished = 0"
        " CROSS JOIN jobs ON jobs.id = new.job_id CROSS JOIN images AS old"
        " ON old.job_id = jobs.id AND old.state = 'replaced' AND old.unpublished = 0"
        " WHERE run_id = ? AND keep_previous > 0",
        (run,),
    ).fetchone()
    return int(number)
