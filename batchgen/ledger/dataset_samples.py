"""Read the images of a batch with their captions, for a dataset."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from batchgen.job import BatchId
from batchgen.ledger.newest_decisions import NEWEST, Decision
from batchgen.money import Micros

_PAGE: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A saved image of a done job and what it was generated from."""

    key: str
    rank: int
    """Index among the saved images of the job; 0 for the requested one."""
    root: str
    path: str
    sha256: str
    bytes: int
    width: int
    height: int
    format: str
    prompt: str
    options: str
    """JSON object."""
    tags: tuple[str, ...]
    provider: str
    model: str
    cost: Micros
    """Cost of the attempt, which may have returned several images."""
    request_id: str | None
    made_at: str
    is_current: bool
    """Whether ``prompt`` and ``options`` are those of the image."""


_SQL: Final = f"""
SELECT key, position, images.root AS root, images.path AS path, sha256, bytes, width, height,
       format, prompt, options, tags, attempts.provider AS provider, attempts.model AS model, cost,
       request_id, coalesce(ended_at, started_at) AS made_at,
       attempts.fingerprint = jobs.fingerprint AS is_current,
       (SELECT count(*) FROM images AS before WHERE before.job_id = images.job_id
        AND before.state = 'saved' AND before.unpublished = 0
        AND before.position < images.position) AS rank
FROM jobs CROSS JOIN images ON images.job_id = jobs.id AND images.state = 'saved'
     CROSS JOIN attempts ON attempts.id = attempt_id
WHERE batch_id = :batch AND key >= :key AND (key > :key OR position > :position)
      AND retired = 0 AND jobs.state = 'done' AND images.unpublished = 0
      AND (NOT :accepted
           OR (SELECT decision FROM decisions WHERE id = ({NEWEST})) = '{Decision.ACCEPT}')
ORDER BY key, position LIMIT :limit
"""


def samples(
    conn: sqlite3.Connection, batch: BatchId, *, accepted: bool = False
) -> Iterator[Sample]:
    """Yield the published images of done jobs in the order of their keys, a page at a time.

    With ``accepted``, only images that a person accepted. The order of keys is the same in every
    ledger; that of row ids is not.
    """
    key, position = "", -1
    while True:
        after = {
            "batch": batch,
            "key": key,
            "position": position,
            "accepted": accepted,
            "limit": _PAGE,
        }
        page = conn.execute(_SQL, after).fetchall()
        for row in page:
            values = dict(row)
            key, position = values["key"], values.pop("position")
            values["tags"] = tuple(json.loads(values["tags"]))
            values["is_current"] = bool(values["is_current"])
            yield Sample(**values)
        if len(page) < _PAGE:
            return
