"""The images of a gallery, in the order of the manifest."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from batchgen.job import BatchId, JobState, canonical_json
from batchgen.ledger.review import MOST_IMAGES, ImageFile, ImageFilter, image_index
from batchgen.ledger.saved_images import LAST_REPLACED

_PAGE: Final = 500
_ROWS: Final = """
SELECT images.id AS id, images.root AS root, images.path AS path, images.sha256 AS sha256,
       images.format AS format, images.state AS state, images.width AS width,
       images.height AS height, images.position AS position, jobs.id AS job, key, source, prompt,
       attempts.model AS model, attempts.cost AS cost, coalesce(
           (julianday(attempts.ended_at) - julianday(attempts.started_at)) * 86400, 0) AS seconds
FROM images CROSS JOIN jobs ON jobs.id = images.job_id
CROSS JOIN attempts ON attempts.id = images.attempt_id
WHERE images.id IN (SELECT value FROM json_each(?))
"""
_BEFORE: Final = f"""
SELECT id, root, path, sha256, format, state FROM images
WHERE job_id = ? AND position = ? AND id <> ? AND unpublished = 0 AND sha256 IS NOT NULL
    AND state IN ('replaced', 'saved') AND path IS NOT NULL
    ORDER BY state = 'replaced', {LAST_REPLACED} LIMIT 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryImage:
    """One image of a gallery."""

    file: ImageFile
    before: ImageFile | None
    """The image that it replaced or would replace; None without one, or where none was wanted."""
    width: int
    height: int
    key: str
    source: str
    prompt: str
    model: str
    cost: int
    """Micros."""
    seconds: float
    """From the start of the request to the end of its response."""


def gallery_images(
    conn: sqlite3.Connection, batch: BatchId, chosen: ImageFilter, *, with_before: bool
) -> list[GalleryImage]:
    """Return the images that pass a filter; read page by page, so that a run is not held up."""
    ids = image_index(conn, batch, chosen).ids
    found = dict[int, GalleryImage]()
    for start in range(0, len(ids), _PAGE):
        found |= _page(conn, ids[start : start + _PAGE], with_before=with_before)
    return [found[one] for one in ids if one in found]


def _page(
    conn: sqlite3.Connection, ids: Sequence[int], *, with_before: bool
) -> dict[int, GalleryImage]:
    rows = conn.execute(_ROWS, (str(list(ids)),)).fetchall()
    found = dict[int, GalleryImage]()
    for row in rows:
        values = dict(row)
        file = ImageFile(**{name: values.pop(name) for name in ImageFile.__slots__})
        job, position = values.pop("job"), values.pop("position")
        old = conn.execute(_BEFORE, (job, position, file.id)).fetchone() if with_before else None
        before = None if old is None else ImageFile(**dict(old))
        found[file.id] = GalleryImage(file=file, before=before, **values)
    return found


def unfinished_jobs(conn: sqlite3.Connection, batch: BatchId) -> dict[str, str]:
    """Return the state of each job that is not done, by key; at most `MOST_IMAGES` of them."""
    states = canonical_json([state.value for state in JobState if state is not JobState.DONE])
    rows = conn.execute(
        "SELECT key, state FROM jobs WHERE batch_id = ? AND retired = 0"
        f" AND state IN (SELECT value FROM json_each(?)) LIMIT {MOST_IMAGES}",
        (batch, states),
    )
    return {row["key"]: row["state"] for row in rows}
