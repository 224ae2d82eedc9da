"""What the ledger keeps of a manifest under the name of its batch."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from batchgen.job import BatchId
from batchgen.ledger.manifest_paths import Adoption, move_roots


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchIdentity:
    """What the ledger keeps of a manifest, so that a batch can be resumed without the file."""

    name: str
    provider: str
    price_source: str
    manifest_path: str
    manifest_sha256: str
    manifest: str
    adopted: Adoption | None = None
    """Set where the batch continues with a manifest at another path."""
    partial: bool = False
    """The plan is of some jobs only: the others are not retired, and the whole manifest is kept."""


def enroll_batch(conn: sqlite3.Connection, identity: BatchIdentity, now: str) -> BatchId:
    """Insert or update the row of a batch, inside the transaction of an enrollment."""
    row = conn.execute(
        """
        INSERT INTO batches (name, provider, manifest_path, manifest_sha256, manifest, plan,
                             created_at, planned_at)
        VALUES (:name, :provider, :path, :sha256, :manifest, 1, :now, :now)
        ON CONFLICT (name) DO UPDATE SET provider = excluded.provider,
            manifest_path = iif(:partial, manifest_path, excluded.manifest_path),
            manifest = iif(:partial, manifest, excluded.manifest),
            manifest_sha256 = iif(:partial, manifest_sha256, excluded.manifest_sha256),
            plan = batches.plan + 1,
            planned_at = excluded.planned_at
        RETURNING id
        """,
        {
            "name": identity.name,
            "provider": identity.provider,
            "path": identity.manifest_path,
            "sha256": identity.manifest_sha256,
            "manifest": identity.manifest,
            "now": now,
            "partial": identity.partial,
        },
    ).fetchone()
    if identity.adopted is not None:
        move_roots(conn, BatchId(row["id"]), identity.adopted)
    return BatchId(row["id"])
