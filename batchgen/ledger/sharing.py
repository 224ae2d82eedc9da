"""Jobs of a plan that would be made of the same: how many repeat another one, and their price."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

from batchgen.ledger.groups import IS_MEANT, SENT_GROUPS, Group, quoted
from batchgen.ledger.only import Only, only_values
from batchgen.ledger.staging import PLAN
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


def repeats(conn: sqlite3.Connection, only: Only | None) -> Repeats:
    """Count the jobs to send that repeat another one, over a plan whose groups are known.

    Variants, which ``count`` or a repeated line makes, are wanted and do not count.
    """
    row = conn.execute(_REPEATS, only_values(only)).fetchone()
    return Repeats(row["jobs"], Micros(row["cost"]))
