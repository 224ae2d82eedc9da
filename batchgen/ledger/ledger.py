"""The ledger's hot path: each method is one step of a job, run inside a transaction of its caller.

No method commits. ``writer.py`` groups the steps that wait into one ``BEGIN IMMEDIATE``.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from batchgen.job import (
    AttemptId,
    BatchId,
    Billed,
    ImageRef,
    Job,
    JobId,
    JobState,
    RunId,
    SavedImage,
    Verify,
    canonical_json,
)
from batchgen.ledger.budgets import Budget, period_budgets
from batchgen.ledger.only import IS_MEANT, Only, only_values
from batchgen.ledger.owners import Claim, open_runs, refuse_while_owned, take_over_runs
from batchgen.money import Micros, PriceTerms
from batchgen.outcomes.classify import Classification
from batchgen.outcomes.retry_policy import Next, after_attempt
from batchgen.system.process_owner import Owner

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The wall clock, with its zone."""
    return datetime.now(UTC)


def timestamp(moment: datetime) -> str:
    """ISO 8601 in UTC with milliseconds; sorts as text."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Reserved:
    """The attempt is on record and its price is set aside; the request may leave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetReached:
    """The price does not fit; nothing was written."""

    max_cost: Micros
    used: Micros
    period: str = "run"
    """``run``, ``day`` or ``month``; days and months are those of UTC."""
    price_known: bool = True
    """Whether the price is known at all: without one, nothing fits a budget."""


@dataclass(frozen=True, slots=True)
class NotPending:
    """The job is no longer pending; nothing was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAttempt:
    """An attempt whose end nobody recorded: the process was killed while it was in flight."""

    id: AttemptId
    job: Job
    run_id: RunId
    spool: str | None
    """Identity of the spool that its run used; None where that was not recorded."""
    fingerprint: str
    """Of its request; the job may have changed since."""
    price: Micros


class RunTakenOver(Exception):
    """Another run owns what this run left open; this one may write nothing more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DueImage:
    """A paid image that is not on disk yet."""

    id: int
    attempt_id: AttemptId
    position: int
    """Its place in the response."""
    rank: int
    """Its place among the images of the response; 0 is the one that was asked for."""
    url: str | None
    task: str | None
    """Where to ask for its address, while it is still being made."""
    response: str | None
    """Name of the spooled response that holds it, where there is no url."""
    expires_at: str | None
    root: str
    path: str | None
    """Where it was about to be placed, if it came that far."""
    sha256: str | None
    answered_at: str
    """When the response came."""
    tries: int
    """Failed downloads so far, in all runs."""
    trouble: str | None
    """Why the last one failed."""
    not_before: str | None
    """Until when the image host asked to wait."""
    copy_of: str | None
    """The attempt whose saved image it is a copy of; None for an image of its own."""
    replaces: str | None
    """``1024x1024 png`` of the good image that it is to replace; None where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OldImage:
    """A saved image of a job, by an earlier attempt."""

    id: int
    root: str
    path: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFinished:
    """The last image of a job is saved."""

    attempt_id: AttemptId
    replaced: tuple[OldImage, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where an image comes from: the attempt that brought it."""

    batch: str
    run: int
    provider: str
    model: str
    request_id: str | None
    cost: Micros
    made_at: str
    is_current: bool
    """Whether its job still asks for the same image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTotals:
    """Money of one run, in micros."""

    estimate: Micros
    max_cost: Micros | None
    max_waste: Micros
    reserved: Micros
    charged: Micros
    maybe: Micros
    wasted: Micros


@dataclass(frozen=True, slots=True)
class _Closed:
    """An attempt whose end is written, with what it is charged."""

    job: JobId
    run: RunId
    price: Micros
    charged: Micros
    possible: Micros


_BOUNDLESS: Final = Micros(2**62)
_PRICED: Final = PriceTerms()
_HAS_ITS_IMAGE: Final = """
    (jobs.renewal IS NULL AND EXISTS (SELECT 1 FROM images
        JOIN attempts ON attempts.id = images.attempt_id
        WHERE images.job_id = jobs.id AND images.state = 'saved'
          AND attempts.fingerprint = jobs.fingerprint))
"""
"""The image on disk is the one that the job plans: it needs no other."""
_MADE_AT: Final = """
    (SELECT jobs.done_at FROM attempts AS copy
        CROSS JOIN attempts AS original ON original.id = copy.copy_of
        CROSS JOIN jobs ON jobs.id = original.job_id WHERE copy.id = ?)
"""
"""When the image was made that an attempt copies: a copy is as old as its original."""

_JOB_COLUMNS = (
    "id, key, state, fingerprint, model, prompt, options, images, mask, root, path, verify, "
    "keep_previous, keep_partials, sidecar, metadata, estimated, tries, doubts, cuts"
)


class Ledger:
    """The steps of jobs, attempts and images over one open connection."""

    def __init__(self, conn: sqlite3.Connection, clock: Clock = utc_now) -> None:
        self.conn = conn
        self._clock = clock
        self._beats: RunId | None = None
        """The run of this process, while it goes on."""

    def _now(self) -> str:
        return timestamp(self._clock())

    def start_run(
        self,
        batch: BatchId,
        *,
        estimate: Micros,
        max_cost: Micros | None,
        max_waste: Micros,
        claim: Claim | None = None,
    ) -> RunId:
        """Write the run that all its attempts will name, and take over what killed runs left.

        Raises BatchLockedError where the owner of another run may be alive.
        """
        if claim is not None:
            runs = open_runs(self.conn, self._batch_name(batch))
            refuse_while_owned(runs, claim.here, self._clock(), take_over=claim.take_over)
        now = self._now()
        owner, spool = (None, None) if claim is None else (claim.here.me.as_json(), claim.spool)
        cursor = self.conn.execute(
            "INSERT INTO runs (batch_id, started_at, estimate, max_cost, max_waste, owner,"
            " heartbeat_at, spool) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (batch, now, estimate, max_cost, max_waste, owner, now, spool),
        )
        run = RunId(int(cursor.lastrowid or 0))
        take_over_runs(self.conn, batch, run)
        self._beats = run
        return run

    def go_on(self, run: RunId) -> None:
        """Keep the heartbeat of a run that another connection of this process started."""
        self._beats = run
        self.beat()

    def _batch_name(self, batch: BatchId) -> str:
        row = self.conn.execute("SELECT name FROM batches WHERE id = ?", (batch,)).fetchone()
        return str(row["name"])

    def beat(self) -> None:
        """Record that the run of this process is alive, if it has one. Raises RunTakenOver."""
        if self._beats is not None:
            beaten = self.conn.execute(
                "UPDATE runs SET heartbeat_at = ? WHERE id = ? AND taken_by IS NULL",
                (self._now(), self._beats),
            )
            if beaten.rowcount != 1:
                raise RunTakenOver(self._taken_over(self._beats))

    def _taken_over(self, run: RunId) -> str:
        row = self.conn.execute(
            "SELECT taken_by, (SELECT owner FROM runs AS next WHERE next.id = runs.taken_by)"
            " AS owner FROM runs WHERE id = ?",
            (run,),
        ).fetchone()
        by = f" ({Owner.from_json(row['owner'])})" if row["owner"] else ""
        return f"run {run} was taken over by run {row['taken_by']}{by}"

    def end_run(self, run: RunId, *, stopped: str | None, exit_code: int) -> None:
        """Write how the run ended."""
        self._beats = None
        self.conn.execute(
            "UPDATE runs SET ended_at = ?, stopped = ?, exit_code = ? WHERE id = ?",
            (self._now(), stopped, exit_code, run),
        )

    def run_totals(self, run: RunId) -> RunTotals:
        """Money of the run so far."""
        row = self.conn.execute(
            "SELECT estimate, max_cost, max_waste, reserved, charged, maybe, wasted"
            " FROM runs WHERE id = ?",
            (run,),
        ).fetchone()
        return RunTotals(**dict(row))

    def pending(
        self, batch: BatchId, *, after: JobId, limit: int, only: Only | None = None
    ) -> list[Job]:
        """The next page of pending jobs in manifest order, beginning after ``after``."""
        rows = self.conn.execute(
            f"SELECT {_JOB_COLUMNS} FROM jobs"
            " WHERE batch_id = :batch AND retired = 0 AND state = 'pending' AND id > :after"
            " AND shares IS NULL"
            f" AND {IS_MEANT} ORDER BY id LIMIT :limit",
            {"batch": batch, "after": after, "limit": limit, **only_values(only)},
        )
        return [_job(row) for row in rows]

    def paid(self, batch: BatchId) -> list[JobId]:
        """Jobs whose images are paid for and not all on disk, soonest expiry first."""
        rows = self.conn.execute(
            "SELECT jobs.id AS id FROM jobs LEFT JOIN images"
            " ON images.job_id = jobs.id AND images.state = 'due'"
            " WHERE batch_id = ? AND retired IN (0, 1) AND jobs.state = 'paid'"
            " GROUP BY jobs.id ORDER BY coalesce(min(expires_at), 'never'), jobs.id",
            (batch,),
        )
        return [JobId(row["id"]) for row in rows]

    def job(self, job: JobId) -> Job:
        """One job as it stands."""
        row = self.conn.execute(f"SELECT {_JOB_COLUMNS} FROM jobs WHERE id = ?", (job,)).fetchone()
        return _job(row)

    def reserve(
        self,
        run: RunId,
        job: Job,
        attempt: AttemptId,
        *,
        provider: str,
        terms: PriceTerms = _PRICED,
    ) -> Reserved | BudgetReached | NotPending:
        """Reserve the price and write the attempt: from here on it counts as possibly charged."""
        now = self._now()
        for budget in (self._run_budget(run), *period_budgets(self.conn, now)):
            is_bounded = budget.max_cost < _BOUNDLESS
            if budget.used + job.price > budget.max_cost or (is_bounded and not terms.is_known):
                return BudgetReached(
                    max_cost=budget.max_cost,
                    used=budget.used,
                    period=budget.period,
                    price_known=terms.is_known,
                )
        changed = self.conn.execute(
            "UPDATE jobs SET state = 'sending', reason = NULL, changed_at = ?"
            " WHERE id = ? AND state = 'pending' AND retired = 0 AND fingerprint = ?",
            (now, job.id, job.fingerprint),
        )
        if changed.rowcount != 1:
            return NotPending()
        self.conn.execute(
            "INSERT INTO attempts (id, job_id, run_id, fingerprint, provider, model, started_at,"
            " outcome, billed, price, least, price_known)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, 'sending', 'maybe', ?, min(?, ?), ?)",
            (
                *(attempt, job.id, run, job.fingerprint, provider, job.model, now, job.price),
                *(terms.least, job.price, terms.is_known),
            ),
        )
        reserved = self.conn.execute(
            "UPDATE runs SET reserved = reserved + ? WHERE id = ? AND taken_by IS NULL",
            (job.price, run),
        )
        if reserved.rowcount != 1:
            raise RunTakenOver(self._taken_over(run))
        return Reserved()

    def _run_budget(self, run: RunId) -> Budget:
        totals = self.run_totals(run)
        used = Micros(totals.charged + totals.maybe + totals.reserved)
        limit = totals.max_cost
        return Budget(period="run", max_cost=_BOUNDLESS if limit is None else limit, used=used)

    def record_response(
        self,
        attempt: AttemptId,
        classification: Classification,
        images: Sequence[tuple[ImageRef, str | None]],
        *,
        response: str,
        cost: Micros | None = None,
    ) -> list[DueImage]:
        """Write what was paid for: ids, addresses with their expiry, cost. The job is ``paid``.

        Gives the images that are to be brought to disk now. ``cost`` is what the response itself
        says it cost; without it, the price counts, or where an option leaves it open, the least:
        the rest is possible then.
        """
        closed = self._close_attempt(attempt, classification, response=response, cost=cost)
        job, now = closed.job, self._now()
        self.conn.executemany(
            "INSERT INTO images (job_id, attempt_id, position, state, url, task, expires_at, root)"
            " SELECT id, ?, ?, 'due', ?, ?, ?, root FROM jobs WHERE id = ?",
            [(attempt, ref.index, ref.url, ref.task, expires, job) for ref, expires in images],
        )
        moved = self.conn.execute(
            f"UPDATE jobs SET state = iif({_HAS_ITS_IMAGE}, 'done', 'paid'), reason = NULL,"
            " changed_at = ? WHERE id = ? RETURNING state",
            (now, job),
        ).fetchone()
        self._spend(closed)
        if moved["state"] == JobState.DONE:  # recovered, and the plan was changed back meanwhile
            self._give_up_due(attempt)
        return self.due(job)

    def _spend(self, closed: _Closed, *, maybe: int = 0) -> None:
        """Turn what a run reserved for an attempt into what it is charged."""
        self.conn.execute(
            "UPDATE runs SET reserved = reserved - ?, charged = charged + ?, maybe = maybe + ?"
            " WHERE id = ?",
            (closed.price, closed.charged, closed.possible + maybe, closed.run),
        )

    def task_made(self, image: int, url: str, expires_at: str | None) -> None:
        """The image that was still being made has an address now."""
        self.conn.execute(
            "UPDATE images SET url = ?, expires_at = ? WHERE id = ?", (url, expires_at, image)
        )

    def task_failed(self, attempt: AttemptId, classification: Classification, run: RunId) -> Next:
        """Record that an accepted, and so paid, task failed; ``classification`` says who pays."""
        row = self.conn.execute(
            "SELECT cost, possible, price, run_id FROM attempts WHERE id = ?", (attempt,)
        ).fetchone()
        is_charged = classification.billed is Billed.YES
        kept = row["cost"] if is_charged else 0
        open_rest = row["possible"] if is_charged else 0
        maybe = row["price"] if classification.billed is Billed.MAYBE else open_rest
        self.conn.execute(
            "UPDATE attempts SET outcome = ?, billed = ?, cost = ?, possible = ?, error_code = ?,"
            " message = ? WHERE id = ?",
            (
                *(classification.outcome, classification.billed, kept, open_rest),
                *(classification.code, classification.message, attempt),
            ),
        )
        self.conn.execute(
            "UPDATE runs SET charged = charged - ?, maybe = maybe + ? WHERE id = ?",
            (row["cost"] - kept, maybe - row["possible"], row["run_id"]),
        )
        self._give_up_due(attempt)
        return self._move_on(attempt, classification, run, hold=False)

    def settle(
        self,
        attempt: AttemptId,
        classification: Classification,
        *,
        allowance_of: RunId | None = None,
        response: str | None = None,
        hold: bool = False,
        probe: bool = False,
    ) -> Next:
        """Close an attempt that brought no image, and move its job where policy says.

        A doubt is bought again within the waste allowance of the run ``allowance_of`` (default: the
        attempt's own run; at recovery, the run that recovers). ``hold`` keeps it for a person. A
        ``probe`` that found the provider still out of order is no try of its job.
        If the manifest has changed since the request left, the job is pending whatever came.
        """
        closed = self._close_attempt(attempt, classification, response=response)
        self._spend(closed, maybe=closed.price if classification.billed is Billed.MAYBE else 0)
        return self._move_on(
            attempt, classification, allowance_of or closed.run, hold=hold, probe=probe
        )

    def spoil(self, attempt: AttemptId, classification: Classification, run: RunId) -> Next:
        """A paid response turned out to hold no usable image; its cost stays charged."""
        self.conn.execute(
            "UPDATE attempts SET outcome = 'spoiled', error_code = ?, message = ? WHERE id = ?",
            (classification.code, classification.message, attempt),
        )
        self._give_up_due(attempt)
        return self._move_on(attempt, classification, run, hold=False)

    def _close_attempt(
        self,
        attempt: AttemptId,
        classification: Classification,
        *,
        response: str | None,
        cost: Micros | None = None,
    ) -> _Closed:
        is_charged = classification.billed is Billed.YES
        row = self.conn.execute(
            "UPDATE attempts SET ended_at = ?, outcome = ?, billed = ?,"
            " cost = iif(?, coalesce(?, least, price), 0),"
            " possible = iif(?, price - coalesce(least, price), 0),"
            " price_known = price_known OR ?,"
            " http_status = ?, error_code = ?, message = ?, request_id = ?, response = ?"
            " WHERE id = ? AND outcome = 'sending'"
            " RETURNING price, cost, possible, job_id, run_id",
            (
                self._now(),
                classification.outcome,
                classification.billed,
                is_charged,
                cost,
                is_charged and cost is None,
                cost is not None,
                classification.status,
                classification.code or None,
                classification.message or None,
                classification.request_id,
                response,
                attempt,
            ),
        ).fetchone()
        if row is None:
            self._raise_if_taken_over(attempt)
            raise AssertionError(f"attempt {attempt} is closed already")
        return _Closed(
            job=JobId(row["job_id"]),
            run=RunId(row["run_id"]),
            price=Micros(row["price"]),
            charged=Micros(row["cost"]),
            possible=Micros(row["possible"]),
        )

    def _raise_if_taken_over(self, attempt: AttemptId) -> None:
        row = self.conn.execute(
            "SELECT runs.id AS id FROM attempts JOIN runs ON runs.id = run_id"
            " WHERE attempts.id = ? AND taken_by IS NOT NULL",
            (attempt,),
        ).fetchone()
        if row is not None:
            raise RunTakenOver(self._taken_over(RunId(row["id"])))

    def _move_on(
        self,
        attempt: AttemptId,
        classification: Classification,
        run: RunId,
        *,
        hold: bool,
        probe: bool = False,
    ) -> Next:
        asked = self.conn.execute(
            "SELECT job_id, fingerprint, price FROM attempts WHERE id = ?", (attempt,)
        ).fetchone()
        job = self.job(JobId(asked["job_id"]))
        if job.fingerprint != asked["fingerprint"]:
            return self._ask_anew(job.id)
        totals = self.run_totals(run)
        following = after_attempt(
            classification,
            tries=job.tries,
            doubts=job.doubts,
            cuts=job.cuts,
            price=Micros(asked["price"]),
            wasted=totals.wasted,
            max_waste=totals.max_waste,
            hold=hold,
            probe=probe,
        )
        self.conn.execute(
            "UPDATE jobs SET state = ?, reason = ?, tries = tries + ?, doubts = doubts + ?,"
            " cuts = cuts + ?, changed_at = ? WHERE id = ?",
            (
                following.state,
                following.reason or None,
                following.counts_try,
                following.counts_doubt,
                following.counts_cut,
                self._now(),
                job.id,
            ),
        )
        if following.wasted:
            self.conn.execute(
                "UPDATE runs SET wasted = wasted + ? WHERE id = ?", (following.wasted, run)
            )
        return following

    def _ask_anew(self, job: JobId) -> Next:
        """Let a job be requested whose plan has changed since the request that gave no image.

        Where the plan is that of the image on disk again, the job is done.
        """
        self.conn.execute(
            f"UPDATE jobs SET state = iif({_HAS_ITS_IMAGE}, 'done', 'pending'), reason = NULL,"
            " tries = 0, doubts = 0, cuts = 0, changed_at = ? WHERE id = ?",
            (self._now(), job),
        )
        return Next(state=self.job(job).state)

    def _give_up_due(self, attempt: AttemptId) -> None:
        self.conn.execute(
            "UPDATE images SET state = 'lost' WHERE attempt_id = ? AND state = 'due'", (attempt,)
        )

    def due(self, job: JobId) -> list[DueImage]:
        """The job's images that are paid for and not on disk."""
        rows = self.conn.execute(
            "SELECT images.id AS id, attempt_id, position, url, task, response, expires_at, root,"
            " path, sha256, coalesce(ended_at, started_at) AS answered_at,"
            " images.tries AS tries, trouble, not_before, copy_of,"
            " (SELECT old.width || 'x' || old.height || ' ' || old.format FROM images AS old"
            " WHERE old.job_id = images.job_id AND old.state = 'saved'"
            " AND old.attempt_id <> images.attempt_id ORDER BY old.position LIMIT 1) AS replaces,"
            " (SELECT count(*) FROM images AS before WHERE before.attempt_id ="
            " images.attempt_id AND before.position < images.position) AS rank FROM images"
            " JOIN attempts ON attempts.id = attempt_id"
            " WHERE images.job_id = ? AND images.state = 'due' ORDER BY position",
            (job,),
        )
        return [DueImage(**dict(row)) for row in rows]

    def provenance(self, attempt: AttemptId) -> Provenance:
        """Where the images of an attempt come from."""
        row = self.conn.execute(
            "SELECT batches.name AS batch, run_id AS run, attempts.provider AS provider,"
            " attempts.model AS model, request_id, cost,"
            " coalesce(ended_at, started_at) AS made_at,"
            " attempts.fingerprint = jobs.fingerprint AS is_current FROM attempts"
            " JOIN jobs ON jobs.id = job_id JOIN batches ON batches.id = batch_id"
            " WHERE attempts.id = ?",
            (attempt,),
        ).fetchone()
        return Provenance(**{**dict(row), "is_current": bool(row["is_current"])})

    def _replaceable(self, job: JobId, attempt: AttemptId) -> list[OldImage]:
        """Saved images of the job by an earlier attempt, in places that no new one has taken."""
        rows = self.conn.execute(
            "SELECT id, root, path, sha256 FROM images AS old"
            " WHERE job_id = ? AND state = 'saved' AND attempt_id <> ? AND NOT EXISTS ("
            "SELECT 1 FROM images AS new WHERE new.attempt_id = ?"
            " AND new.root = old.root AND new.path = old.path)",
            (job, attempt, attempt),
        )
        return [OldImage(**dict(row)) for row in rows]

    def placing(self, image_id: int, root: str, image: SavedImage) -> None:
        """Write the place that a verified image is about to get: root and path in one step.

        Written before the rename, so that after a kill in between the file is known by its hash
        and need not be fetched again.
        """
        self.conn.execute(
            "UPDATE images SET root = ?, path = ?, sha256 = ?, bytes = ?, width = ?, height = ?,"
            " format = ?, warnings = ? WHERE id = ?",
            (
                root,
                image.path,
                image.sha256,
                image.bytes,
                image.width,
                image.height,
                image.format,
                canonical_json(image.warnings) if image.warnings else None,
                image_id,
            ),
        )

    def not_placed(self, image: int) -> None:
        """Forget the place of an image: another file took the name in the meantime."""
        self.conn.execute("UPDATE images SET path = NULL WHERE id = ?", (image,))

    def image_saved(self, image: int) -> JobFinished | None:
        """The image stands under its final name, and the name is durable.

        With the last one the job is done, in the same step; what it replaced is given then.
        """
        row = self.conn.execute(
            "UPDATE images SET state = 'saved', saved_at = ? WHERE id = ?"
            " RETURNING job_id, attempt_id",
            (self._now(), image),
        ).fetchone()
        return self._finished(JobId(row["job_id"]), AttemptId(row["attempt_id"]))

    def extra_lost(self, image: int, trouble: str) -> JobFinished | None:
        """Give up an image that came in addition to the requested one; the job may be done then."""
        row = self.conn.execute(
            "UPDATE images SET state = 'lost', trouble = ? WHERE id = ?"
            " RETURNING job_id, attempt_id",
            (trouble, image),
        ).fetchone()
        return self._finished(JobId(row["job_id"]), AttemptId(row["attempt_id"]))

    def _finished(self, job: JobId, attempt: AttemptId) -> JobFinished | None:
        still_due = "SELECT 1 FROM images WHERE job_id = ? AND state = 'due' LIMIT 1"
        if self.conn.execute(still_due, (job,)).fetchone() is not None:
            return None
        finished = JobFinished(attempt_id=attempt, replaced=tuple(self._replaceable(job, attempt)))
        self._job_done(job, attempt)
        return finished

    def _job_done(self, job: JobId, attempt: AttemptId) -> None:
        """All images of the attempt are saved: the job is done, older images are replaced.

        If the manifest has changed since the request left, the job is pending again instead.
        Addresses with a query are cleared: a signed one is a key to the image, and dead soon.
        Others stay, so that an image that gets lost can be had again without buying it.
        """
        now = self._now()
        self.conn.execute(
            "UPDATE images SET state = 'replaced'"
            " WHERE job_id = ? AND state = 'saved' AND attempt_id <> ?",
            (job, attempt),
        )
        self.conn.execute(
            "UPDATE images SET url = NULL WHERE job_id = ? AND state = 'saved'"
            " AND (url LIKE '%?%' OR expires_at IS NOT NULL)",
            (job,),
        )
        self.conn.execute(
            f"UPDATE jobs SET reason = NULL, changed_at = ?, done_at = coalesce({_MADE_AT}, ?),"
            " renewal = NULL,"
            " state = iif(fingerprint = (SELECT fingerprint FROM attempts WHERE id = ?),"
            " 'done', 'pending') WHERE id = ? AND state = 'paid'",
            (now, attempt, now, attempt, job),
        )

    def image_lost(self, image: int, job: JobId, reason: str) -> None:
        """A paid image can't be had any more; it is never bought again unasked.

        The other images of its response are given up with it: left due, they would come between the
        job and the images of a later attempt.
        """
        asked = self.conn.execute(
            "SELECT attempts.id AS id, fingerprint FROM images"
            " JOIN attempts ON attempts.id = attempt_id WHERE images.id = ?",
            (image,),
        ).fetchone()
        self._give_up_due(AttemptId(asked["id"]))
        if self.job(job).fingerprint != asked["fingerprint"]:
            self._ask_anew(job)
            return
        self.conn.execute(
            "UPDATE jobs SET state = 'failed', reason = ?, changed_at = ? WHERE id = ?",
            (f"image_lost: {reason}", self._now(), job),
        )

    def fetch_failed(
        self,
        image: int,
        job: JobId,
        *,
        trouble: str,
        reason: str,
        not_before: datetime | None,
    ) -> None:
        """Record a failed download and the reason why the job is still ``paid``."""
        self.conn.execute(
            "UPDATE images SET tries = tries + 1, tried_at = ?, trouble = ?, not_before = ?"
            " WHERE id = ?",
            (self._now(), trouble, timestamp(not_before) if not_before else None, image),
        )
        self.note(job, reason)

    def note(self, job: JobId, reason: str) -> None:
        """Say why a job is not further, without moving it."""
        self.conn.execute("UPDATE jobs SET reason = ? WHERE id = ?", (reason, job))

    def refuse(self, job: JobId, reason: str) -> bool:
        """Fail a pending job before anything was sent for it; whether it was pending."""
        changed = self.conn.execute(
            "UPDATE jobs SET state = 'failed', reason = ?, changed_at = ?"
            " WHERE id = ? AND state = 'pending'",
            (reason, self._now(), job),
        )
        return changed.rowcount == 1

    def open_attempts(self, batch: BatchId, *, foreseen: bool = False) -> list[OpenAttempt]:
        """Attempts that dead runs left in flight; at most as many as those had requests.

        A run is dead once it has ended, or another has taken over what it left. ``foreseen`` adds
        those that the next run would take over.
        """
        rows = self.conn.execute(
            # CROSS JOIN keeps this order: the few open attempts first, never all jobs of a batch.
            "SELECT attempts.id AS attempt_id, run_id, job_id, spool,"
            " attempts.fingerprint AS fingerprint, price"
            " FROM attempts INDEXED BY attempts_open CROSS JOIN jobs ON jobs.id = job_id"
            " CROSS JOIN runs ON runs.id = run_id"
            " WHERE jobs.batch_id = ? AND outcome = 'sending'"
            " AND (? OR runs.ended_at IS NOT NULL OR taken_by IS NOT NULL)"
            " ORDER BY attempts.rowid",
            (batch, foreseen),
        ).fetchall()
        return [
            OpenAttempt(
                id=AttemptId(row["attempt_id"]),
                job=self.job(JobId(row["job_id"])),
                run_id=RunId(row["run_id"]),
                spool=row["spool"],
                fingerprint=row["fingerprint"],
                price=Micros(row["price"]),
            )
            for row in rows
        ]

    def finished_attempts(self, batch: BatchId, ids: Sequence[AttemptId]) -> list[AttemptId]:
        """Those of the attempts that belong to done jobs, so that nothing of them is needed."""
        rows = self.conn.execute(
            # CROSS JOIN keeps this order: the attempts that were named, never all of a batch.
            "SELECT attempts.id AS id FROM json_each(?) AS asked"
            " CROSS JOIN attempts ON attempts.id = asked.value"
            " CROSS JOIN jobs ON jobs.id = job_id"
            " WHERE batch_id = ? AND state = 'done'",
            (canonical_json(list(ids)), batch),
        )
        return [AttemptId(row["id"]) for row in rows]


def _job(row: sqlite3.Row) -> Job:
    values: dict[str, Any] = dict(row)
    return Job(
        id=JobId(values["id"]),
        key=values["key"],
        state=JobState(values["state"]),
        fingerprint=values["fingerprint"],
        model=values["model"],
        prompt=values["prompt"],
        options=json.loads(values["options"]),
        images=tuple(json.loads(values["images"])),
        mask=values["mask"],
        root=values["root"],
        path=values["path"],
        verify=Verify(values["verify"]),
        keep_previous=values["keep_previous"],
        keep_partials=bool(values["keep_partials"]),
        sidecar=bool(values["sidecar"]),
        metadata=bool(values["metadata"]),
        price=Micros(values["estimated"]),
        tries=values["tries"],
        doubts=values["doubts"],
        cuts=values["cuts"],
    )
