"""Saved images of a batch, to compare with its files; and their way back to being due."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from batchgen.job import BatchId, JobId, canonical_json
from batchgen.ledger.batches import batch_names, find_batch
from batchgen.ledger.clock import Clock, timestamp, utc_now
from batchgen.ledger.key_patterns import IS_MEANT, Only, only_values
from batchgen.ledger.manifest_paths import manifest_path
from batchgen.ledger.paid_images import refetch
from batchgen.ledger.transaction import write_transaction

LAST_REPLACED: Final = "coalesce(images.replaced_at, images.saved_at) DESC, images.id DESC"
"""Order of replaced images: first the one that was current before the present one.

After a rollback, that is not the image that was made last. Rows of older ledgers have no
``replaced_at``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """An image that is on disk, as far as the ledger knows."""

    image: int
    key: str
    retired: bool
    root: str
    path: str
    sha256: str
    bytes: int
    has_url: bool
    """It can be downloaded again, for nothing, as long as the provider keeps it."""
    unpublished: bool = False
    """It waits for a decision, below ``.pending/``."""


def saved_images(conn: sqlite3.Connection, batch: BatchId) -> Iterator[Saved]:
    """Yield all saved images of a batch, in the order of the manifest.

    Those of retired jobs are included, except where another job has saved its image by now.
    """
    rows = conn.execute(
        "SELECT images.id AS image, key, retired, images.root AS root, images.path AS path, sha256,"
        " bytes, url IS NOT NULL AS has_url, unpublished"
        " FROM jobs JOIN images ON job_id = jobs.id"
        " WHERE batch_id = ? AND images.state = 'saved'"
        " AND NOT (retired AND (images.root, images.path) IN (SELECT taken.root, taken.path"
        " FROM jobs AS live JOIN images AS taken ON taken.job_id = live.id"
        " WHERE live.batch_id = ? AND live.retired = 0 AND taken.state = 'saved'))"
        " ORDER BY jobs.id, position",
        (batch, batch),
    )
    for row in rows:
        values = dict(row)
        values["retired"] = bool(values["retired"])
        values["has_url"] = bool(values["has_url"])
        values["unpublished"] = bool(values["unpublished"])
        yield Saved(**values)


@dataclass(frozen=True, slots=True)
class Owned:
    """An image of a batch that has, or had, a file."""

    batch: str
    base: Path
    """The directory that its output directory is relative to; it may not exist any more."""
    key: str
    root: str
    path: str


def images_of_all_batches(conn: sqlite3.Connection, ledger: Path, first: str) -> Iterator[Owned]:
    """Yield the images of all batches of a ledger, of the batch ``first`` before others.

    With those that the next run downloads again: their sidecars are still there.
    """
    for name in sorted(batch_names(conn), key=lambda name: name != first):
        batch = find_batch(conn, name)
        base = manifest_path(ledger, batch.manifest_path).parent
        rows = conn.execute(
            "SELECT key, images.root AS root, images.path AS path"
            " FROM jobs JOIN images ON job_id = jobs.id WHERE batch_id = ?"
            " AND images.state IN ('saved', 'due') AND images.path IS NOT NULL",
            (batch.id,),
        )
        for row in rows:
            yield Owned(name, base, row["key"], row["root"], row["path"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One file of a version of a job's image."""

    image: int
    root: str
    path: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollback:
    """A done job's images, and those that they replaced."""

    job: int
    key: str
    current: tuple[Version, ...]
    earlier: tuple[Version, ...]


def find_rollbacks(
    conn: sqlite3.Connection, batch: BatchId, *, only: Only | None, run: int | None
) -> Iterator[Rollback]:
    """Yield the done jobs that have an earlier version. Images that wait are left alone.

    ``run`` names the run whose images are to go.
    """
    jobs = conn.execute(
        "SELECT jobs.id AS id, key,"
        " (SELECT attempt_id FROM images WHERE job_id = jobs.id AND state = 'saved'"
        " AND unpublished = 0 LIMIT 1) AS now,"
        " (SELECT attempt_id FROM images WHERE job_id = jobs.id AND state = 'replaced'"
        " AND unpublished = 0"
        f" ORDER BY {LAST_REPLACED} LIMIT 1) AS before FROM jobs"
        f" WHERE batch_id = :batch AND retired = 0 AND state = 'done' AND {IS_MEANT}"
        " AND (:run IS NULL OR EXISTS (SELECT 1 FROM images JOIN attempts ON"
        " attempts.id = attempt_id"
        " WHERE images.job_id = jobs.id AND images.state = 'saved' AND images.unpublished = 0"
        " AND run_id = :run))"
        " ORDER BY jobs.id",
        {"batch": batch, "run": run, **only_values(only)},
    ).fetchall()
    for job in jobs:
        if job["now"] is not None and job["before"] is not None:
            yield Rollback(
                job=job["id"],
                key=job["key"],
                current=_version(conn, job["now"], "saved"),
                earlier=_version(conn, job["before"], "replaced"),
            )


def _version(conn: sqlite3.Connection, attempt: str, state: str) -> tuple[Version, ...]:
    rows = conn.execute(
        "SELECT id AS image, root, path, sha256 FROM images WHERE attempt_id = ? AND state = ?"
        " AND unpublished = 0 ORDER BY position",
        (attempt, state),
    )
    return tuple(Version(**dict(row)) for row in rows)


def record_rollback(conn: sqlite3.Connection, rollback: Rollback, clock: Clock = utc_now) -> None:
    """Write that the earlier images have their places again; the job stays done.

    Where they are not at the planned place, the job says so, and the next run moves them there.
    """
    first = rollback.earlier[0]
    with write_transaction(conn):
        conn.execute(
            "UPDATE jobs SET root = :root, path = :path WHERE id = :job"
            " AND (root, replace(path, '{ext}', :extension)) <> (:root, :path)",
            {
                "root": first.root,
                "path": first.path,
                "job": rollback.job,
                "extension": first.path.rpartition(".")[2],
            },
        )
        now = timestamp(clock())
        for state, at, version in (
            ("replaced", now, rollback.current),
            ("saved", None, rollback.earlier),
        ):
            conn.executemany(
                "UPDATE images SET state = ?, replaced_at = ? WHERE id = ?",
                [(state, at, image.image) for image in version],
            )


def forget_pruned(conn: sqlite3.Connection, images: Iterable[int], clock: Clock = utc_now) -> None:
    """Record that images of retired jobs were removed; a job that returns is regenerated."""
    chosen = canonical_json(list(images))
    with write_transaction(conn):
        conn.execute(
            "UPDATE images SET state = 'pruned' WHERE state = 'saved'"
            " AND id IN (SELECT value FROM json_each(?))",
            (chosen,),
        )
        conn.execute(
            "UPDATE jobs SET state = 'pending', reason = NULL, changed_at = ? WHERE state = 'done'"
            " AND retired = 1 AND id IN (SELECT job_id FROM images WHERE state = 'pruned'"
            " AND id IN (SELECT value FROM json_each(?)))",
            (timestamp(clock()), chosen),
        )


def fetch_again(conn: sqlite3.Connection, images: Iterable[int], clock: Clock = utc_now) -> int:
    """Make saved or lost images with a known URL due again; return for how many jobs."""
    chosen = canonical_json(list(images))
    now = clock()
    with write_transaction(conn):
        conn.execute(
            "UPDATE images SET state = 'due' WHERE state = 'saved'"
            " AND url IS NOT NULL AND id IN (SELECT value FROM json_each(?))"
            " AND job_id IN (SELECT id FROM jobs WHERE state = 'done')",
            (chosen,),
        )
        moved = conn.execute(
            "UPDATE jobs SET state = 'paid', changed_at = ?, reason ="
            " 'download: its image was missing or changed, and is fetched again'"
            " WHERE state = 'done' AND id IN (SELECT job_id FROM images WHERE state = 'due'"
            " AND id IN (SELECT value FROM json_each(?)))",
            (timestamp(now), chosen),
        )
        lost = conn.execute(
            "SELECT DISTINCT job_id FROM images WHERE state = 'lost'"
            " AND id IN (SELECT value FROM json_each(?))",
            (chosen,),
        ).fetchall()
        found = refetch(conn, [JobId(row["job_id"]) for row in lost], now)
    return moved.rowcount + found
