"""Who owns a place in the output directories, as far as the ledger knows."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from batchgen.job import BatchId, JobId
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.manifest_paths import manifest_path
from batchgen.ledger.staging_rows import CollisionKey
from batchgen.ledger.value_rows import with_rows
from batchgen.urls import is_bucket

ROOTS: Final = """
INSERT OR IGNORE INTO output_roots (batch_id, root)
SELECT DISTINCT :batch, root FROM staging.kinds
"""
"""Remembers the output directories of a batch, so that other plans need not read its jobs."""


@dataclass(frozen=True, slots=True)
class PathHistory:
    """What the ledger knows of a place, for one job."""

    is_own: bool
    """Whether an image of the job is there, or was about to be placed there."""
    hashes: frozenset[str]
    """Digests of all images that the job ever had there."""


NOTHING_KNOWN: Final = PathHistory(is_own=False, hashes=frozenset())
"""Of a job that never had an image."""


@dataclass(frozen=True, slots=True)
class JobPlace:
    """A place where a job may have an image."""

    job: JobId
    root: str
    path: str


def path_history(ledger: Ledger, job: JobId, root: str, path: str) -> PathHistory:
    """Look up what a job has at a place, and had there before."""
    return path_histories(ledger, [JobPlace(job, root, path)])[0]


def path_histories(ledger: Ledger, places: Sequence[JobPlace]) -> list[PathHistory]:
    """Look up what jobs have at places, and had there before."""
    clause, values = with_rows(
        ("number", "owner", "base", "name"),
        [(number, one.job, one.root, one.path) for number, one in enumerate(places)],
    )
    rows = ledger.conn.execute(f"{clause} {_HISTORIES}", values).fetchall()
    found: list[list[sqlite3.Row]] = [[] for _ in places]
    for row in rows:
        found[row["number"]].append(row)
    return [
        PathHistory(
            is_own=any(row["state"] != "replaced" for row in ours),
            hashes=frozenset(row["sha256"] for row in ours if row["sha256"]),
        )
        for ours in found
    ]


# CROSS JOIN keeps this order: the few places first, never all images.
_HISTORIES: Final = """
    SELECT number, state, sha256 FROM one CROSS JOIN images ON job_id = owner AND root = base
    AND path = name AND state IN ('saved', 'due', 'replaced')
"""


def batch_name_of_job(ledger: Ledger, job: JobId) -> str:
    """Return the name of the batch that a job belongs to."""
    (name,) = ledger.conn.execute(
        "SELECT name FROM batches WHERE id = (SELECT batch_id FROM jobs WHERE id = ?)", (job,)
    ).fetchone()
    return str(name)


@dataclass(frozen=True, slots=True)
class Claimed:
    """A planned place that a job of another batch has."""

    key: str
    source: str
    root: str
    path: str
    """As planned, with ``{ext}``."""
    owner: str
    """The other batch."""
    owner_key: str


@dataclass(frozen=True, slots=True)
class Place:
    """A batch that is planned, and where."""

    name: str
    base: Path
    """What its output directories are relative to."""
    ledger: Path


def claimed_places(
    conn: sqlite3.Connection, planned: Place, collision_key: CollisionKey
) -> Iterator[Claimed]:
    """Find places of the staged plan that live jobs of other batches have.

    Other batches are read only where they share an output directory with the plan, or one lies
    inside the other.
    """
    ours = [(root, _folded(planned.base, root)) for root in staged_roots(conn)]
    for other in _roots_of_others(conn, planned):
        for root, place in ours:
            if _overlap(place, other.place):
                yield from _claimed_below(conn, other, root, place, collision_key)


@dataclass(frozen=True, slots=True)
class _OtherRoot:
    """An output directory of another batch."""

    batch: int
    name: str
    root: str
    """As that batch spells it."""
    place: str
    """Its absolute path, in lower case."""


def _folded(base: Path, root: str) -> str:
    """Return one absolute path for all spellings of an output directory."""
    if is_bucket(root):
        return root.lower()
    return os.path.normpath(base.absolute() / root).lower()


def _below(place: str, path: str) -> str:
    """Return one spelling for a path below an output directory of another batch."""
    return f"{place}/{path}".lower() if is_bucket(place) else _folded(Path(place), path)


def _overlap(one: str, other: str) -> bool:
    """Return whether two directories are the same, or one is inside the other."""
    return one == other or one.startswith(other + os.sep) or other.startswith(one + os.sep)


def staged_roots(conn: sqlite3.Connection) -> list[str]:
    """Return the output directories of the staged plan, as it spells them."""
    rows = conn.execute("SELECT DISTINCT root FROM staging.kinds ORDER BY root")
    return [row["root"] for row in rows]


def roots_of(conn: sqlite3.Connection, batch: BatchId) -> list[str]:
    """Return the output directories that a batch has or had."""
    rows = conn.execute("SELECT root FROM output_roots WHERE batch_id = ? ORDER BY root", (batch,))
    return [row["root"] for row in rows]


def _roots_of_others(conn: sqlite3.Connection, planned: Place) -> list[_OtherRoot]:
    rows = conn.execute(
        "SELECT batches.id AS id, name, manifest_path, root FROM output_roots"
        " JOIN batches ON batches.id = batch_id WHERE name <> ? ORDER BY 1, 4",
        (planned.name,),
    )
    return [
        _OtherRoot(
            row["id"],
            row["name"],
            row["root"],
            _folded(manifest_path(planned.ledger, row["manifest_path"]).parent, row["root"]),
        )
        for row in rows
    ]


def _claimed_below(
    conn: sqlite3.Connection,
    other: _OtherRoot,
    root: str,
    place: str,
    collision_key: CollisionKey,
) -> Iterator[Claimed]:
    """Find what another batch has below an output directory of the plan."""
    above = place.rstrip(os.sep) + os.sep
    conn.execute("DELETE FROM staging.others")
    rows = conn.execute(
        "SELECT key, path FROM jobs WHERE batch_id = ? AND retired = 0 AND root = ?",
        (other.batch, other.root),
    )
    conn.executemany(
        "INSERT INTO staging.others VALUES (?, ?, ?)",
        (
            (hash(collision_key(root, full[len(above) :])), row["key"], full[len(above) :])
            for row in rows
            if (full := _below(other.place, row["path"])).startswith(above)
        ),
    )
    found = conn.execute(
        "SELECT planned.key AS key, source, kinds.root AS root, planned.path AS path,"
        " others.key AS owner_key, others.path AS owner_path"
        " FROM staging.planned CROSS JOIN staging.kinds ON kinds.id = planned.kind"
        " CROSS JOIN staging.others ON others.place_hash = planned.place_hash"
        " WHERE kinds.root = ? ORDER BY seq",
        (root,),
    )
    for row in found:
        ours = collision_key(root, row["path"])
        if ours == collision_key(root, row["owner_path"]):
            yield Claimed(
                row["key"], row["source"], root, row["path"], other.name, row["owner_key"]
            )
