"""Rows that other programs read: jobs, attempts, images, and jobs that wait for a person."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Final

from batchgen.job import BatchId, OutputOptions
from batchgen.ledger.reference_paths import reference_paths
from batchgen.ledger.sums import CHARGED, POSSIBLE
from batchgen.money import decimal_string
from batchgen.urls import is_bucket, path_below

_PAGE: Final = 1_000


# In the order of their row ids and from where the page before ended, so that none is sorted; the
# plus keeps SQLite from preferring an index of the batch, by which all would have to be.
_EXPORT_SQL: Final = {
    "jobs": f"""
        SELECT jobs.id AS cursor,
               key, state, reason, fingerprint, model, prompt, options, estimated,
               (SELECT coalesce(sum({CHARGED}), 0) FROM attempts
                WHERE job_id = jobs.id) AS charged,
               (SELECT coalesce(sum({POSSIBLE}), 0) FROM attempts
                WHERE job_id = jobs.id) AS maybe
        FROM jobs WHERE +batch_id = :batch AND +retired = 0 AND jobs.id > :after
        AND (:run IS NULL OR EXISTS
             (SELECT 1 FROM attempts WHERE job_id = jobs.id AND run_id = :run))
        ORDER BY jobs.id LIMIT :limit
        """,
    "attempts": """
        SELECT attempts.rowid AS cursor,
               attempts.id AS id, key, run_id AS run, started_at, ended_at, outcome, billed,
               http_status, error_code, request_id, cost
        FROM attempts CROSS JOIN jobs ON jobs.id = job_id
        WHERE +batch_id = :batch AND attempts.rowid > :after AND (:run IS NULL OR run_id = :run)
        ORDER BY attempts.rowid LIMIT :limit
        """,
    "images": """
        SELECT images.id AS cursor,
               key, images.path AS path, sha256, bytes, width, height, format,
               images.root AS root, run_id AS run, saved_at,
               iif(images.state = 'saved' AND images.unpublished, 'unpublished', images.state)
               AS state
        FROM images CROSS JOIN jobs ON jobs.id = images.job_id
        CROSS JOIN attempts ON attempts.id = attempt_id
        WHERE +batch_id = :batch AND images.id > :after
        AND (images.state = 'saved' AND :run IS NULL
             OR images.state IN ('saved', 'replaced') AND run_id = :run)
        ORDER BY images.id LIMIT :limit
        """,
}


_OUTPUT_COLUMNS: Final = tuple(option.name for option in fields(OutputOptions))
_MONEY_COLUMNS: Final = ("estimated", "charged", "maybe", "cost")


def export(
    conn: sqlite3.Connection, batch: BatchId, what: str, run: int | None = None
) -> Iterator[dict[str, object]]:
    """Stream jobs, attempts or images of a batch; money as decimal strings in dollars.

    The ``url`` of an image is None unless the image is in a bucket.

    With ``run``, only the jobs that it requested, its attempts, and the images that it made, also
    those that a later run has replaced.

    Read a page at a time: a reader that stops in the middle, as in a pager, would keep a run from
    writing for as long as it stays there.
    """
    from sqlite_utils import Database  # 125 ms to import, and `export --failed` needs none

    db, after = Database(conn), 0
    while page := list(
        db.query(_EXPORT_SQL[what], {"batch": batch, "after": after, "limit": _PAGE, "run": run})
    ):
        for row in page:
            after = row.pop("cursor")
            for column in _MONEY_COLUMNS:
                if column in row:
                    row[column] = decimal_string(row[column])
            if what == "images":
                root = str(row["root"])
                row["url"] = path_below(root, str(row["path"])) if is_bucket(root) else None
            yield row


def export_columns(conn: sqlite3.Connection, what: str) -> tuple[str, ...]:
    """Return the columns of the rows of `export`, which a table without rows has too."""
    nothing = {"batch": 0, "after": 0, "run": None, "limit": 0}
    _, *names = (column[0] for column in conn.execute(_EXPORT_SQL[what], nothing).description)
    return (*names, "url") if what == "images" else tuple(names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A job that failed or was blocked, as it was planned."""

    key: str
    state: str
    reason: str
    source: str
    model: str
    prompt: str
    options: str
    """JSON, as are ``tags``."""
    images: tuple[str, ...]
    """Absolute paths and URLs, as is ``mask``."""
    mask: str | None
    root: str
    path: str
    tags: str
    output: Mapping[str, str | int]
    """Columns of the options of its output."""


def waiting(conn: sqlite3.Connection, batch: BatchId) -> Iterator[Waiting]:
    """Yield the jobs that need a changed request, in the order of the manifest."""
    rows = conn.execute(
        "SELECT key, state, coalesce(reason, '') AS reason, source, model, prompt, options, images,"
        f" mask, root, path, tags, {', '.join(_OUTPUT_COLUMNS)} FROM jobs"
        " WHERE batch_id = ? AND retired = 0"
        " AND state IN ('failed', 'blocked') ORDER BY id",
        (batch,),
    )
    for row in rows:
        images, mask = reference_paths(conn, row["images"], row["mask"])
        values = dict(row) | {"images": images, "mask": mask}
        output = {name: values.pop(name) for name in _OUTPUT_COLUMNS}
        yield Waiting(**values, output=output)
