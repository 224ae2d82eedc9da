"""Batches by name, as the ledger keeps them."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from batchgen.errors import UnknownBatchError
from batchgen.job import BatchId


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRow:
    """A batch as the ledger keeps it."""

    id: BatchId
    name: str
    provider: str
    manifest_path: str
    manifest: str
    manifest_sha256: str


def batch_names(conn: sqlite3.Connection) -> list[str]:
    """All batches, the one that was planned last first."""
    return [
        row["name"] for row in conn.execute("SELECT name FROM batches ORDER BY planned_at DESC")
    ]


def find_batch(conn: sqlite3.Connection, name: str) -> BatchRow:
    """The batch of that name. Raises UnknownBatchError, which lists those there are."""
    row = conn.execute(
        "SELECT id, name, provider, manifest_path, manifest, manifest_sha256 FROM batches"
        " WHERE name = ?",
        (name,),
    ).fetchone()
    if row is None:
        known = ", ".join(batch_names(conn)[:20]) or "none yet"
        raise UnknownBatchError(f"no batch {name!r} in this ledger; it holds: {known}")
    return BatchRow(**dict(row))


def batch_id(conn: sqlite3.Connection, name: str) -> BatchId | None:
    """The batch of that name, or None."""
    row = conn.execute("SELECT id FROM batches WHERE name = ?", (name,)).fetchone()
    return None if row is None else BatchId(row["id"])
