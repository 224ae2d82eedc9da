"""Check the invariants of a ledger, its files and the endpoint's bill, after a kill and at the end.

Each check returns what it found instead of stopping at the first, so that a sweep can count.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from tests.support import rig

Bill = Sequence[Mapping[str, Any]]


class Kind(StrEnum):
    """What a broken invariant means for the person who pays."""

    LOST = "lost"
    """Paid for, without a record."""
    TWICE = "bought twice"
    """Paid for again without an uncertain attempt on record."""
    CORRUPT = "corrupt"
    """The ledger is damaged, or an image is not what the ledger says."""
    MONEY = "money"
    """The ledger's sums are not the bill's."""
    BOLD = "sent after a failure"
    """The run stopped for its disk, and more left than was on its way already."""
    STUCK = "stuck"
    """A run with nothing to do is not done."""
    LITTER = "litter"
    """Files that are not needed, or not known."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One invariant that does not hold."""

    kind: Kind
    text: str


def open_attempts(directory: Path) -> int:
    """Return the number of requests whose end the ledger does not know."""
    db = directory / "batchgen.db"
    if not db.exists():
        return 0
    return int(rig.query(db, "SELECT count(*) FROM attempts WHERE billed = 'maybe'")[0][0])


def billed_uncertain(directory: Path, bill: Bill) -> int:
    """How many of them are on the bill."""
    db = directory / "batchgen.db"
    if not db.exists():
        return 0
    charged = rig.charges(bill)
    rows = rig.query(db, "SELECT id FROM attempts WHERE billed = 'maybe'")
    return sum(row["id"] in charged for row in rows)


def held(directory: Path) -> int:
    """How many jobs wait for a person."""
    states = "SELECT count(*) FROM jobs WHERE state = 'uncertain'"
    return int(rig.query(directory / "batchgen.db", states)[0][0])


def dead(directory: Path, bill: Bill) -> list[Finding]:
    """What must hold at any time, of the files of a killed run too (I1 to I7)."""
    if not (directory / "batchgen.db").exists():
        return [Finding(Kind.LOST, "a charge without a ledger") for _ in bill]
    found = [*_intents(directory, bill), *_repeats(directory, bill), *_responses(directory)]
    return found or _by_the_rig(directory, bill, finished=False)


def final(directory: Path, bill: Bill) -> list[Finding]:
    """Check what must hold after a run has finished (I10 to I12 too)."""
    found = dead(directory, bill) or [*_unknown_files(directory)]
    return found or _by_the_rig(directory, bill, finished=True)


def rows(directory: Path) -> str:
    """A digest of all that the ledger holds."""
    db = directory / "batchgen.db"
    tables = rig.query(db, "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
    digest = hashlib.sha256()
    for (table,) in tables:
        for row in rig.query(db, f'SELECT * FROM "{table}" ORDER BY 1'):
            digest.update(repr(tuple(row)).encode())
    return digest.hexdigest()


def _by_the_rig(directory: Path, bill: Bill, *, finished: bool) -> list[Finding]:
    try:
        rig.judge(directory, bill, finished=finished)
    except AssertionError as exc:
        text = str(exc)
        kind = Kind.MONEY
        if "spool" in text or ".part" in text:
            kind = Kind.LITTER
        elif "integrity" in text or "sha256" in text or "image" in text:
            kind = Kind.CORRUPT
        return [Finding(kind, text)]
    except (OSError, ValueError) as exc:
        return [Finding(Kind.CORRUPT, repr(exc))]
    return []


def _intents(directory: Path, bill: Bill) -> list[Finding]:
    """I1: every charge has an attempt on record."""
    known = {row["id"] for row in rig.query(directory / "batchgen.db", "SELECT id FROM attempts")}
    return [
        Finding(Kind.LOST, f"charged, and not on record: {key}")
        for key in rig.charges(bill)
        if key not in known
    ]


def _repeats(directory: Path, bill: Bill) -> list[Finding]:
    """I5: a job is charged once, and once more per uncertain or spoiled attempt on record."""
    attempts = rig.query(directory / "batchgen.db", "SELECT id, job_id, outcome FROM attempts")
    charged = rig.charges(bill)
    sure = Counter(
        row["job_id"]
        for row in attempts
        if row["id"] in charged and row["outcome"] in ("ok", "sending")
    )
    return [
        Finding(Kind.TWICE, f"job {job} was bought {count} times")
        for job, count in sure.items()
        if count > 1
    ]


def _responses(directory: Path) -> list[Finding]:
    """I4: what is paid for and not on disk has its URL, or its response in the spool."""
    due = rig.query(
        directory / "batchgen.db",
        "SELECT images.url AS url, task, response FROM images JOIN attempts"
        " ON attempts.id = attempt_id WHERE images.state = 'due'",
    )
    spool = directory / "batchgen.db.spool"
    return [
        Finding(Kind.LOST, f"paid for, and neither URL nor response: {row['response']}")
        for row in due
        if row["url"] is None and row["task"] is None and not (spool / row["response"]).exists()
    ]


def _unknown_files(directory: Path) -> Iterable[Finding]:
    """I12: the output directory holds what the ledger says."""
    saved = rig.query(
        directory / "batchgen.db", "SELECT root, path FROM images WHERE state = 'saved'"
    )
    known = {directory / row["root"] / row["path"] for row in saved}
    for path in (directory / "out").rglob("*"):
        if path.is_file() and path not in known:
            yield Finding(Kind.LITTER, f"unknown file {path.relative_to(directory)}")
