"""Counts, money and reasons of a batch, as ``batchgen status`` shows them. Never writes."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from batchgen.job import ROW_REASON, BatchId, Billed, JobState
from batchgen.ledger.batches import BatchRow, find_batch
from batchgen.ledger.paid_images import WaitingImages, waiting_images
from batchgen.ledger.sums import UNPRICED
from batchgen.ledger.uncertain import UncertainSums, uncertain_sums
from batchgen.ledger.unpublished import ALL_PUBLISHED, UnpublishedCounts, unpublished_counts
from batchgen.money import Micros, decimal_string


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
    heartbeat_at: str | None
    ended_at: str | None
    estimate: Micros
    max_cost: Micros | None
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
    refused: int = 0
    """Failed jobs whose request the provider refused with a 4xx status: a retry cannot help."""
    stuck: int = 0
    """Pending jobs that share the image of a job that failed, is blocked or is uncertain."""
    unpublished: UnpublishedCounts = ALL_PUBLISHED
    """Saved images that wait for a decision, or for their publication."""

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
    def to_request(self) -> int:
        """Jobs whose image a run has yet to receive: those that the time left is about."""
        waiting = self.jobs[JobState.PENDING] + self.jobs[JobState.SENDING]
        return max(0, waiting - self.stuck)

    @property
    def troubled(self) -> int:
        """Jobs that wait for a person."""
        return self.jobs[JobState.FAILED] + self.jobs[JobState.BLOCKED] + self.uncertain

    @property
    def at_fault(self) -> int:
        """Jobs that failed because of their row of the table."""
        return sum(
            reason.jobs
            for reason in self.reasons
            if reason.state is JobState.FAILED and reason.code == ROW_REASON
        )

    @property
    def is_sound(self) -> bool:
        """Whether every job that a run took up is done; rows at fault were not taken up."""
        return self.troubled == self.at_fault and not self.jobs[JobState.PAID]

    def as_json(self) -> dict[str, object]:
        """Return the object that other programs rely on (README, ``status --json``)."""
        billed = self.attempts
        return {
            "batch": self.batch,
            "jobs": self.shown_jobs,
            "retired": self.retired,
            "images": {"saved": self.images_saved, "unpublished": self.unpublished.as_json()},
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


def status(conn: sqlite3.Connection, name: str) -> BatchStatus:
    """Return the counts, money and reasons of a batch. Raises UnknownBatchError."""
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
    """Return the number of jobs in each state: the rare ones are counted, the rest is pending."""
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
        refused=_refused(conn, batch.id),
        stuck=_stuck(conn, batch.id),
        unpublished=unpublished_counts(conn, batch.id),
    )


def _stuck(conn: sqlite3.Connection, batch: BatchId) -> int:
    row = conn.execute(
        "SELECT count(*) AS n FROM jobs INDEXED BY jobs_by_sharing"
        " CROSS JOIN jobs AS leader ON leader.id = jobs.shares"
        " WHERE jobs.batch_id = ? AND jobs.shares IS NOT NULL AND jobs.retired = 0"
        " AND jobs.state = 'pending' AND leader.state IN ('failed', 'blocked', 'uncertain')",
        (batch,),
    ).fetchone()
    return int(row["n"])


def _refused(conn: sqlite3.Connection, batch: BatchId) -> int:
    # A job may fail later for a reason of its own, such as a path that is taken.
    row = conn.execute(
        "SELECT count(*) AS n FROM jobs WHERE batch_id = ? AND retired = 0 AND state = 'failed'"
        " AND (SELECT outcome = 'refused' AND http_status BETWEEN 400 AND 499"
        " AND substr(jobs.reason, 1, length(error_code)) = error_code"
        " FROM attempts WHERE job_id = jobs.id ORDER BY rowid DESC LIMIT 1)",
        (batch,),
    ).fetchone()
    return int(row["n"])


def _unpriced(conn: sqlite3.Connection, batch: BatchId) -> int:
    row = conn.execute(
        "SELECT count(*) AS n FROM attempts WHERE run_id IN (SELECT id FROM runs"
        f" WHERE batch_id = ?) AND price_known = 0 AND {UNPRICED}",
        (batch,),
    ).fetchone()
    return int(row["n"])


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
        "SELECT id, started_at, heartbeat_at, ended_at, estimate, max_cost, reserved, charged,"
        " maybe, stopped, exit_code FROM runs WHERE batch_id = ? ORDER BY id DESC LIMIT 1",
        (batch,),
    ).fetchone()
    return None if row is None else LastRun(**dict(row))
