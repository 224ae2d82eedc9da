"""What the review page shows: images of a batch with their decisions, by filters, page by page.

Each function is one short read, because a reader of the ledger holds up the commits of a run.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from batchgen.job import BatchId, canonical_json
from batchgen.ledger.key_patterns import IS_MEANT, Only, only_values
from batchgen.ledger.newest_decisions import IS_NEWEST, NEWEST
from batchgen.ledger.reference_paths import reference_paths

MOST_IMAGES: Final = 100_000
"""Images of one view; more of them are narrowed by a filter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFilter:
    """Which images a view shows: OR within a field, AND between fields; an empty field is any."""

    runs: Sequence[int] = ()
    decisions: Sequence[str] = ()
    """``undecided`` and values of `Decision`."""
    tags: Sequence[str] = ()
    models: Sequence[str] = ()
    sizes: Sequence[str] = ()
    """Such as ``1024x1024``."""
    warnings: Sequence[str] = ()
    """``warning``: a warning of the verification; ``replaced``: it replaced another image;
    ``unpublished``: it waits for a decision."""
    text: str = ""
    """Part of the key, the prompt or the source line."""
    only: Only | None = None
    since: str | None = None
    """Timestamp of the ledger."""
    which: str = "newest"
    """Of a published image and a new one that waits: the ``newest``, or one of `WHICH`."""

    @property
    def is_narrow(self) -> bool:
        """Whether a person chose anything within the view."""
        chosen = (self.decisions, self.tags, self.models, self.sizes, self.warnings, self.text)
        return any(chosen)


@dataclass(frozen=True, slots=True)
class ImageIndex:
    """The images of a view in order, with one letter for each decision."""

    ids: list[int]
    decisions: str
    """``-`` undecided, ``a`` accept, ``r`` reject, ``o`` redo; one letter per image."""


LETTER: Final = (
    "coalesce((SELECT CASE decision WHEN 'accept' THEN 'a' WHEN 'reject' THEN 'r'"
    f" WHEN 'redo' THEN 'o' ELSE '-' END FROM decisions WHERE decisions.id = ({NEWEST})), '-')"
)
"""The letter of the decision that counts for a row of ``images``."""
_SORTS: Final = {
    "key": "jobs.id, images.position, images.id",
    "newest": "images.saved_at DESC, images.id DESC",
    "slowest": "julianday(attempts.ended_at) - julianday(attempts.started_at) DESC, images.id",
    "cost": "attempts.cost DESC, images.id",
    "undecided": "letter <> '-', jobs.id, images.id",
}
SORTS: Final = tuple(_SORTS)
_BY_JOB: Final = (
    "jobs CROSS JOIN images ON images.job_id = jobs.id"
    " CROSS JOIN attempts ON attempts.id = images.attempt_id"
)
_BY_RUN: Final = (
    "attempts CROSS JOIN images ON images.attempt_id = attempts.id"
    " CROSS JOIN jobs ON jobs.id = images.job_id"
)
WHICH: Final = {
    "newest": IS_NEWEST,
    "published": "images.unpublished = 0",
    "unpublished": "images.unpublished = 1",
}
_CONDITIONS: Final = {
    "runs": "attempts.run_id IN (SELECT value FROM json_each(:runs))",
    "tags": "EXISTS (SELECT 1 FROM json_each(jobs.tags) AS tag"
    " WHERE tag.value IN (SELECT value FROM json_each(:tags)))",
    "models": "jobs.model IN (SELECT value FROM json_each(:models))",
    "sizes": "images.width || 'x' || images.height IN (SELECT value FROM json_each(:sizes))",
    "warnings": "(('warning' IN (SELECT value FROM json_each(:warnings))"
    " AND images.warnings IS NOT NULL) OR ('replaced' IN (SELECT value FROM json_each(:warnings))"
    " AND EXISTS (SELECT 1 FROM images AS old WHERE old.job_id = jobs.id"
    " AND old.state = 'replaced')) OR ('unpublished' IN (SELECT value FROM json_each(:warnings))"
    " AND images.unpublished = 1))",
    "text": "(jobs.key LIKE :text ESCAPE '\\' OR jobs.prompt LIKE :text ESCAPE '\\'"
    " OR jobs.source LIKE :text ESCAPE '\\')",
    "since": "images.saved_at >= :since",
}


def image_index(
    conn: sqlite3.Connection, batch: BatchId, chosen: ImageFilter, sort: str = "key"
) -> ImageIndex:
    """Return the saved images of live jobs that pass a filter, at most `MOST_IMAGES`."""
    query, values = view_query(f"images.id AS id, {LETTER} AS letter", batch, chosen, sort)
    rows = conn.execute(query, values).fetchall()
    return ImageIndex([row["id"] for row in rows], "".join(row["letter"] for row in rows))


def view_query(
    columns: str, batch: BatchId, chosen: ImageFilter, sort: str = "key"
) -> tuple[str, dict[str, object]]:
    """Return the query of the saved images of live jobs that pass a filter, and its values.

    ``columns`` are those of ``images``, ``jobs`` and ``attempts``, and a ``letter``.
    """
    where, values = _where(batch, chosen)
    if chosen.decisions:
        where += " AND letter IN (SELECT value FROM json_each(:letters))"
        values["letters"] = canonical_json([_LETTERS.get(name) for name in chosen.decisions])
    source = _BY_RUN if chosen.runs else _BY_JOB
    query = (
        f"SELECT {columns} FROM {source} WHERE {where} ORDER BY {_SORTS[sort]} LIMIT {MOST_IMAGES}"
    )
    return query, values


_LETTERS: Final = {"undecided": "-", "accept": "a", "reject": "r", "redo": "o"}


def _where(batch: BatchId, chosen: ImageFilter) -> tuple[str, dict[str, object]]:
    conditions = [
        "jobs.batch_id = :batch",
        "images.state = 'saved'",
        "jobs.retired = 0",
        WHICH[chosen.which],
    ]
    values: dict[str, object] = {"batch": batch}
    for name, condition in _CONDITIONS.items():
        given = getattr(chosen, name)
        if given:
            conditions.append(condition)
            values[name] = given if isinstance(given, str) else canonical_json(list(given))
    if chosen.text:
        escaped = chosen.text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        values["text"] = f"%{escaped}%"
    if chosen.only is not None:
        conditions.append(IS_MEANT.replace("key ", "jobs.key "))
        values |= only_values(chosen.only)
    return " AND ".join(conditions), values


_TILE: Final = f"""
SELECT images.id AS id, images.job_id AS job, key, images.sha256 AS sha256,
       iif(images.state <> 'saved' OR {IS_NEWEST}, images.state, 'published') AS state,
       images.unpublished AS unpublished, jobs.publish AS publish,
       images.width AS width, images.height AS height, images.format AS format,
       images.bytes AS bytes, images.warnings AS warnings, run_id AS run,
       jobs.estimated AS price, attempts.model AS model, attempts.cost AS cost,
       (julianday(attempts.ended_at) - julianday(attempts.started_at)) * 86400 AS seconds,
       EXISTS (SELECT 1 FROM images AS old WHERE old.job_id = jobs.id AND (old.state = 'replaced'
           OR (images.unpublished = 1 AND old.state = 'saved' AND old.unpublished = 0)))
           AS replaces,
       decisions.id AS decision_id, decision, note, decisions.prompt AS redo_prompt,
       decided_by, decided_at
FROM images CROSS JOIN jobs ON jobs.id = images.job_id
CROSS JOIN attempts ON attempts.id = images.attempt_id
LEFT JOIN decisions ON decisions.id = ({NEWEST})
"""


def image_rows(
    conn: sqlite3.Connection, batch: BatchId, images: Sequence[int]
) -> list[dict[str, Any]]:
    """Return what a tile shows of each image, in any order; ids of other batches are left out."""
    rows = conn.execute(
        f"{_TILE} WHERE images.id IN (SELECT value FROM json_each(:ids)) AND jobs.batch_id = :batch"
        " AND images.sha256 IS NOT NULL",
        {"ids": canonical_json(list(images)), "batch": batch},
    )
    return [dict(row) for row in rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFile:
    """Where an image is, relative to the directory of the manifest."""

    id: int
    root: str
    path: str
    sha256: str
    format: str
    state: str


def image_file(conn: sqlite3.Connection, batch: BatchId, image: int) -> ImageFile | None:
    """Return the file of an image that was saved; None for any other id."""
    row = conn.execute(
        "SELECT images.id AS id, images.root AS root, images.path AS path, sha256, format,"
        " images.state AS state FROM images CROSS JOIN jobs ON jobs.id = images.job_id"
        " WHERE images.id = ? AND batch_id = ? AND images.state IN ('saved', 'replaced')"
        " AND images.path IS NOT NULL AND sha256 IS NOT NULL",
        (image, batch),
    ).fetchone()
    return None if row is None else ImageFile(**dict(row))


def references_of(conn: sqlite3.Connection, batch: BatchId, job: int) -> tuple[str, ...]:
    """Return the reference images of a job: absolute paths and URLs."""
    row = conn.execute(
        "SELECT images FROM jobs WHERE id = ? AND batch_id = ?", (job, batch)
    ).fetchone()
    return () if row is None else reference_paths(conn, row["images"], None)[0]


def image_detail(conn: sqlite3.Connection, batch: BatchId, image: int) -> dict[str, Any] | None:
    """Return everything about one image, its job and the job's other images, or None."""
    found = image_rows(conn, batch, [image])
    if not found:
        return None
    detail = found[0]
    job = detail["job"]
    own = conn.execute(
        "SELECT prompt, options, model, source, images AS reference_images, tags, made_of,"
        " fingerprint FROM jobs WHERE id = ?",
        (job,),
    ).fetchone()
    attempt = conn.execute(
        "SELECT attempts.cost AS cost, billed, request_id, started_at, ended_at, attempts.model"
        " AS model, fingerprint FROM images CROSS JOIN attempts ON attempts.id = attempt_id"
        " WHERE images.id = ?",
        (image,),
    ).fetchone()
    history = conn.execute(_HISTORY, {"job": job}).fetchall()
    decided = conn.execute(
        "SELECT image_id AS image, sha256, decision, note, prompt, replaced_prompt, decided_by,"
        " decided_at FROM decisions WHERE job_id = ? ORDER BY id DESC LIMIT 200",
        (job,),
    ).fetchall()
    return detail | {
        "own": dict(own),
        "attempt": dict(attempt),
        "images": [dict(row) for row in history],
        "decisions": [dict(row) for row in decided],
    }


_HISTORY: Final = """
SELECT images.id AS id, images.state AS state, unpublished, sha256, saved_at, width, height,
       format, run_id AS run, cost, position, coalesce(replaced_at, saved_at) AS replaced_at
FROM images CROSS JOIN attempts ON attempts.id = images.attempt_id
WHERE images.job_id = :job AND images.state IN ('saved', 'replaced') AND sha256 IS NOT NULL
ORDER BY images.id DESC LIMIT 50
"""


def related_images(conn: sqlite3.Connection, batch: BatchId, image: int) -> list[int]:
    """Return the saved images of the same manifest line, at most six; the image itself first."""
    rows = conn.execute(
        "SELECT other.id AS id FROM images CROSS JOIN jobs AS own ON own.id = images.job_id"
        " CROSS JOIN jobs ON jobs.batch_id = own.batch_id AND jobs.source = own.source"
        " CROSS JOIN images AS other ON other.job_id = jobs.id AND other.state = 'saved'"
        " WHERE images.id = ? AND own.batch_id = ? AND jobs.retired = 0"
        " ORDER BY other.id <> images.id, jobs.id LIMIT 6",
        (image, batch),
    )
    return [row["id"] for row in rows]
