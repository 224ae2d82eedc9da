"""The status of a batch together with the process that runs it now. Writes nothing."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from batchgen.ledger.batch_status import BatchStatus, LastRun, status
from batchgen.ledger.clock import timestamp
from batchgen.ledger.run_pace import RunPace, run_pace
from batchgen.session.batch_lock import owner_of
from batchgen.system.process_owner import BatchOwner


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveStatus:
    """The status of a batch, and who works on it."""

    status: BatchStatus
    owner: BatchOwner | None
    """The process that holds the batch; None if it is free."""
    pace: RunPace | None
    """None unless a run is alive."""
    now: datetime

    @classmethod
    def ended(cls, status: BatchStatus) -> Self:
        """Return the status of a batch whose run has just ended in this process."""
        return cls(status=status, owner=None, pace=None, now=datetime.now(UTC))

    @property
    def killed_run(self) -> LastRun | None:
        """Return the newest run if it has no end although no process holds the batch."""
        run = self.status.last_run
        is_open = run is not None and run.ended_at is None
        return run if is_open and self.owner is None else None

    @property
    def left_s(self) -> float | None:
        """Return the seconds left at the recent pace; None if the batch does not run."""
        if self.pace is None:
            return None
        return self.pace.left_s(self.status.to_request)

    def as_json(self) -> dict[str, object]:
        """Return the status with ``last_run``, ``running`` and ``killed``.

        ``running`` is None for a batch that no process holds.
        """
        run, owner = self.status.last_run, self.owner
        running: dict[str, object] | None = None
        if owner is not None:
            running = {
                "since": timestamp(owner.since) if owner.since else None,
                "pid": owner.owner.pid or None,
                "host": owner.owner.host,
                "user": owner.owner.user,
                "command": owner.owner.command,
                "images_per_minute": round(self.pace.per_minute, 1) if self.pace else None,
                "seconds_left": None if self.left_s is None else round(self.left_s),
                "last_image_at": _iso(self.pace.last_image_at) if self.pace else None,
                "throttled_last_minute": self.pace.throttled if self.pace else None,
                "learned_per_minute": self.pace.learned_per_minute if self.pace else None,
            }
        return self.status.as_json() | {
            "last_run": run.id if run else None,
            "running": running,
            "killed": self.killed_run is not None,
        }


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else timestamp(moment)


def live_status(conn: sqlite3.Connection, ledger: Path, name: str) -> LiveStatus:
    """Return the status of a batch now. Raises UnknownBatchError."""
    found = status(conn, name)
    owner = owner_of(ledger, name)
    if owner is None and found.last_run is not None and found.last_run.ended_at is None:
        # The run may have ended after the first read; only one that has no end still was killed.
        found = status(conn, name)
    now, run = datetime.now(UTC), found.last_run
    pace = None
    if owner is not None and run is not None and run.ended_at is None:
        pace = run_pace(conn, run.id, run.started_at, now)
    return LiveStatus(status=found, owner=owner, pace=pace, now=now)
