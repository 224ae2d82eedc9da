"""What people decided about images in review: append-only, each bound to the bytes they saw."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from batchgen.job import BatchId
from batchgen.ledger.clock import Clock, timestamp, utc_now
from batchgen.ledger.transaction import write_transaction
from batchgen.planning.amendments import Amendment


class Decision(StrEnum):
    """A decision about one image."""

    ACCEPT = "accept"
    REJECT = "reject"
    """The next run regenerates it with the prompt of the manifest."""
    REDO = "redo"
    """As `REJECT`, with a note or another prompt."""
    CLEAR = "clear"
    """Undecided again."""


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


NEWEST: Final = (
    "SELECT max(decided.id) FROM decisions AS decided"
    " WHERE decided.image_id = images.id AND decided.sha256 = images.sha256"
)
"""The id of the decision that counts for a row of ``images``; NULL if it is undecided."""

_CURRENT: Final = (
    "decisions CROSS JOIN images ON images.id = decisions.image_id"
    " AND images.sha256 = decisions.sha256"
    " CROSS JOIN jobs ON jobs.id = decisions.job_id"
    " WHERE decisions.id IN (SELECT max(id) FROM decisions GROUP BY image_id, sha256)"
)
_AMENDMENTS: Final = """
SELECT key, jobs.prompt AS enrolled, decisions.prompt AS prompt,
       decisions.replaced_prompt AS replaced_prompt
FROM decisions CROSS JOIN jobs ON jobs.id = decisions.job_id
WHERE jobs.batch_id = :batch AND decisions.prompt IS NOT NULL
  AND decisions.id IN (SELECT max(id) FROM decisions GROUP BY image_id, sha256)
ORDER BY decisions.id
"""
_INSERT: Final = """
INSERT INTO decisions (job_id, image_id, sha256, decision, note, prompt, replaced_prompt,
    decided_by, decided_at, session)
SELECT jobs.id, images.id, images.sha256, :decision, :note, :prompt, iif(:prompt IS NULL, NULL,
    coalesce((SELECT earlier.replaced_prompt FROM decisions AS earlier
        WHERE earlier.job_id = jobs.id AND earlier.prompt = jobs.prompt
        ORDER BY earlier.id DESC LIMIT 1), jobs.prompt)), :by, :at, :session
FROM images CROSS JOIN jobs ON jobs.id = images.job_id
WHERE images.id = :image AND images.sha256 = :sha256 AND images.state = 'saved'
  AND jobs.batch_id = :batch
"""


def record_decisions(
    conn: sqlite3.Connection,
    batch: BatchId,
    decisions: Sequence[NewDecision],
    reviewer: Reviewer,
    clock: Clock = utc_now,
) -> list[int]:
    """Append decisions durably and return their ids.

    Raises ImageChangedError, and records none, if the bytes of an image are not those that the
    person saw.
    """
    ids = list[int]()
    with write_transaction(conn):
        for one in decisions:
            added = conn.execute(
                _INSERT,
                {
                    "batch": batch,
                    "image": one.image,
                    "sha256": one.sha256,
                    "decision": one.decision,
                    "note": one.note,
                    "prompt": one.prompt if one.decision is Decision.REDO else None,
                    "by": reviewer.name,
                    "session": reviewer.session,
                    "at": timestamp(clock()),
                },
            )
            if added.rowcount != 1 or added.lastrowid is None:
                raise ImageChangedError(one.image)
            ids.append(added.lastrowid)
    return ids


def amendments(
    conn: sqlite3.Connection, batch: BatchId, *, enrolled_only: bool = False
) -> dict[str, Amendment]:
    """Return the amended prompts of a batch by key; of several for a job, the newest.

    With ``enrolled_only``, only those that an earlier run has taken up.
    """
    found = dict[str, Amendment]()
    for row in conn.execute(_AMENDMENTS, {"batch": batch}):
        found[row["key"]] = Amendment(prompt=row["prompt"], replaced_prompt=row["replaced_prompt"])
        if enrolled_only and row["enrolled"] != row["prompt"]:
            del found[row["key"]]
    return found


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
        f"SELECT decision, count(*) AS n FROM {_CURRENT} AND jobs.batch_id = ?"
        " AND jobs.retired = 0 AND images.state = 'saved' GROUP BY decision",
        (batch,),
    )
    found = {row["decision"]: row["n"] for row in rows}
    rejected = found.get(Decision.REJECT, 0) + found.get(Decision.REDO, 0)
    accepted = found.get(Decision.ACCEPT, 0)
    saved = conn.execute("SELECT saved FROM tallies WHERE batch_id = ?", (batch,)).fetchone()
    undecided = max(0, (saved["saved"] if saved else 0) - accepted - rejected)
    return DecisionCounts(accepted=accepted, rejected=rejected, undecided=undecided)


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
        " WHERE images.job_id = ? AND images.state = 'saved' AND decision IN ('reject', 'redo')"
        " ORDER BY decisions.id DESC LIMIT 1",
        (job,),
    ).fetchone()
    return None if row is None else _made(row)


def _made(row: sqlite3.Row) -> MadeDecision:
    return MadeDecision(**{**dict(row), "decision": Decision(row["decision"])})


REJECTED: Final = """
CREATE TABLE staging.rejected (job INTEGER PRIMARY KEY, decision TEXT NOT NULL)
"""
"""The jobs of a plan whose image was rejected in review."""
_FIND_REJECTED: Final = f"""
INSERT OR REPLACE INTO staging.rejected (job, decision)
SELECT jobs.id, decision FROM {_CURRENT} AND jobs.batch_id = ? AND images.state = 'saved'
    AND decision IN ('reject', 'redo') ORDER BY decisions.id
"""


def find_rejected(conn: sqlite3.Connection, batch: BatchId) -> None:
    """Note the jobs whose saved image was rejected, over an empty plan."""
    conn.execute("DELETE FROM staging.rejected")
    conn.execute(_FIND_REJECTED, (batch,))
