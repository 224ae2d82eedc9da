"""Jobs of a plan that would be made of the same: counted, or one made for all (``share: true``)."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

from batchgen.job import BatchId
from batchgen.ledger.groups import IS_MEANT, SENT_GROUPS, Group, quoted
from batchgen.ledger.key_patterns import Only, only_values
from batchgen.ledger.staging_rows import PLAN
from batchgen.money import ZERO, Micros


@dataclass(frozen=True, slots=True)
class Repeats:
    """Jobs that a run sends although another one with their fingerprint is sent, or done."""

    jobs: int = 0
    cost: Micros = ZERO


NO_REPEATS: Final = Repeats()

# Jobs of one fingerprint have one price, since it covers all that decides the price.
_REPEATS: Final = f"""
SELECT coalesce(sum(more), 0) AS jobs, coalesce(sum(more * price), 0) AS cost FROM (
    SELECT sum(is_sent) - (sum(is_sent) = count(*)) AS more, max(estimated) AS price FROM (
        SELECT fingerprint, estimated,
            CASE WHEN known.seq IS NULL THEN iif({IS_MEANT}, 1, NULL)
                WHEN grp IN ({quoted(Group.UNCHANGED, Group.MOVED)}) THEN 0
                WHEN grp IN ({SENT_GROUPS}) AND meant THEN 1 END AS is_sent
        FROM {PLAN} LEFT JOIN staging.known ON known.seq = planned.seq
        WHERE NOT is_variant AND refused IS NULL
    ) WHERE is_sent IS NOT NULL GROUP BY fingerprint HAVING count(*) > 1
)
"""

_HAS_REPEATS: Final = """
SELECT 1 FROM staging.planned WHERE refused IS NULL GROUP BY fingerprint HAVING count(*) > 1 LIMIT 1
"""
"""Takes half the time of `_REPEATS`, and most plans have none."""

SHARED: Final = "CREATE TABLE staging.shared (seq INTEGER PRIMARY KEY, leader INTEGER NOT NULL)"
"""Planned jobs that get the image of another one, by their places in the plan."""

# A job that is to be regenerated leads, then one whose image is on disk, then one that is paid:
# else a refresh would bring copies of old images. Jobs with an image of their own keep it.
_FIND: Final = f"""
INSERT INTO staging.shared (seq, leader) SELECT seq, leader FROM (
    SELECT planned.seq AS seq, grp, first_value(planned.seq) OVER (PARTITION BY fingerprint
        ORDER BY CASE WHEN grp IN ({quoted(Group.STALE, Group.REJECTED)}) AND meant THEN 0
            WHEN grp IN ({quoted(Group.UNCHANGED, Group.MOVED)}) THEN 1
            WHEN grp IN ({quoted(Group.PAID, Group.IN_FLIGHT)}) THEN 2
            WHEN {IS_MEANT} THEN 3 ELSE 4 END, planned.seq) AS leader
    FROM {PLAN} LEFT JOIN staging.known ON known.seq = planned.seq
    WHERE NOT is_variant AND refused IS NULL AND fingerprint IN
        (SELECT fingerprint FROM staging.planned GROUP BY 1 HAVING count(*) > 1)
) WHERE seq <> leader
    AND (grp IS NULL OR grp NOT IN ({quoted(Group.UNCHANGED, Group.MOVED, Group.PAID)}))
"""
_FIND_OWN: Final = """
INSERT INTO staging.shared (seq, leader) SELECT id, shares FROM jobs
WHERE batch_id = :batch AND shares IS NOT NULL AND retired = 0
    AND id IN (SELECT seq FROM staging.planned)
"""
_REGROUP: Final = f"""
UPDATE staging.known SET grp = '{Group.SHARED}'
WHERE grp IN ({SENT_GROUPS}) AND seq IN (SELECT seq FROM staging.shared)
"""
_UNSHARE: Final = """
UPDATE jobs SET shares = NULL WHERE batch_id = :batch AND shares IS NOT NULL
    AND (NOT :partial OR id IN (SELECT job FROM staging.known))
"""
_SHARE: Final = """
UPDATE jobs SET shares = leader.id FROM staging.shared
CROSS JOIN staging.planned ON planned.seq = shared.seq
CROSS JOIN staging.planned AS first ON first.seq = shared.leader
CROSS JOIN jobs AS leader ON leader.batch_id = :batch AND leader.key = first.key
WHERE jobs.batch_id = :batch AND jobs.key = planned.key
"""


def find_shared(conn: sqlite3.Connection, only: Only | None) -> None:
    """Decide which staged jobs get the image of another one, over a plan whose groups are known."""
    conn.execute("DELETE FROM staging.shared")
    conn.execute(_FIND, only_values(only))
    conn.execute(_REGROUP)


def find_own_shared(conn: sqlite3.Connection, batch: BatchId) -> None:
    """Find shared jobs, as `find_shared` does, among those that are staged from the ledger."""
    conn.execute("DELETE FROM staging.shared")
    conn.execute(_FIND_OWN, {"batch": batch})
    conn.execute(_REGROUP)


def write_shared(conn: sqlite3.Connection, batch: BatchId, *, partial: bool) -> None:
    """Write into the enrolled jobs which of them share; a ``partial`` plan leaves the others."""
    conn.execute(_UNSHARE, {"batch": batch, "partial": partial})
    conn.execute(_SHARE, {"batch": batch})


def repeats(conn: sqlite3.Connection, only: Only | None) -> Repeats:
    """Count the jobs to send that repeat another one, over a plan whose groups are known.

    Variants, which ``count`` or a repeated line makes, are wanted and do not count.
    """
    if conn.execute(_HAS_REPEATS).fetchone() is None:
        return NO_REPEATS
    row = conn.execute(_REPEATS, only_values(only)).fetchone()
    return Repeats(row["jobs"], Micros(row["cost"]))
