"""The runs of a batch, each in one row. Never writes."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from batchgen.ledger.batches import find_batch
from batchgen.ledger.run_report import made_by
from batchgen.money import Micros, decimal_string


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """One run with its result."""

    id: int
    started_at: str
    ended_at: str | None
    new: int
    """Jobs that got their first image."""
    replaced: int
    """Jobs whose image it replaced."""
    charged: Micros
    maybe: Micros
    """Possibly charged; includes what is reserved."""
    stopped: str | None
    exit_code: int | None

    def as_record(self) -> dict[str, object]:
        """Return the row as JSON-compatible values, with money as decimal strings in dollars."""
        return {
            "run": self.id,
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "new": self.new,
            "replaced": self.replaced,
            "charged": decimal_string(self.charged),
            "maybe": decimal_string(self.maybe),
            "stopped": self.stopped,
            "exit_code": self.exit_code,
        }


def run_list(conn: sqlite3.Connection, name: str, limit: int) -> list[RunRow]:
    """Return the newest runs of a batch, the newest first. Raises UnknownBatchError."""
    batch = find_batch(conn, name)
    rows = conn.execute(
        "SELECT id, started_at, ended_at, charged, maybe + reserved AS maybe, stopped, exit_code"
        " FROM runs WHERE batch_id = ? ORDER BY id DESC LIMIT ?",
        (batch.id, limit),
    ).fetchall()
    found = []
    for row in rows:
        new, replaced = made_by(conn, row["id"])
        found.append(RunRow(**dict(row), new=new, replaced=replaced))
    return found
