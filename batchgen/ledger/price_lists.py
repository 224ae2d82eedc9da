"""Price lists as they were fetched: the newest of each URL, for plans and runs without one."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import datetime

from batchgen.ledger.clock import timestamp


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptList:
    """The text of a price list, and when it was fetched."""

    body: bytes
    fetched_at: datetime


def newest_price_list(conn: sqlite3.Connection, url: str) -> KeptList | None:
    """Return the list that was fetched last from this URL, or None."""
    row = conn.execute("SELECT body, fetched_at FROM price_lists WHERE url = ?", (url,)).fetchone()
    if row is None:
        return None
    return KeptList(body=row["body"], fetched_at=datetime.fromisoformat(row["fetched_at"]))


def keep_price_list(conn: sqlite3.Connection, url: str, kept: KeptList) -> None:
    """Keep this list in place of the one before. Outside a transaction it is durable at once."""
    conn.execute(
        "INSERT INTO price_lists (url, body, fetched_at) VALUES (?, ?, ?) ON CONFLICT (url)"
        " DO UPDATE SET body = excluded.body, fetched_at = excluded.fetched_at",
        (url, kept.body, timestamp(kept.fetched_at)),
    )
