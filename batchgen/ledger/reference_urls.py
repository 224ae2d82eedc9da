"""Reference images by URL: which copy the ledger knows of each, and which a plan needs.

What a plan needs is noted in a temporary table: a plan may name a million URLs.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from batchgen.images.formats import ImageFormat
from batchgen.job import BatchId, JobId
from batchgen.ledger.reference_paths import reference_paths
from batchgen.planning.reference_images import FetchedReference

_PAGE: Final = 500

_NEEDED: Final = """
CREATE TEMP TABLE needed (
    url TEXT PRIMARY KEY, is_here INTEGER NOT NULL, problem TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID
"""
_FETCHED: Final = """
CREATE TEMP TABLE fetched (
    url TEXT PRIMARY KEY, sha256 TEXT NOT NULL, format TEXT NOT NULL, etag TEXT,
    last_modified TEXT, fetched_at TEXT NOT NULL
) WITHOUT ROWID
"""
_KEEP: Final = """
INSERT INTO {table} (url, sha256, format, etag, last_modified, fetched_at)
VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (url) DO UPDATE SET
    sha256 = excluded.sha256, format = excluded.format, etag = excluded.etag,
    last_modified = excluded.last_modified, fetched_at = excluded.fetched_at
"""
_CHANGED_MEANWHILE: Final = "it was not in the manifest when this run fetched its reference images"


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedUrl:
    """What a URL returned when it was fetched last."""

    url: str
    sha256: str
    format: ImageFormat
    etag: str | None
    last_modified: str | None
    fetched_at: str
    """When it was last known to be so."""

    @property
    def file_name(self) -> str:
        """The name of its copy in the cache."""
        return f"{self.sha256}.{self.format.extension}"


class NeededUrls:
    """The URLs that one plan needs, in the order of the planner's requests.

    What they give is noted apart from the ledger until `keep`: a refused run changes no row.
    """

    def __init__(self, conn: sqlite3.Connection, directory: Path) -> None:
        self._conn = conn
        self._directory = directory
        self._is_settled = False
        conn.execute(_NEEDED)
        conn.execute(_FETCHED)

    def find(self, url: str) -> FetchedReference:
        """Return what is known of a URL, and note it as needed."""
        known = self._known(url)
        path = self._directory / known.file_name if known else None
        here = path if path is not None and path.is_file() else None
        return FetchedReference(
            path=here, sha256=known.sha256 if known else None, problem=self._note(url, here)
        )

    def _note(self, url: str, here: Path | None) -> str:
        """Return why a download failed; empty if no run has tried."""
        if not self._is_settled:
            self._conn.execute(
                "INSERT OR IGNORE INTO temp.needed (url, is_here) VALUES (?, ?)",
                (url, here is not None),
            )
            return ""
        row = self._conn.execute("SELECT problem FROM temp.needed WHERE url = ?", (url,)).fetchone()
        return _CHANGED_MEANWHILE if row is None else str(row["problem"])

    def __len__(self) -> int:
        return self._count("true")

    @property
    def missing(self) -> int:
        """How many of them have no copy on this machine."""
        return self._count("is_here = 0")

    def _count(self, condition: str) -> int:
        row = self._conn.execute(
            f"SELECT count(*) AS n FROM temp.needed WHERE {condition}"
        ).fetchone()
        return int(row["n"])

    def __iter__(self) -> Iterator[tuple[str, FetchedUrl | None]]:
        """Yield each URL with what is known of it, a page at a time."""
        after = ""
        while page := self._conn.execute(
            "SELECT url FROM temp.needed WHERE url > ? ORDER BY url LIMIT ?", (after, _PAGE)
        ).fetchall():
            for row in page:
                yield row["url"], self._known(row["url"])
            after = page[-1]["url"]

    def _known(self, url: str) -> FetchedUrl | None:
        row = self._conn.execute("SELECT * FROM temp.fetched WHERE url = ?", (url,)).fetchone()
        return _fetched(row) if row else fetched_url(self._conn, url)

    def settle(self, fetched: Iterable[FetchedUrl], problems: Iterable[tuple[str, str]]) -> None:
        """Note what URLs returned, and why others (URL, why) returned nothing."""
        self._is_settled = True
        self._conn.executemany(
            _KEEP.format(table="temp.fetched"),
            (
                (one.url, one.sha256, one.format, one.etag, one.last_modified, one.fetched_at)
                for one in fetched
            ),
        )
        self._conn.executemany(
            "UPDATE temp.needed SET problem = ? WHERE url = ?",
            ((problem, url) for url, problem in problems),
        )

    def keep(self, conn: sqlite3.Connection) -> None:
        """Write what URLs returned to the ledger, within the transaction of the caller."""
        rows = self._conn.execute(
            "SELECT url, sha256, format, etag, last_modified, fetched_at FROM temp.fetched"
        )
        conn.executemany(_KEEP.format(table="reference_urls"), map(tuple, rows))


def fetched_url(conn: sqlite3.Connection, url: str) -> FetchedUrl | None:
    """Return what a URL returned when it was fetched last, or None."""
    row = conn.execute("SELECT * FROM reference_urls WHERE url = ?", (url,)).fetchone()
    return _fetched(row) if row else None


def urls_of_content(conn: sqlite3.Connection, sha256: str) -> list[FetchedUrl]:
    """Return the URLs that returned this image last, the latest first."""
    rows = conn.execute(
        "SELECT * FROM reference_urls WHERE sha256 = ? ORDER BY fetched_at DESC", (sha256,)
    )
    return [_fetched(row) for row in rows]


def _fetched(row: sqlite3.Row) -> FetchedUrl:
    values = dict(row)
    return FetchedUrl(**{**values, "format": ImageFormat(values["format"])})


def pending_references(
    conn: sqlite3.Connection, batch: BatchId
) -> Iterator[tuple[JobId, list[str]]]:
    """Give each job that may be requested with its files and URLs, its mask last; by pages."""
    after = 0
    while page := conn.execute(
        "SELECT id, images, mask FROM jobs WHERE batch_id = ? AND retired = 0"
        " AND state IN ('pending', 'failed') AND images <> '[]' AND id > ? ORDER BY id LIMIT ?",
        (batch, after, _PAGE),
    ).fetchall():
        for row in page:
            images, mask = reference_paths(conn, row["images"], row["mask"])
            yield JobId(row["id"]), [*images, *([mask] if mask else [])]
        after = page[-1]["id"]
