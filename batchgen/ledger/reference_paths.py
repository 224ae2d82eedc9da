"""Paths of reference images: kept relative to the ledger, so that both can be moved."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path, PurePosixPath

from batchgen.job import PlannedJob
from batchgen.urls import is_url


class ReferencePaths:
    """Converts the paths of reference images of a plan to the form that the ledger keeps.

    A path below the manifest's directory or next to the ledger becomes relative to the ledger's
    directory. Any other path stays absolute: what is outside does not move with the ledger.
    """

    def __init__(self, base: Path, ledger: Path) -> None:
        """``base`` is the directory of the manifest."""
        self._prefixes = {f"{ledger.parent}{os.sep}": ""}
        try:
            way = Path(os.path.relpath(base.resolve(), ledger.parent)).as_posix()
        except ValueError:  # on another drive of Windows
            return
        self._prefixes[f"{base}{os.sep}"] = "" if way == "." else f"{way}/"

    def stored(self, job: PlannedJob) -> PlannedJob:
        """Return the job with its paths as the ledger keeps them."""
        if not job.images:
            return job
        mask = job.mask and self._stored(job.mask)
        return job._replace(images=tuple(map(self._stored, job.images)), mask=mask)

    def _stored(self, path: str) -> str:
        for prefix, way in self._prefixes.items():
            if path.startswith(prefix):
                return f"{way}{Path(path[len(prefix) :]).as_posix()}"
        return path


def reference_path(stored: str, directory: Path | None) -> str:
    """Return the absolute path of a stored one, seen from the ledger's present directory.

    A URL stays as it is. So does a path of a plan in memory, whose ``directory`` is None.
    """
    if directory is None or is_url(stored):
        return stored
    way = PurePosixPath(stored)
    while way.parts[:1] == ("..",):
        # The ledger's directory has no symbolic links, so this is where the system would go.
        directory, way = directory.parent, PurePosixPath(*way.parts[1:])
    return str(directory / way)


def reference_paths(
    conn: sqlite3.Connection, images: str, mask: str | None
) -> tuple[tuple[str, ...], str | None]:
    """Return the absolute paths of the images of a job, a JSON list, and of its mask."""
    if images == "[]":
        return (), mask
    directory = ledger_directory(conn)
    found = tuple(reference_path(stored, directory) for stored in json.loads(images))
    return found, mask and reference_path(mask, directory)


def ledger_directory(conn: sqlite3.Connection) -> Path | None:
    """Return the directory of the ledger of a connection; None for one in memory."""
    for _, name, file in conn.execute("PRAGMA database_list"):
        if name == "main":
            return Path(file).parent if file else None
    return None
