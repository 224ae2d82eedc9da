"""What people and other programs read from the ledger: batches, status, exports. Never writes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from batchgen.errors import UnknownBatchError
from batchgen.job import BatchId, Billed, JobState
from batchgen.ledger.paid_images import WaitingImages, waiting_images
from batchgen.ledger.sums import CHARGED, POSSIBLE, UNPRICED
from batchgen.ledger.uncertain import UncertainSums, uncertain_sums
from batchgen.money import Micros, decimal_string

EXPORTS: Final = ("jobs", "attempts", "images")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRow:
    """A batch as the ledger keeps it."""

    id: BatchId
    name: str
    provider: str
    manifest_path: str
    manifest: str
    manifest_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonCount:
    """How many jobs of a state share a reason, with one example."""

    state: JobState
    code: str
    jobs: int
    example_key: str
    example: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LastRun:
    """The newest run of a batch."""

    id: int
    started_at: str
    ended_at: str | None
    estimate: Micros
    reserved: Micros
    charged: Micros
    maybe: Micros
    stopped: str | None
    exit_code: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStatus:
    """Everything ``batchgen status`` shows of one batch."""

    batch: str
    provider: str
    jobs: dict[JobState, int]
    """All seven states, without retired jobs."""
    retired: int
    images_saved: int
    attempts: dict[Billed, int]
    in_flight: int
    """Attempts on record whose end is not known yet."""
    estimated: Micros
    charged: Micros
    maybe: Micros
    reasons: tuple[ReasonCount, ...]
    waiting: WaitingImages | None
    """Paid images whose download has failed so far."""
    last_run: LastRun | None
    held: UncertainSums
    unpriced: int = 0
    """Attempts that cost money, or may, at an unknown price; they are in no sum."""

    @property
    def uncertain(self) -> int:
        """Uncertain jobs that no person has acknowledged."""
        return self.jobs[JobState.UNCERTAIN] - self.held.acknowledged

    @property
    def unsettled(self) -> int:
        """Attempts that ended and of which a log may say whether they are charged."""
        return self.attempts[Billed.MAYBE] - self.in_flight

    @property
    def shown_jobs(self) -> dict[str, int]:
        """How many jobs are in each state; acknowledged ones are a state of their own here."""
        shown = {state.value: count for state, count in self.jobs.items()}
        return shown | {
            JobState.UNCERTAIN.value: self.uncertain,
            "acknowledged": self.held.acknowledged,
        }

    @property
    def unfinished(self) -> int:
        """Jobs that a run still has to do with."""
        states = (JobState.PENDING, JobState.SENDING, JobState.PAID)
        return sum(self.jobs[state] for state in states)

    @property
    def troubled(self) -> int:
        """Jobs that wait for a person."""
        return self.jobs[JobState.FAILED] + self.jobs[JobState.BLOCKED] + self.uncertain

    def as_json(self) -> dict[str, object]:
        """The object that other programs rely on (README, ``status --json``)."""
        billed = self.attempts
        return {
            "batch": self.batch,
            "jobs": self.shown_jobs,
            "retired": self.retired,
            "images": {"saved": self.images_saved},
            "attempts": {
                "total": sum(billed.values()),
                "billed": billed[Billed.YES],
                "maybe": billed[Billed.MAYBE],
                "not_billed": billed[Billed.NO],
            },
            "cost": {
                "currency": "USD",
                "estimated": decimal_string(self.estimated),
                "charged": decimal_string(self.charged),
                "maybe": decimal_string(self.maybe),
                "unpriced": self.unpriced,
            },
            "uncertain_sums": self.held.as_json(),
            "waiting": self.waiting.as_json() if self.waiting else None,
            "stopped": self.last_run.stopped if self.last_run else None,
        }


def batch_names(conn: sqlite3.Connection) -> list[str]:
    """All batches, the one that was planned last first."""
    return [
        row["name"] for row in conn.execute("SELECT name FROM batches ORDER BY planned_at DESC")
    ]


def find_batch(conn: sqlite3.Connection, name: str) -> BatchRow:
    """The batch of that name. Raises UnknownBatchError, which lists those there are."""
    row = conn.execute(
        "SELECT id, name, provider, manifest_path, manifest, manifest_sha256 FROM batches"
        " WHERE name = ?",
        (name,),
    ).fetchone()
    if row is None:
        known = ", ".join(batch_names(conn)[:20]) or "none yet"
        raise UnknownBatchError(f"no batch {name!r} in this ledger; it holds: {known}")
    return BatchRow(**dict(row))


def batch_id(conn: sqlite3.Connection, name: str) -> BatchId | None:
    """The batch of that name, or None."""
    row = conn.execute("SELECT id FROM batches WHERE name = ?", (name,)).fetchone()
    return None if row is None else BatchId(row["id"])


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenWork:
    """What a run would have to do with."""

    jobs: int
    cost: Micros
    """Of those that a request would be sent for."""


def jobs_with_money(conn: sqlite3.Connection, batch: BatchId) -> int:
    """Count the jobs to recover or to download, retired ones too: money is in them."""
    (jobs,) = conn.execute(
        "SELECT count(*) FROM jobs"
        " WHERE batch_id = ? AND retired IN (0, 1) AND state IN ('sending', 'paid')",
        (batch,),
    ).fetchone()
    return int(jobs)


def unpriced_models(conn: sqlite3.Connection, batch: BatchId) -> dict[str, int]:
    """Pending jobs whose price is 0, by model: where no price is set, theirs is unknown."""
    rows = conn.execute(
        "SELECT model, count(*) FROM jobs WHERE batch_id = ? AND retired = 0"
        " AND state = 'pending' AND estimated = 0 GROUP BY model",
        (batch,),
    )
    return {row[0]: row[1] for row in rows}


def status(conn: sqlite3.Connection, name: str) -> BatchStatus:
    """Counts, money and reasons of a batch. Raises UnknownBatchError."""
    batch = find_batch(conn, name)
    if conn.in_transaction:
        return _status(conn, batch)
    # One read transaction, so that counts and money are of the same moment.
    conn.execute("BEGIN")
    try:
        return _status(conn, batch)
    finally:
        conn.execute("ROLLBACK")


def _jobs(conn: sqlite3.Connection, batch: BatchId, tally: sqlite3.Row) -> dict[JobState, int]:
    """How many jobs are in each state: the rare ones are counted, and what is left is pending."""
    jobs = dict.fromkeys(JobState, 0)
    jobs[JobState.DONE] = tally["done"]
    for row in conn.execute(
        "SELECT state, count(*) AS n FROM jobs WHERE batch_id = ? AND retired = 0 AND state IN"
        " ('sending', 'paid', 'failed', 'blocked', 'uncertain') GROUP BY state",
        (batch,),
    ):
        jobs[JobState(row["state"])] = row["n"]
    jobs[JobState.PENDING] = tally["jobs"] - tally["retired"] - sum(jobs.values())
    return jobs


def _status(conn: sqlite3.Connection, batch: BatchRow) -> BatchStatus:
    tally = conn.execute(
        "SELECT jobs, retired, estimated, done, saved FROM tallies WHERE batch_id = ?", (batch.id,)
    ).fetchone()
    attempts = dict.fromkeys(Billed, 0)
    in_flight = 0
    for row in conn.execute(
        "SELECT billed, outcome, count(*) AS n FROM attempts"
        " WHERE run_id IN (SELECT id FROM runs WHERE batch_id = ?) AND billed IN ('no', 'maybe')"
        " GROUP BY billed, outcome",
        (batch.id,),
    ):
        attempts[Billed(row["billed"])] += row["n"]
        if row["outcome"] == "sending":
            in_flight = row["n"]
    money = conn.execute(
        "SELECT coalesce(sum(charged), 0) AS charged, coalesce(sum(maybe + reserved), 0) AS maybe,"
        " coalesce(sum(billed_attempts), 0) AS billed FROM runs WHERE batch_id = ?",
        (batch.id,),
    ).fetchone()
    attempts[Billed.YES] = money["billed"]
    return BatchStatus(
        batch=batch.name,
        provider=batch.provider,
        jobs=_jobs(conn, batch.id, tally),
        retired=tally["retired"],
        images_saved=tally["saved"],
        attempts=attempts,
        in_flight=in_flight,
        estimated=Micros(tally["estimated"]),
        charged=Micros(money["charged"]),
        maybe=Micros(money["maybe"]),
        reasons=_reasons(conn, batch.id),
        waiting=waiting_images(conn, batch.id),
        last_run=_last_run(conn, batch.id),
        held=uncertain_sums(conn, batch.id),
        unpriced=_unpriced(conn, batch.id),
    )


def _unpriced(conn: sqlite3.Connection, batch: BatchId) -> int:
    row = conn.execute(
        "SELECT count(*) AS n FROM attempts WHERE run_id IN (SELECT id FROM runs"
        f" WHERE batch_id = ?) AND price_known = 0 AND {UNPRICED}",
        (batch,),
    ).fetchone()
    return int(row["n"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A job that failed or was blocked, as it was planned."""

    key: str
    state: str
    reason: str
    source: str
    model: str
    prompt: str
    options: str
    """JSON, as are ``images`` and ``tags``."""
    images: str
    mask: str | None
    root: str
    path: str
    tags: str


def waiting(conn: sqlite3.Connection, batch: BatchId) -> Iterator[Waiting]:
    """The jobs that only a changed request can help, in the manifest's order."""
    rows = conn.execute(
        "SELECT key, state, coalesce(reason, '') AS reason, source, model, prompt, options, images,"
        " mask, root, path, tags FROM jobs WHERE batch_id = ? AND retired = 0"
        " AND state IN ('failed', 'blocked') ORDER BY id",
        (batch,),
    )
    for row in rows:
        yield Waiting(**dict(row))


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What earlier requests say about later ones."""

    latency_s: float | None
    """Of the last answers with an image by this provider; None where there were too few."""
    per_minute: float | None
    """Images a minute in the last run of the batch; None where it made too few."""
    again_percent: Decimal | None
    """Requests of the batch that cost money and brought no image, to those that did."""


_HISTORY_ATTEMPTS: Final = 2_000
_MIN_RESPONSES: Final = 5
_MIN_PAID: Final = 50


def history(conn: sqlite3.Connection, batch: BatchId | None, provider: str) -> History:
    """Look at the newest attempts of the ledger, and at all of the batch's runs."""
    responses = conn.execute(
        "SELECT count(*) AS n, avg(julianday(ended_at) - julianday(started_at)) AS days FROM"
        " attempts WHERE rowid > (SELECT max(rowid) FROM attempts) - ?"
        " AND outcome = 'ok' AND copy_of IS NULL AND provider = ?",
        (_HISTORY_ATTEMPTS, provider),
    ).fetchone()
    paid = conn.execute(_PAID, {"batch": batch}).fetchone()
    made, lost = paid["billed"] - paid["spoiled"], paid["spoiled"] + paid["maybe"]
    known = made + lost >= _MIN_PAID and made
    again = Decimal(1000 * lost // made).scaleb(-1) if known else None
    return History(
        latency_s=responses["days"] * _DAY_S if responses["n"] >= _MIN_RESPONSES else None,
        per_minute=_last_rate(conn, batch),
        again_percent=again,
    )


_DAY_S: Final = 86_400
_MIN_RATED: Final = 100


def _last_rate(conn: sqlite3.Connection, batch: BatchId | None) -> float | None:
    """Images a minute, by the newest attempts of the last run that has any."""
    row = conn.execute(
        "SELECT count(*) AS n, julianday(max(ended_at)) - julianday(min(started_at)) AS days"
        " FROM attempts WHERE rowid > (SELECT max(rowid) FROM attempts) - ? AND outcome = 'ok'"
        " AND copy_of IS NULL"
        " AND +run_id = (SELECT max(id) FROM runs WHERE batch_id = ? AND billed_attempts > 0)",
        (_HISTORY_ATTEMPTS, batch),
    ).fetchone()
    if row["n"] < _MIN_RATED or not row["days"]:
        return None
    return float(row["n"] / (row["days"] * 1440))


_OF_BATCH: Final = "run_id IN (SELECT id FROM runs WHERE batch_id = :batch)"
_PAID: Final = f"""
SELECT (SELECT coalesce(sum(billed_attempts), 0) FROM runs WHERE batch_id = :batch) AS billed,
       (SELECT count(*) FROM attempts WHERE {_OF_BATCH} AND billed = 'yes' AND outcome < 'ok')
       + (SELECT count(*) FROM attempts WHERE {_OF_BATCH} AND billed = 'yes' AND outcome > 'ok')
       AS spoiled,
       (SELECT count(*) FROM attempts WHERE {_OF_BATCH} AND billed = 'maybe'
        AND outcome <> 'sending') AS maybe
"""


def _reasons(conn: sqlite3.Connection, batch: BatchId) -> tuple[ReasonCount, ...]:
    rows = conn.execute(
        """
        SELECT state, substr(reason, 1, instr(reason || ':', ':') - 1) AS code, count(*) AS n,
               min(key) AS example_key, min(reason) AS example
        FROM jobs
        WHERE batch_id = ? AND retired = 0 AND state IN ('failed', 'blocked', 'uncertain', 'paid')
              AND reason IS NOT NULL
        GROUP BY state, code ORDER BY n DESC, state, code
        """,
        (batch,),
    )
    return tuple(
        ReasonCount(
            state=JobState(row["state"]),
            code=row["code"],
            jobs=row["n"],
            example_key=row["example_key"],
            example=row["example"],
        )
        for row in rows
    )


def _last_run(conn: sqlite3.Connection, batch: BatchId) -> LastRun | None:
    row = conn.execute(
        "SELECT id, started_at, ended_at, estimate, reserved, charged, maybe, stopped, exit_code"
        " FROM runs WHERE batch_id = ? ORDER BY id DESC LIMIT 1",
        (batch,),
    ).fetchone()
    return None if row is None else LastRun(**dict(row))


_PAGE: Final = 1_000
# In the order of their row ids and from where the page before ended, so that none is sorted; the
# plus keeps SQLite from preferring an index of the batch, by which all would have to be.
_EXPORT_SQL: Final = {
    "jobs": f"""
        SELECT jobs.id AS cursor,
               key, state, reason, fingerprint, model, prompt, options, estimated,
               (SELECT coalesce(sum({CHARGED}), 0) FROM attempts
                WHERE job_id = jobs.id) AS charged,
               (SELECT coalesce(sum({POSSIBLE}), 0) FROM attempts
                WHERE job_id = jobs.id) AS maybe
        FROM jobs WHERE +batch_id = :batch AND +retired = 0 AND jobs.id > :after
        ORDER BY jobs.id LIMIT :limit
        """,
    "attempts": """
        SELECT attempts.rowid AS cursor,
               attempts.id AS id, key, run_id AS run, started_at, ended_at, outcome, billed,
               http_status, error_code, request_id, cost
        FROM attempts CROSS JOIN jobs ON jobs.id = job_id
        WHERE +batch_id = :batch AND attempts.rowid > :after
        ORDER BY attempts.rowid LIMIT :limit
        """,
    "images": """
        SELECT images.id AS cursor,
               key, images.path AS path, sha256, bytes, width, height, format
        FROM images CROSS JOIN jobs ON jobs.id = job_id
        WHERE +batch_id = :batch AND images.state = 'saved' AND images.id > :after
        ORDER BY images.id LIMIT :limit
        """,
}
_MONEY_COLUMNS: Final = ("estimated", "charged", "maybe", "cost")


def export(conn: sqlite3.Connection, batch: BatchId, what: str) -> Iterator[dict[str, object]]:
    """Stream jobs, attempts or images of a batch; money as decimal strings in dollars.

    Read a page at a time: a reader that stops in the middle, as in a pager, would keep a run from
    writing for as long as it stays there.
    """
    from sqlite_utils import Database  # 125 ms to import, and status shares this module

    db, after = Database(conn), 0
    while page := list(
        db.query(_EXPORT_SQL[what], {"batch": batch, "after": after, "limit": _PAGE})
    ):
        for row in page:
            after = row.pop("cursor")
            for column in _MONEY_COLUMNS:
                if column in row:
                    row[column] = decimal_string(row[column])
            yield row
