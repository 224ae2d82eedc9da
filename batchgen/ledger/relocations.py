"""Saved images that a plan wants elsewhere, while their files are moved."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from batchgen.ledger.transaction import write_transaction
from batchgen.planning.naming import PENDING_DIRECTORY

TABLES: Final = (
    """
    CREATE TABLE staging.moves (
        image INTEGER PRIMARY KEY, job INTEGER NOT NULL, key TEXT NOT NULL, root TEXT NOT NULL,
        path TEXT NOT NULL, sha256 TEXT NOT NULL, new_root TEXT NOT NULL, new_path TEXT NOT NULL
    )
    """,
    "CREATE INDEX staging.moves_by_place ON moves(root, path)",
)
STAY: Final = f"""
UPDATE jobs SET root = moves.root,
    path = iif(moves.path GLOB '{PENDING_DIRECTORY}/*',
        substr(moves.path, {len(PENDING_DIRECTORY) + 2}), moves.path)
FROM staging.moves WHERE jobs.id = moves.job AND jobs.state = 'done'
"""
"""Leaves the place of an image that could not be moved with its job, so that the next plan sees
the difference. A planned path always holds the placeholder of the extension, this one never."""
_PAGE: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A saved image that the plan wants elsewhere."""

    image: int
    job: int
    key: str
    root: str
    path: str
    sha256: str
    format: str
    rank: int
    new_root: str
    new_path: str
    """As planned, with ``{ext}``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contested:
    """A saved image of a returning or moving job, at whose place another job saved one too."""

    image: int
    root: str
    path: str
    sha256: str
    is_in_use: bool
    """Whether the plan has a job whose image is recorded at that place, besides its own."""


@dataclass(frozen=True, slots=True)
class Relocation:
    """One image, the place it has and the place it is planned for; paths with extensions."""

    image: int
    job: int
    key: str
    root: str
    path: str
    sha256: str
    new_root: str
    new_path: str


class Relocations:
    """The images that are not at their planned places yet; private to a connection."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._conn = conn

    def add(self, found: Iterable[Relocation]) -> None:
        """Append images."""
        self._conn.executemany(
            "INSERT INTO staging.moves VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (r.image, r.job, r.key, r.root, r.path, r.sha256, r.new_root, r.new_path)
                for r in found
            ],
        )

    def pages(self, *, backwards: bool = False) -> Iterator[list[Relocation]]:
        """Yield what is left in pages; a page may be removed before the next is read."""
        last = 1 << 62 if backwards else 0
        beyond, order = ("<", "DESC") if backwards else (">", "ASC")
        while True:
            rows = self._conn.execute(
                f"SELECT * FROM staging.moves WHERE image {beyond} ? ORDER BY image {order}"
                " LIMIT ?",
                (last, _PAGE),
            ).fetchall()
            if not rows:
                return
            yield [Relocation(*row) for row in rows]
            last = rows[-1]["image"]

    def leaves(self, root: str, path: str) -> bool:
        """Return whether the image at a place is to be moved from there."""
        row = self._conn.execute(
            "SELECT 1 FROM staging.moves WHERE root = ? AND path = ?", (root, path)
        ).fetchone()
        return row is not None

    def done(self, moved: list[Relocation]) -> None:
        """Write that images have their planned places."""
        with write_transaction(self._conn):
            self._conn.executemany(
                "UPDATE images SET root = ?, path = ? WHERE id = ?",
                [(one.new_root, one.new_path, one.image) for one in moved],
            )
        self._conn.executemany(
            "DELETE FROM staging.moves WHERE image = ?", [(one.image,) for one in moved]
        )

    def stay(self) -> None:
        """Write that what is left is not at its planned place, regardless of the next plan."""
        with write_transaction(self._conn):
            self._conn.execute(STAY)
