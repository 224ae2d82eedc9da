"""Runs that have not ended, and the processes that own them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from batchgen.errors import BatchLockedError
from batchgen.job import BatchId, RunId
from batchgen.ledger.busy import Patience
from batchgen.ledger.database import peek
from batchgen.system.process_owner import BatchOwner, Here, Life, Owner, life_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a run says of itself as it starts."""

    here: Here
    spool: str
    """Identity of the spool that takes its responses."""
    take_over: bool = False
    """Whether a person says that an owner that cannot be seen from here is dead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRun:
    """A run without a recorded end."""

    id: RunId
    batch: str
    owner: Owner
    started_at: datetime
    heartbeat_at: datetime

    def seen(self, here: Here, now: datetime) -> BatchOwner:
        """Judge its owner. The caller holds the lock of the batch, or saw that it is free."""
        return BatchOwner(
            batch=self.batch,
            owner=self.owner,
            life=life_of(self.owner, self.heartbeat_at, here=here, now=now),
            since=self.started_at,
            heartbeat=self.heartbeat_at,
        )


def open_runs(conn: sqlite3.Connection, batch: str) -> list[OpenRun]:
    """Return the runs of a batch that have neither ended nor been taken over, newest first.

    Runs of a batchgen that recorded no owner are left out: only the lock speaks for them.
    """
    rows = conn.execute(
        "SELECT runs.id AS id, owner, started_at, heartbeat_at FROM runs"
        " JOIN batches ON batches.id = batch_id"
        " WHERE name = ? AND ended_at IS NULL AND taken_by IS NULL AND owner IS NOT NULL"
        " ORDER BY runs.id DESC",
        (batch,),
    )
    return [
        OpenRun(
            id=RunId(row["id"]),
            batch=batch,
            owner=Owner.from_json(row["owner"]),
            started_at=datetime.fromisoformat(row["started_at"]),
            heartbeat_at=datetime.fromisoformat(row["heartbeat_at"] or row["started_at"]),
        )
        for row in rows
    ]


def read_open_runs(ledger: Path, batch: str, waits: Patience | None = None) -> list[OpenRun]:
    """Return the open runs of a batch in a ledger; none where it does not exist or is older.

    ``waits`` bounds how long another program's lock is waited for; after that, too, none.

    What is wrong with the file is reported by the command that opens it next.
    """
    try:
        with closing(peek(ledger, waits)) as conn:
            return open_runs(conn, batch)
    except (sqlite3.DatabaseError, OSError):
        return []


def refuse_while_owned(runs: list[OpenRun], here: Here, now: datetime, *, take_over: bool) -> None:
    """Raise BatchLockedError if one of the runs may still be alive.

    ``take_over`` overrides what cannot be seen from here, never a process that is seen alive.
    """
    for run in runs:
        found = run.seen(here, now)
        if found.life is Life.ALIVE or (found.life is Life.UNKNOWN and not take_over):
            raise BatchLockedError(found.refusal(now.astimezone()))


def take_over_runs(conn: sqlite3.Connection, batch: BatchId, run: RunId) -> None:
    """Record that a new run owns what the open runs of its batch left."""
    conn.execute(
        "UPDATE runs SET taken_by = ?"
        " WHERE batch_id = ? AND ended_at IS NULL AND taken_by IS NULL AND id <> ?",
        (run, batch, run),
    )
