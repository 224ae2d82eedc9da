"""Batches by name, as the ledger keeps them."""

from __future__ import annotations

import sqlite3
import sys
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
    """Return the names of all batches, the one that was planned last first."""
    return [
        row["name"] for row in conn.execute("SELECT name FROM batches ORDER BY planned_at DESC")
    ]


def find_batch(conn: sqlite3.Connection, name: str) -> BatchRow:
    """Return the batch of that name. Raises UnknownBatchError, which lists the known names."""
    row = conn.execute(
        "SELECT id, name, provider, manifest_path, manifest, manifest_sha256 FROM batches"
        " WHERE name = ?",
        (name,),
    ).fetchone()
    if row is None:
        known = ", ".join(batch_names(conn)[:20]) or "none yet"
        raise UnknownBatchError(f"no batch {name!r} in this ledger; it holds: {known}")
    return BatchRow(**dict(row))


def check_run(conn: sqlite3.Connection, batch: BatchRow, run: int) -> None:
    """Raise UnknownBatchError unless a run of the batch has this id."""
    row = conn.execute(
        "SELECT 1 FROM runs WHERE id = ? AND batch_id = ?", (run, batch.id)
    ).fetchone()
    if row is None:
        raise unknown_run(batch.name, run)


def unknown_run(name: str, run: int | None) -> UnknownBatchError:
    """Return the error for a run that a batch does not have; None if it has no run at all."""
    what = "no run yet" if run is None else f"no run {run}"
    return UnknownBatchError(f"{name}: the ledger has {what} of this batch")


def keys_with_prefix(
    conn: sqlite3.Connection, batch: BatchId, prefix: str, limit: int
) -> list[str]:
    """Return keys of a batch that start with a prefix, in their order; at most ``limit``."""
    rows = conn.execute(
        "SELECT key FROM jobs WHERE batch_id = ? AND key >= ? AND key < ? AND retired = 0"
        " ORDER BY key LIMIT ?",
        (batch, prefix, prefix + chr(sys.maxunicode), limit),
    )
    return [row["key"] for row in rows]


def batch_id(conn: sqlite3.Connection, name: str) -> BatchId | None:
    """Return the id of the batch of that name, or None."""
    row = conn.execute("SELECT id FROM batches WHERE name = ?", (name,)).fetchone()
    return None if row is None else BatchId(row["id"])
