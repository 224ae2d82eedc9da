"""What people decided about images in review: append-only, each bound to the bytes they saw."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from batchgen.job import BatchId
from batchgen.ledger.clock import Clock, timestamp, utc_now
from batchgen.ledger.newest_decisions import CURRENT, IS_NEWEST, NEWEST, Decision
from batchgen.ledger.transaction import write_transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDecision:
    """A decision to be recorded."""

    image: int
    sha256: str
    """Of the bytes that the person saw."""
    decision: Decision
    note: str = ""
    prompt: str | None = None
    """The whole prompt to use instead; only for `Decision.REDO`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviewer:
    """Who decides, and in which session of the review page."""

    name: str
    session: str


class ImageChangedError(Exception):
    """The image has other bytes than the person saw, or is not of this batch."""

    def __init__(self, image: int) -> None:
        super().__init__(f"image {image}: it was replaced meanwhile; look at the new one")
        self.image = image


_INSERT: Final = f"""
INSERT INTO decisions (job_id, image_id, sha256, decision, note, prompt, replaced_prompt,
    decided_by, decided_at, session, action, undoes)
SELECT jobs.id, images.id, images.sha256, :decision, :note, :prompt, iif(:prompt IS NULL, NULL,
    coalesce((SELECT earlier.replaced_prompt FROM decisions AS earlier
        WHERE earlier.job_id = jobs.id AND earlier.prompt = jobs.prompt
        ORDER BY earlier.id DESC LIMIT 1), jobs.prompt)), :by, :at, :session, :action, :undoes
FROM images CROSS JOIN jobs ON jobs.id = images.job_id
WHERE images.id = :image AND images.sha256 = :sha256 AND images.state = 'saved'
  AND jobs.batch_id = :batch AND {IS_NEWEST}
"""


def record_decisions(
    conn: sqlite3.Connection,
    batch: BatchId,
    decisions: Sequence[NewDecision],
    reviewer: Reviewer,
    *,
    action: str = "",
    clock: Clock = utc_now,
) -> None:
    """Append decisions durably, all of them or none.

    An ``action`` that is recorded already is left as it is, so a request may be sent again. An
    empty one gets a name of its own. Raises ImageChangedError if the bytes of an image are not
    those that the person saw.
    """
    with write_transaction(conn):
        if action and _is_recorded(conn, action):
            return
        name, at = action or uuid4().hex, timestamp(clock())
        for one in decisions:
            _append(conn, batch, _Row(one, reviewer, name, at))


@dataclass(frozen=True, slots=True)
class _Row:
    decision: NewDecision
    reviewer: Reviewer
    action: str
    at: str
    undoes: int | None = None


def _append(conn: sqlite3.Connection, batch: BatchId, row: _Row) -> None:
    one = row.decision
    added = conn.execute(
        _INSERT,
        {
            "batch": batch,
            "image": one.image,
            "sha256": one.sha256,
            "decision": one.decision,
            "note": one.note,
            "prompt": one.prompt if one.decision is Decision.REDO else None,
            "by": row.reviewer.name,
            "session": row.reviewer.session,
            "at": row.at,
            "action": row.action,
            "undoes": row.undoes,
        },
    )
    if added.rowcount != 1:
        raise ImageChangedError(one.image)


def _is_recorded(conn: sqlite3.Connection, action: str) -> bool:
    found = conn.execute("SELECT 1 FROM decisions WHERE action = ? LIMIT 1", (action,))
    return found.fetchone() is not None


class NothingToUndoError(Exception):
    """No decision of the reviewer is left to undo, or another person decided since."""


def undo_decisions(
    conn: sqlite3.Connection,
    batch: BatchId,
    reviewer: Reviewer,
    *,
    action: str,
    clock: Clock = utc_now,
) -> list[int]:
    """Take back the newest action of a reviewer, and return the ids of its images.

    Each image gets the decision that it had before. Decisions about images that were replaced since
    have had their effect and are passed over. Raises NothingToUndoError.
    """
    with write_transaction(conn):
        if _is_recorded(conn, action):
            return []
        last = conn.execute(_LAST_ACTION, {"batch": batch, "by": reviewer.name}).fetchone()
        if last is None:
            raise NothingToUndoError("nothing to undo")
        rows = conn.execute(_OF_ACTION, {"action": last["action"]}).fetchall()
        at = timestamp(clock())
        for row in rows:
            if row["newest_by"] != reviewer.name:
                raise NothingToUndoError(f"{row['newest_by']} has decided about this image since")
            before = conn.execute(_BEFORE, dict(row)).fetchone()
            restored = NewDecision(
                image=row["image_id"],
                sha256=row["sha256"],
                decision=Decision(before["decision"]) if before else Decision.CLEAR,
                note=before["note"] if before else "",
                prompt=before["prompt"] if before else None,
            )
            _append(conn, batch, _Row(restored, reviewer, action, at, undoes=row["id"]))
        return [row["image_id"] for row in rows]


_CAN_BE_UNDONE: Final = f"""undoes IS NULL
  AND NOT EXISTS (SELECT 1 FROM decisions AS undone WHERE undone.undoes = decisions.id)
  AND EXISTS (SELECT 1 FROM images WHERE images.id = decisions.image_id
      AND images.sha256 = decisions.sha256 AND images.state = 'saved' AND {IS_NEWEST})"""
_LAST_ACTION: Final = f"""
SELECT action FROM decisions CROSS JOIN jobs ON jobs.id = decisions.job_id
WHERE jobs.batch_id = :batch AND decided_by = :by AND {_CAN_BE_UNDONE}
ORDER BY decisions.id DESC LIMIT 1
"""
_OF_ACTION: Final = f"""
SELECT id, image_id, sha256, (SELECT newest.decided_by FROM decisions AS newest
    WHERE newest.image_id = decisions.image_id AND newest.sha256 = decisions.sha256
    ORDER BY newest.id DESC LIMIT 1) AS newest_by
FROM decisions WHERE action = :action AND {_CAN_BE_UNDONE} ORDER BY id
"""
_BEFORE: Final = """
SELECT decision, note, prompt FROM decisions
WHERE image_id = :image_id AND sha256 = :sha256 AND id < :id ORDER BY id DESC LIMIT 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionCounts:
    """How many saved images of a batch are accepted, rejected (redo included) or undecided."""

    accepted: int
    rejected: int
    undecided: int

    @property
    def decided(self) -> int:
        """Images with a decision."""
        return self.accepted + self.rejected


def decision_counts(conn: sqlite3.Connection, batch: BatchId) -> DecisionCounts:
    """Count the saved images of a batch by their decisions."""
    rows = conn.execute(
        f"SELECT decision, count(*) AS n FROM {CURRENT} AND jobs.batch_id = ?"
        f" AND jobs.retired = 0 AND images.state = 'saved' AND {IS_NEWEST} GROUP BY decision",
        (batch,),
    )
    found = {row["decision"]: row["n"] for row in rows}
    rejected = found.get(Decision.REJECT, 0) + found.get(Decision.REDO, 0)
    accepted = found.get(Decision.ACCEPT, 0)
    saved = conn.execute("SELECT saved FROM tallies WHERE batch_id = ?", (batch,)).fetchone()
    newest = (saved["saved"] if saved else 0) - _with_a_newer_one(conn, batch)
    undecided = max(0, newest - accepted - rejected)
    return DecisionCounts(accepted=accepted, rejected=rejected, undecided=undecided)


def _with_a_newer_one(conn: sqlite3.Connection, batch: BatchId) -> int:
    """Count the published images of jobs that have a new image that waits."""
    row = conn.execute(
        "SELECT count(*) AS n FROM (SELECT DISTINCT job_id FROM images INDEXED BY"
        " images_unpublished WHERE state = 'saved' AND unpublished = 1) AS waiting"
        " CROSS JOIN jobs ON jobs.id = waiting.job_id CROSS JOIN images ON images.job_id = jobs.id"
        " AND images.state = 'saved' AND images.unpublished = 0 WHERE batch_id = ?",
        (batch,),
    ).fetchone()
    return int(row["n"])


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeDecision:
    """A decision as it was recorded."""

    decision: Decision
    note: str
    prompt: str | None
    replaced_prompt: str | None
    decided_by: str
    decided_at: str


def decision_about(conn: sqlite3.Connection, job: int) -> MadeDecision | None:
    """Return the newest rejection that counts for the saved image of a job, or None."""
    row = conn.execute(
        "SELECT decision, note, decisions.prompt AS prompt, replaced_prompt, decided_by, decided_at"
        f" FROM images CROSS JOIN decisions ON decisions.id = ({NEWEST})"
        f" WHERE images.job_id = ? AND images.state = 'saved' AND {IS_NEWEST}"
        " AND decision IN ('reject', 'redo')"
        " ORDER BY decisions.id DESC LIMIT 1",
        (job,),
    ).fetchone()
    return None if row is None else _made(row)


def _made(row: sqlite3.Row) -> MadeDecision:
    return MadeDecision(**{**dict(row), "decision": Decision(row["decision"])})
