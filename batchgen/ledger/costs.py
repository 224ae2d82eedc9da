"""The ledger's money, summed by batch, run, day, month, model, provider or tag. Never writes."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Final

from batchgen.job import BatchId
from batchgen.ledger.sums import CHARGED, POSSIBLE, UNPRICED
from batchgen.money import Micros, decimal_string


class CostBy(StrEnum):
    """What attempts are grouped by."""

    BATCH = "batch"
    RUN = "run"
    DAY = "day"
    """The day in UTC on which the request left."""
    MONTH = "month"
    """The month in UTC in which the request left."""
    MODEL = "model"
    PROVIDER = "provider"
    TAG = "tag"
    """A job with several tags counts in the row of each; without one, in a row without a name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostSum:
    """Attempts, the images they brought, and their money."""

    made: int
    """Images that were saved, including those that a later one has replaced."""
    accepted: int
    """Images that count now."""
    attempts: int
    estimated: Micros
    """Each requested image once, at its price when it was first requested."""
    charged: Micros
    maybe: Micros
    """Possibly charged beyond ``charged``."""
    unpriced: int = 0
    """Attempts that cost money, or may, at a price that nothing says; they are in no sum."""

    @property
    def per_accepted(self) -> Micros | None:
        """What was charged for each accepted image, rounded half up; None without any."""
        if not self.accepted or self.unpriced:
            return None
        return Micros((2 * self.charged + self.accepted) // (2 * self.accepted))

    def as_record(self) -> dict[str, int | str | None]:
        """Return the sums as a JSON object, money as decimal strings in dollars."""
        each = self.per_accepted
        return {
            "made": self.made,
            "accepted": self.accepted,
            "attempts": self.attempts,
            "estimated": decimal_string(self.estimated),
            "charged": decimal_string(self.charged),
            "maybe": decimal_string(self.maybe),
            "per_accepted": None if each is None else decimal_string(each),
            "unpriced": self.unpriced,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRow:
    """The sums of one group."""

    group: tuple[str | int | None, ...]
    """A value for each thing that is grouped by, in that order."""
    sums: CostSum


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Groups with their sums, and the total."""

    by: tuple[CostBy, ...]
    rows: tuple[CostRow, ...]
    total: CostSum
    """Each attempt once, also where jobs with several tags are in several rows."""

    def records(self) -> list[dict[str, int | str | None]]:
        """Return the rows as JSON objects, the group's values first."""
        names = [one.value for one in self.by]
        return [
            {**dict(zip(names, row.group, strict=True)), **row.sums.as_record()}
            for row in self.rows
        ]


_VALUE: Final = {
    CostBy.BATCH: "batches.name",
    CostBy.RUN: "runs.id",
    CostBy.DAY: "substr(attempts.started_at, 1, 10)",
    CostBy.MONTH: "substr(attempts.started_at, 1, 7)",
    CostBy.MODEL: "attempts.model",
    CostBy.PROVIDER: "attempts.provider",
    CostBy.TAG: "tags.value",
}
_MADE: Final = "state IN ('saved', 'replaced')"
_ACCEPTED: Final = "state = 'saved'"
"""Which images count: all that are on disk, as long as no person has rejected one."""
_SUMS: Final = f"""
    coalesce(sum((SELECT count(*) FROM images WHERE attempt_id = attempts.id AND {_MADE})), 0)
        AS made,
    coalesce(sum((SELECT count(*) FROM images WHERE attempt_id = attempts.id AND {_ACCEPTED})), 0)
        AS accepted,
    count(*) AS attempts,
    coalesce(sum(iif(
        (SELECT before.outcome <> 'ok' AND before.fingerprint = attempts.fingerprint
         FROM attempts AS before
         WHERE before.job_id = attempts.job_id AND before.rowid < attempts.rowid
         ORDER BY before.rowid DESC LIMIT 1),
        0, price)), 0) AS estimated,
    coalesce(sum({CHARGED}), 0) AS charged,
    coalesce(sum({POSSIBLE}), 0) AS maybe,
    coalesce(sum({UNPRICED}), 0) AS unpriced
"""
# CROSS JOIN keeps this order: the runs of a batch or of a time by their index, then their attempts.
_ATTEMPTS: Final = """
    batches CROSS JOIN runs ON runs.batch_id = batches.id
    CROSS JOIN attempts ON attempts.run_id = runs.id
"""
_TAGS: Final = """
    CROSS JOIN jobs ON jobs.id = attempts.job_id LEFT JOIN json_each(jobs.tags) AS tags
"""


def costs(
    conn: sqlite3.Connection,
    by: Sequence[CostBy],
    *,
    batch: BatchId | None = None,
    since: date | None = None,
    until: date | None = None,
) -> Costs:
    """Sum the attempts of a batch, or of all, that left from ``since`` to the end of ``until``.

    Jobs without a request so far cost nothing and are in no row.
    """
    where, values = _chosen(batch, since, until)
    # One read transaction, so that the rows and their total are of the same moment.
    conn.execute("BEGIN")
    try:
        rows = _rows(conn, by, where, values)
        (total,) = _rows(conn, (), where, values)
    finally:
        conn.execute("ROLLBACK")
    return Costs(by=tuple(by), rows=tuple(rows), total=total.sums)


def _chosen(
    batch: BatchId | None, since: date | None, until: date | None
) -> tuple[str, dict[str, object]]:
    clauses, values = [], dict[str, object]()
    if batch is not None:
        clauses.append("batches.id = :batch")
        values["batch"] = batch
    if since is not None:
        # The run's own times spare a look at the attempts of runs that were over before.
        clauses.append("attempts.started_at >= :since")
        clauses.append("(runs.ended_at IS NULL OR runs.ended_at >= :since)")
        values["since"] = since.isoformat()
    if until is not None:
        clauses.append("attempts.started_at < :until AND runs.started_at < :until")
        values["until"] = f"{until.isoformat()}~"  # sorts after every moment of the day
    return " AND ".join(clauses) or "true", values


def _rows(
    conn: sqlite3.Connection, by: Sequence[CostBy], where: str, values: dict[str, object]
) -> list[CostRow]:
    groups = [_VALUE[one] for one in by]
    tags = _TAGS if CostBy.TAG in by else ""
    order = f" GROUP BY {', '.join(groups)} ORDER BY {', '.join(groups)}" if groups else ""
    found = conn.execute(
        f"SELECT {_SUMS}{''.join(f', {group}' for group in groups)}"
        f" FROM {_ATTEMPTS}{tags} WHERE {where}{order}",
        values,
    )
    return [_row(row) for row in found]


def _row(row: sqlite3.Row) -> CostRow:
    made, accepted, attempts, estimated, charged, maybe, unpriced, *group = row
    return CostRow(
        group=tuple(group),
        sums=CostSum(
            made=made,
            accepted=accepted,
            attempts=attempts,
            estimated=Micros(estimated),
            charged=Micros(charged),
            maybe=Micros(maybe),
            unpriced=unpriced,
        ),
    )
