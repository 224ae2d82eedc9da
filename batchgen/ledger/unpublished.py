"""Images that wait for a decision (``publish: on_accept``), and their publication.

Such an image is saved at a path below ``.pending/``. Its job may have a published image too, which
stays the current one until a person accepts the new one.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

from batchgen.job import BatchId, JobId, JobState
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.newest_decisions import CURRENT, NEWEST, Decision
from batchgen.ledger.path_owners import PathHistory, path_history
from batchgen.ledger.records import OldImage
from batchgen.planning.naming import published_path


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpublishedCounts:
    """How many images of a batch are not published."""

    undecided: int = 0
    accepted: int = 0
    """Published as soon as no other command holds the batch, or as their paths are free."""
    rejected: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.undecided + self.accepted + self.rejected

    def as_json(self) -> dict[str, int]:
        """For other programs."""
        return {
            "undecided": self.undecided,
            "accepted": self.accepted,
            "rejected": self.rejected,
        }


ALL_PUBLISHED: Final = UnpublishedCounts()
_COUNT: Final = f"""
SELECT coalesce(decision, 'clear') AS decision, count(*) AS n
FROM images INDEXED BY images_unpublished CROSS JOIN jobs ON jobs.id = images.job_id
LEFT JOIN decisions ON decisions.id = ({NEWEST})
WHERE images.state = 'saved' AND images.unpublished = 1 AND batch_id = ? AND retired = 0
GROUP BY 1
"""


def unpublished_counts(conn: sqlite3.Connection, batch: BatchId) -> UnpublishedCounts:
    """Count the images of a batch that are not published, by their decisions."""
    found = {row["decision"]: row["n"] for row in conn.execute(_COUNT, (batch,))}
    return UnpublishedCounts(
        undecided=found.get(Decision.CLEAR, 0),
        accepted=found.get(Decision.ACCEPT, 0),
        rejected=found.get(Decision.REJECT, 0) + found.get(Decision.REDO, 0),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """An accepted image that is to get its final name."""

    image: int
    job: JobId
    key: str
    batch: str
    root: str
    pending: str
    """The path below the output directory where it waits."""
    path: str
    """The path under which it is published."""
    sha256: str
    keep_previous: int
    sidecar: bool
    replaced: tuple[OldImage, ...]
    """Published images of the job that it replaces."""
    known: PathHistory
    """What the ledger knows of ``path``."""


# Driven by decisions, of which people make few; of images there may be a million.
_DUE: Final = f"""
SELECT images.id AS image, jobs.id AS job, key, images.root AS root, images.path AS pending,
       images.sha256 AS sha256, keep_previous, sidecar, attempt_id AS attempt, position,
       (SELECT name FROM batches WHERE id = jobs.batch_id) AS batch
FROM {CURRENT} AND decision = '{Decision.ACCEPT}'
    AND images.state = 'saved' AND images.unpublished = 1
    AND jobs.batch_id = :batch AND retired = 0
    AND (NOT :live OR jobs.state = '{JobState.DONE}')
ORDER BY images.id
"""
_REPLACED: Final = """
SELECT id, root, path, sha256 FROM images
WHERE job_id = :job AND state = 'saved' AND unpublished = 0 AND attempt_id <> :attempt
  AND NOT EXISTS (SELECT 1 FROM images AS own WHERE own.attempt_id = :attempt
      AND own.state = 'saved' AND own.unpublished = 1 AND own.id <> :image
      AND own.position = images.position)
"""
"""The published images that an image replaces: not those that other images of its response will."""


def publications(ledger: Ledger, batch: BatchId, *, live: bool = False) -> list[Publication]:
    """Return the accepted images of a batch that are not published yet.

    With ``live``, only those of done jobs, which a run of the batch does not touch.
    """
    found = []
    for row in ledger.conn.execute(_DUE, {"batch": batch, "live": live}).fetchall():
        job, path = JobId(row["job"]), published_path(row["pending"])
        replaced = ledger.conn.execute(_REPLACED, dict(row))
        found.append(
            Publication(
                image=row["image"],
                job=job,
                key=row["key"],
                batch=row["batch"],
                root=row["root"],
                pending=row["pending"],
                path=path,
                sha256=row["sha256"],
                keep_previous=row["keep_previous"],
                sidecar=bool(row["sidecar"]),
                replaced=tuple(OldImage(**dict(one)) for one in replaced),
                known=path_history(ledger, job, row["root"], path),
            )
        )
    return found


def record_publication(ledger: Ledger, one: Publication) -> None:
    """Record that an image has its final name, and which images it replaced.

    Runs in a transaction of its caller, after the name is durable.
    """
    ledger.conn.execute("UPDATE images SET path = ? WHERE id = ?", (one.path, one.image))
    ledger.conn.executemany(
        "UPDATE images SET state = 'replaced', replaced_at = ? WHERE id = ?",
        [(ledger.timestamp(), old.id) for old in one.replaced],
    )
