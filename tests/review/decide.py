"""Decide about images of a batch as the review page does."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from batchgen.ledger.batches import find_batch
from batchgen.ledger.database import open_for_writing
from batchgen.ledger.decisions import NewDecision, Reviewer, record_decisions
from batchgen.ledger.newest_decisions import Decision
from tests.support import rig

REVIEWER = Reviewer(name="anna", session="test")


def saved(directory: Path, key: str) -> tuple[int, str]:
    """Return the id and the sha256 of the newest saved image of a job."""
    row, *_ = rig.query(
        directory / "batchgen.db",
        "SELECT images.id AS id, sha256 FROM images JOIN jobs ON jobs.id = job_id"
        " WHERE key = ? AND images.state = 'saved' ORDER BY unpublished DESC",
        key,
    )
    return row["id"], row["sha256"]


def decide(
    directory: Path,
    decision: Decision,
    *keys: str,
    note: str = "",
    prompt: str | None = None,
) -> None:
    """Record a decision about the saved image of each job."""
    rows = [saved(directory, key) for key in keys]
    with closing(open_for_writing(directory / "batchgen.db")) as conn:
        decisions = [
            NewDecision(image=image, sha256=sha256, decision=decision, note=note, prompt=prompt)
            for image, sha256 in rows
        ]
        record_decisions(conn, find_batch(conn, "batch").id, decisions, REVIEWER)
