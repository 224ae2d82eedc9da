"""The open ledger: what every step of a run needs.

The steps are functions that take a `Ledger` first. They live in ``runs.py``, ``jobs.py``,
``attempts.py``, ``images.py`` and ``copies.py``. No step commits: ``writer.py`` groups the steps
that wait into one ``BEGIN IMMEDIATE``.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import datetime

from batchgen.job import RunId
from batchgen.ledger.clock import Clock, timestamp, utc_now


@dataclass(slots=True)
class Ledger:
    """An open connection, its clock, and the run of this process."""

    conn: sqlite3.Connection
    clock: Clock = utc_now
    current_run: RunId | None = None
    """The run whose heartbeat this connection keeps; None before its start and after its end."""

    def now(self) -> datetime:
        """Return the current time in UTC."""
        return self.clock()

    def timestamp(self) -> str:
        """Return the current time as the ledger stores it."""
        return timestamp(self.clock())
