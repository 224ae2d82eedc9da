"""The result of one run and what it left for a person, as the ledger has it. Never writes."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

from batchgen.job import BatchId, JobState
from batchgen.ledger.batch_status import BatchStatus, status
from batchgen.ledger.batches import find_batch, unknown_run
from batchgen.ledger.notices import UNSEEN, News, changed_after, unseen
from batchgen.ledger.sums import UNPRICED
from batchgen.ledger.uncertain import UncertainJob, uncertain_jobs
from batchgen.money import Micros
from batchgen.outcomes.blocked_words import BlockedPrompt

MAX_ROWS: Final = 1_000
"""Rows that are looked at of each kind; what waits for a person beyond them is counted only."""
_MADE_PROMPTS: Final = 2_000
_SLOWEST: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMoney:
    """One run with its money, in micros."""

    id: int
    started_at: str
    ended_at: str | None
    estimate: Micros
    max_cost: Micros | None
    charged: Micros
    maybe: Micros
    """What is still reserved counts as such."""
    stopped: str | None
    exit_code: int | None
    unpriced: int
    """Attempts that cost money, or may, at an unknown price; they are in no sum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedRow:
    """A failed job, and the line of the manifest or its table that is to be corrected."""

    key: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedReason:
    """Failed jobs that share a reason."""

    code: str
    example: str
    rows: tuple[FailedRow, ...]
    jobs: int
    """May be more than there are ``rows``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow:
    """An image that took long."""

    key: str
    seconds: float
    """From the request's start to the end of its response."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """Everything that ``batchgen report`` shows."""

    status: BatchStatus
    """Of the whole batch, as it is now."""
    manifest: str
    manifest_path: str
    run: RunMoney
    before: RunMoney | None
    """The run before it, to compare with."""
    new: int
    """Jobs that got their first image in the run."""
    changed: int
    """Jobs whose image the run replaced."""
    failed: tuple[FailedReason, ...]
    blocked: tuple[BlockedPrompt, ...]
    """Without the values of their rows, which the ledger does not keep."""
    made_prompts: tuple[str, ...]
    """The newest prompts that the provider made images of, where some are blocked."""
    uncertain: tuple[UncertainJob, ...]
    slowest: tuple[Slow, ...]
    news: News
    only_news: bool = False
    """Whether ``failed``, ``blocked`` and ``uncertain`` hold only what ``news`` counts."""


def run_report(
    conn: sqlite3.Connection, name: str, run: int | None = None, *, only_news: bool = False
) -> RunReport:
    """Return the report of a run, the newest by default.

    What is made and paid is that of the run. What failed, is blocked or uncertain is what is so
    now, for an older run only those of its jobs. ``only_news`` leaves out what an earlier notice
    named. Raises UnknownBatchError.
    """
    batch = find_batch(conn, name)
    conn.execute("BEGIN")  # one read transaction, so that all is of the same moment
    try:
        chosen, before = _runs(conn, batch.id, name, run)
        of_run = None if run is None else chosen.id
        of_jobs = _OfJobs(batch.id, of_run, only_news=only_news)
        blocked = _blocked(conn, of_jobs)
        new, changed = made_by(conn, chosen.id)
        held = uncertain_jobs(conn, batch.id, only_news=only_news)
        return RunReport(
            status=status(conn, name),
            manifest=batch.manifest,
            manifest_path=batch.manifest_path,
            run=chosen,
            before=before,
            new=new,
            changed=changed,
            failed=_failed(conn, of_jobs),
            blocked=blocked,
            made_prompts=_made_prompts(conn, batch.id) if blocked else (),
            uncertain=tuple(
                one for one in held if of_run is None or _is_of(conn, one.attempt, of_run)
            ),
            slowest=_slowest(conn, chosen.id),
            news=unseen(conn, batch.id) if only_news else _news_of(conn, batch.id, before),
            only_news=only_news,
        )
    finally:
        conn.execute("ROLLBACK")


def _news_of(conn: sqlite3.Connection, batch: BatchId, before: RunMoney | None) -> News:
    if before is None:
        return changed_after(conn, batch, None, None)
    return changed_after(conn, batch, before.id, before.ended_at or before.started_at)


def _runs(
    conn: sqlite3.Connection, batch: BatchId, name: str, run: int | None
) -> tuple[RunMoney, RunMoney | None]:
    rows = conn.execute(
        "SELECT id, started_at, ended_at, estimate, max_cost, charged, maybe + reserved AS maybe,"
        " stopped, exit_code, (SELECT count(*) FROM attempts WHERE run_id = runs.id"
        f" AND price_known = 0 AND {UNPRICED}) AS unpriced FROM runs"
        " WHERE batch_id = ? AND (? IS NULL OR id <= ?) ORDER BY id DESC LIMIT 2",
        (batch, run, run),
    ).fetchall()
    if not rows or (run is not None and rows[0]["id"] != run):
        raise unknown_run(name, run)
    return RunMoney(**dict(rows[0])), RunMoney(**dict(rows[1])) if len(rows) > 1 else None


MADE_BY_JOB: Final = """
    SELECT attempts.job_id AS job_id, max(attempts.rowid) AS newest, max(NOT EXISTS (
        SELECT 1 FROM images AS old JOIN attempts AS earlier ON earlier.id = old.attempt_id
        WHERE old.job_id = attempts.job_id AND old.state IN ('saved', 'replaced')
          AND earlier.rowid < attempts.rowid)) AS is_new
    FROM attempts JOIN images ON images.attempt_id = attempts.id
    WHERE run_id = :run AND images.state IN ('saved', 'replaced')
    GROUP BY attempts.job_id
"""
"""The jobs that got images in a run, each with the row of its newest attempt that has any."""


def made_by(conn: sqlite3.Connection, run: int) -> tuple[int, int]:
    """Return how many jobs got their first image in a run, and how many another one."""
    row = conn.execute(
        f"SELECT coalesce(sum(is_new), 0) AS new, count(*) AS jobs FROM ({MADE_BY_JOB})",
        {"run": run},
    ).fetchone()
    return row["new"], row["jobs"] - row["new"]


_WAITING: Final = f"""
    FROM jobs WHERE batch_id = :batch AND retired = 0 AND state = :state
    AND (:run IS NULL OR id IN (SELECT job_id FROM attempts WHERE run_id = :run))
    AND (NOT :only_news OR {UNSEEN})
"""


@dataclass(frozen=True, slots=True)
class _OfJobs:
    """Which jobs of a batch a report names."""

    batch: BatchId
    run: int | None
    only_news: bool

    def values(self, state: JobState) -> dict[str, object]:
        return {
            "batch": self.batch,
            "run": self.run,
            "only_news": self.only_news,
            "state": state.value,
            "limit": MAX_ROWS,
        }


_CODE: Final = "substr(reason, 1, instr(reason || ':', ':') - 1)"


def _failed(conn: sqlite3.Connection, of_jobs: _OfJobs) -> tuple[FailedReason, ...]:
    chosen = of_jobs.values(JobState.FAILED)
    rows = conn.execute(
        f"SELECT {_CODE} AS code, count(*) AS jobs, min(reason) AS example {_WAITING}"
        " GROUP BY code ORDER BY jobs DESC, code",
        chosen,
    ).fetchall()
    return tuple(
        FailedReason(
            code=row["code"],
            example=row["example"].partition(": ")[2] or row["example"],
            jobs=row["jobs"],
            rows=tuple(
                FailedRow(**dict(one))
                for one in conn.execute(
                    f"SELECT key, source {_WAITING} AND {_CODE} = :code ORDER BY id LIMIT :limit",
                    {**chosen, "code": row["code"]},
                )
            ),
        )
        for row in rows
    )


def _blocked(conn: sqlite3.Connection, of_jobs: _OfJobs) -> tuple[BlockedPrompt, ...]:
    rows = conn.execute(
        f"SELECT key, source, prompt {_WAITING} ORDER BY id LIMIT :limit",
        of_jobs.values(JobState.BLOCKED),
    )
    return tuple(BlockedPrompt(**dict(row)) for row in rows)


def _made_prompts(conn: sqlite3.Connection, batch: BatchId) -> tuple[str, ...]:
    rows = conn.execute(
        "SELECT prompt FROM jobs WHERE batch_id = ? AND retired = 0 AND state = 'done'"
        " ORDER BY done_at DESC LIMIT ?",
        (batch, _MADE_PROMPTS),
    )
    return tuple(row["prompt"] for row in rows)


def _is_of(conn: sqlite3.Connection, attempt: str, run: int) -> bool:
    row = conn.execute("SELECT run_id FROM attempts WHERE id = ?", (attempt,)).fetchone()
    return bool(row["run_id"] == run)


def _slowest(conn: sqlite3.Connection, run: int) -> tuple[Slow, ...]:
    rows = conn.execute(
        "SELECT key, (julianday(ended_at) - julianday(started_at)) * 86400 AS seconds"
        " FROM attempts JOIN jobs ON jobs.id = job_id WHERE run_id = ? AND outcome = 'ok'"
        " AND copy_of IS NULL ORDER BY seconds DESC, key LIMIT ?",
        (run, _SLOWEST),
    )
    return tuple(Slow(key=row["key"], seconds=round(row["seconds"], 3)) for row in rows)
