"""What all runs of a ledger know about the rate of a key: the next free start, and the pace.

A provider counts the requests of a key, whichever process sends them.
"""

from __future__ import annotations

import hashlib
import math
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_MAX_AHEAD_S: Final = 3600.0
"""No place is so far away."""
_PRECISION_S: Final = 1e-3
_MAX_PACE_AGE_S: Final = 86_400.0
"""An older pace is not used: limits change."""
_STEP_S: Final = 1.0
"""A clock that is set back by less than this, as time servers do, changes nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedRate:
    """One limit of a key: ``unit`` is ``requests`` or ``images``."""

    unit: str
    interval_s: float
    """Between two units at the even rate."""
    burst: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedPace:
    """A pace that a run learned from 429s, see `batchgen.engine.throttle.pace`."""

    kind: str
    value: float | None
    """None while nothing was learned."""
    changed_at: float
    """When a 429 last changed it, in Unix seconds; minus infinity before the first."""


def key_id(base_url: str, key: str | None) -> str:
    """Return the name of a key in the ledger, which must not contain the key."""
    return hashlib.sha256(f"{base_url}\n{key or ''}".encode()).hexdigest()[:16]


def take_place(
    conn: sqlite3.Connection, key: str, rates: Sequence[tuple[SharedRate, int]], now: float
) -> float:
    """Reserve the next place for a number of units of each rate; return the seconds until then.

    ``now`` is in Unix seconds, which all processes share. A bucket as one due time (GCRA), as in
    the throttle: even spacing, with a burst on top. Runs inside a transaction of its caller.
    """
    wait_s = 0.0
    for rate, units in rates:
        row = conn.execute(
            "SELECT due, taken_at FROM rates WHERE key = ? AND unit = ?", (key, rate.unit)
        ).fetchone()
        due = float(row["due"]) if row is not None else now
        taken_at = float(row["taken_at"]) if row is not None else now
        if due > now + _MAX_AHEAD_S or taken_at > now + _STEP_S:
            due = now  # the clock was ahead when that place was given: nothing waits there
        start = due - max(0, rate.burst - units) * rate.interval_s
        wait_s = max(wait_s, start - now)
        conn.execute(
            "INSERT INTO rates (key, unit, due, taken_at) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (key, unit) DO UPDATE"
            " SET due = excluded.due, taken_at = excluded.taken_at",
            (key, rate.unit, max(now, due) + units * rate.interval_s, now),
        )
    return wait_s


def share_pace(
    conn: sqlite3.Connection, key: str, ours: SharedPace, now: float
) -> SharedPace | None:
    """Store a run's pace of a key, or return that of another run if it is newer.

    ``now`` is in Unix seconds. A stored pace of the future, or of more than a day ago, is ignored.
    """
    row = conn.execute(
        "SELECT value, changed_at FROM paces WHERE key = ? AND kind = ?", (key, ours.kind)
    ).fetchone()
    stored_at = -math.inf if row is None else float(row["changed_at"])
    is_usable = now - _MAX_PACE_AGE_S < stored_at <= now + _STEP_S
    if is_usable and stored_at > ours.changed_at + _PRECISION_S:
        return SharedPace(kind=ours.kind, value=float(row["value"]), changed_at=stored_at)
    is_news = ours.changed_at > stored_at + _PRECISION_S or not is_usable
    if ours.value is not None and math.isfinite(ours.changed_at) and is_news:
        conn.execute(
            "INSERT INTO paces (key, kind, value, changed_at) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (key, kind) DO UPDATE"
            " SET value = excluded.value, changed_at = excluded.changed_at",
            (key, ours.kind, ours.value, ours.changed_at),
        )
    return None
