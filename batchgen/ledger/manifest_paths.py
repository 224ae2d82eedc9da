"""Where the manifest of a batch lies: kept relative to the ledger, so that both can be moved."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from batchgen.errors import SettingsError
from batchgen.job import BatchId
from batchgen.ledger.batches import BatchRow, batch_id, find_batch
from batchgen.urls import is_bucket

_SAMPLE: Final = 20
"""Images of a root that are looked for to learn where the root is."""


def stored_path(manifest: Path, ledger: Path) -> str:
    """Return the path of a manifest as the ledger keeps it: relative, with ``/``.

    Absolute only where no relative path exists, as between drives of Windows.
    """
    place = manifest.parent.resolve() / manifest.name
    try:
        return Path(os.path.relpath(place, ledger.parent)).as_posix()
    except ValueError:
        return str(place)


def manifest_path(ledger: Path, stored: str) -> Path:
    """Return where a stored manifest path leads, seen from the ledger's present directory."""
    return Path(os.path.normpath(ledger.parent / stored))


def manifest_of(ledger: Path, batch: BatchRow) -> Path:
    """Return the manifest's path; its directory, which all output is relative to, exists.

    Raises SettingsError where the directory is missing: what lies below it is not lost, and must be
    neither made again nor counted as removed.
    """
    path = manifest_path(ledger, batch.manifest_path)
    if not path.parent.is_dir():
        raise SettingsError(
            f"{batch.name}: the directory of its manifest does not exist: {path.parent}; nothing"
            " was changed. Mount it or move it back; if it has moved, run the manifest once where"
            f" it is now: batchgen run DIR/{path.name} --db {ledger}"
        )
    return path


def base_of(ledger: Path, batch: BatchRow) -> Path:
    """Return the directory that output paths of a batch are relative to. Raises SettingsError."""
    return manifest_of(ledger, batch).parent


def known_base(conn: sqlite3.Connection, name: str, ledger: Path) -> Path | None:
    """Return what `base_of` does, or None for a name that no batch has. Raises SettingsError."""
    if batch_id(conn, name) is None:
        return None
    return base_of(ledger, find_batch(conn, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """A known batch that continues with a manifest at another path."""

    was: Path
    now: Path

    def notice(self, name: str) -> str:
        """Return the line that says so."""
        return f"{name}: its manifest was {self.was}, and is {self.now} from now on"


def adoption(conn: sqlite3.Connection, name: str, manifest: Path, ledger: Path) -> Adoption | None:
    """Return what changes if a batch continues with this manifest; None where nothing does."""
    row = conn.execute("SELECT manifest_path FROM batches WHERE name = ?", (name,)).fetchone()
    if row is None:
        return None
    was = manifest_path(ledger, row["manifest_path"])
    now = manifest.parent.resolve() / manifest.name
    if was == now or _same_file(was, now):
        return None
    return Adoption(was=was, now=now)


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def check_manifest(
    conn: sqlite3.Connection, name: str, manifest: Path, ledger: Path, *, adopt: bool
) -> Adoption | None:
    """Refuse another manifest under the name of a batch. Raises SettingsError.

    Not where ``adopt`` is set, and not where the manifest that it belonged to is gone.
    """
    found = adoption(conn, name, manifest, ledger)
    if found is None or adopt or not os.path.lexists(found.was):
        return found
    raise SettingsError(
        f"{found.now}: the batch {name!r} of {ledger} belongs to another manifest: {found.was};"
        " expected one manifest per batch; nothing was changed. Give this one a name of its own"
        f" (`name: {found.now.parent.name or 'other'}-{found.now.stem}`) or a ledger of its own"
        " (--db FILE); if it replaces the other manifest, pass --adopt"
    )


def move_roots(conn: sqlite3.Connection, batch: BatchId, found: Adoption) -> None:
    """Let roots of images lead to where the images are, seen from the new manifest's directory.

    After a move of the whole directory they do already. After a move of the manifest alone the
    images are still below its old directory. Runs inside the caller's transaction.
    """
    old, new = found.was.parent, found.now.parent
    if old == new or not old.is_dir():
        return
    of_batch = "job_id IN (SELECT id FROM jobs WHERE batch_id = ?)"
    roots = conn.execute(f"SELECT DISTINCT root FROM images WHERE {of_batch}", (batch,)).fetchall()
    for (root,) in roots:
        if Path(root).is_absolute() or is_bucket(root):
            continue
        sample = conn.execute(
            f"SELECT path FROM images WHERE root = ? AND state = 'saved' AND {of_batch} LIMIT ?",
            (root, batch, _SAMPLE),
        ).fetchall()
        here = sum((new / root / path).exists() for (path,) in sample)
        there = sum((old / root / path).exists() for (path,) in sample)
        if there > here:
            conn.execute(
                f"UPDATE images SET root = ? WHERE root = ? AND {of_batch}",
                (stored_path(old / root, new / "ledger"), root, batch),
            )
