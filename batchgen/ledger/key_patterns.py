"""Which jobs ``--only`` names: exact keys, and patterns where ``*`` also matches ``/``."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from batchgen.errors import SettingsError
from batchgen.job import BatchId, canonical_json

_MAGIC: Final = re.compile(r"[*?\[]")
_CANDIDATES: Final = 500
_SHOWN: Final = 10

IS_MEANT: Final = (
    "(:only_keys IS NULL OR key IN (SELECT value FROM json_each(:only_keys))"
    " OR EXISTS (SELECT 1 FROM (SELECT value AS pattern FROM json_each(:only_globs))"
    " WHERE key GLOB pattern))"
)
"""A condition on a column ``key``; its values are those of `only_values`."""


@dataclass(frozen=True, slots=True)
class Only:
    """Keys and patterns, of which a job needs to match one."""

    keys: frozenset[str] = frozenset()
    globs: frozenset[str] = frozenset()

    @classmethod
    def of(cls, patterns: Iterable[str]) -> Only | None:
        """Sort keys from patterns; None for no pattern at all, which means every job."""
        found = frozenset(patterns)
        if not found:
            return None
        globs = frozenset(filter(_MAGIC.search, found))
        return cls(found - globs, globs)


def only_values(only: Only | None) -> dict[str, str | None]:
    """Return the values that `IS_MEANT` needs."""
    if only is None:
        return {"only_keys": None, "only_globs": None}
    return {
        "only_keys": canonical_json(sorted(only.keys)),
        "only_globs": canonical_json(sorted(only.globs)),
    }


def resolve_planned(conn: sqlite3.Connection, only: Only | None, name: str) -> Only | None:
    """Match ``only`` with the keys of a staged plan; see `resolve_jobs`."""
    return _resolve(conn, only, name, "staging.planned", {})


def resolve_jobs(
    conn: sqlite3.Connection, only: Only | None, batch: BatchId, name: str
) -> Only | None:
    """Match ``only`` with the keys of a batch, where an exact key wins over its pattern.

    Raises SettingsError, with the nearest key, for what matches no job.
    """
    jobs = "(SELECT key FROM jobs WHERE batch_id = :batch AND retired = 0)"
    return _resolve(conn, only, name, jobs, {"batch": batch})


def _resolve(
    conn: sqlite3.Connection, only: Only | None, name: str, jobs: str, values: dict[str, object]
) -> Only | None:
    if only is None:
        return None
    wanted = only.keys | only.globs
    rows = conn.execute(
        f"SELECT key FROM {jobs} WHERE key IN (SELECT value FROM json_each(:wanted))",
        {**values, "wanted": canonical_json(sorted(wanted))},
    )
    exact = frozenset(row["key"] for row in rows)
    globs = only.globs - exact
    unmatched = sorted(only.keys - exact) + [
        glob
        for glob in sorted(globs)
        if not conn.execute(
            f"SELECT EXISTS (SELECT 1 FROM {jobs} WHERE key GLOB :glob) AS found",
            {**values, "glob": glob},
        ).fetchone()["found"]
    ]
    if unmatched:
        lines = [
            f"--only {pattern!r} matches no job of {name}{_nearest(conn, pattern, jobs, values)}"
            for pattern in unmatched[:_SHOWN]
        ]
        if len(unmatched) > _SHOWN:
            lines.append(f"and {len(unmatched) - _SHOWN:,} more")
        raise SettingsError("\n".join([*lines, "nothing was changed"]))
    return Only(exact, globs)


def _nearest(conn: sqlite3.Connection, pattern: str, jobs: str, values: dict[str, object]) -> str:
    """Return a clause with the nearest key among those with the same beginning."""
    plain = _MAGIC.sub("", pattern)
    for length in range(len(plain), -1, -1):
        prefix = plain[:length]
        rows = conn.execute(
            f"SELECT key FROM {jobs} WHERE substr(key, 1, :length) = :prefix LIMIT :limit",
            {**values, "length": length, "prefix": prefix, "limit": _CANDIDATES},
        ).fetchall()
        if rows:
            keys = [row["key"] for row in rows]
            close = get_close_matches(plain, keys, n=1, cutoff=0.0)
            return f"; the nearest is {close[0]!r}" if close else ""
    return ""
