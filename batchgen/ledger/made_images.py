"""The images that a run made, each with the image that it replaced. Never writes."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Final

from batchgen.ledger.review import ImageFile
from batchgen.ledger.run_report import MADE_BY_JOB
from batchgen.ledger.saved_images import LAST_REPLACED

_COLUMNS: Final = (
    "images.id AS id, images.root AS root, images.path AS path, sha256, format,"
    " images.state AS state"
)
_IS_FILE: Final = "images.state IN ('saved', 'replaced') AND sha256 IS NOT NULL"
_JOBS: Final = f"""
SELECT made.job_id AS job, newest, is_new, key, source FROM ({MADE_BY_JOB}) AS made
CROSS JOIN jobs ON jobs.id = made.job_id ORDER BY is_new, made.job_id LIMIT :limit
"""
_IMAGE: Final = f"""
SELECT {_COLUMNS}, position, warnings FROM images
CROSS JOIN attempts ON attempts.id = images.attempt_id
WHERE attempts.rowid = :newest AND {_IS_FILE} AND images.path IS NOT NULL
ORDER BY position LIMIT 1
"""
_BEFORE: Final = f"""
SELECT {_COLUMNS} FROM images CROSS JOIN attempts ON attempts.id = images.attempt_id
WHERE images.job_id = :job AND attempts.rowid < :newest AND position = :position AND {_IS_FILE}
    AND images.path IS NOT NULL
ORDER BY images.unpublished, images.state = 'replaced', {LAST_REPLACED} LIMIT 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeImage:
    """The first image of a job of a run."""

    key: str
    source: str
    is_new: bool
    """Whether the job had no image before."""
    file: ImageFile
    before: ImageFile | None
    """The image that it replaced or would replace; None without one that was recorded."""
    warnings: tuple[str, ...]
    """Of the verification."""


def made_images(conn: sqlite3.Connection, run: int, limit: int) -> list[MadeImage]:
    """Return one image of each job that a run made an image for, those that replace one first.

    For a job with several images, this is the first of its newest response. An image that a later
    run replaced is among them.
    """
    found = list[MadeImage]()
    for job in conn.execute(_JOBS, {"run": run, "limit": limit}).fetchall():
        row = conn.execute(_IMAGE, {"newest": job["newest"]}).fetchone()
        if row is None:
            continue
        values = dict(row)
        position, warnings = values.pop("position"), values.pop("warnings")
        place = {"job": job["job"], "newest": job["newest"], "position": position}
        old = None if job["is_new"] else conn.execute(_BEFORE, place).fetchone()
        found.append(
            MadeImage(
                key=job["key"],
                source=job["source"],
                is_new=bool(job["is_new"]),
                file=ImageFile(**values),
                before=None if old is None else ImageFile(**dict(old)),
                warnings=tuple(json.loads(warnings or "[]")),
            )
        )
    return found
