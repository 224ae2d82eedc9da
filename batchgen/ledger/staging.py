"""From a stream of planned jobs to the ledger: staged on disk, compared, then enrolled at once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING

from batchgen.errors import Fault, ManifestError
from batchgen.job import BatchId, JobId, PlannedJob
from batchgen.ledger.batch_identity import BatchIdentity, enroll_batch
from batchgen.ledger.changes import (
    ANY_CONTESTED,
    CHANGE,
    CONTESTED,
    GIVE_UP,
    HOLD,
    INSERT_NEW,
    IS_UNPLANNED,
    MEET,
    MOVES,
    REFUSE,
    RETIRE,
    TALLY,
    UNFINISHED_RENEWAL,
)
from batchgen.ledger.clock import Clock, timestamp, utc_now
from batchgen.ledger.groups import (
    ALL_NEW,
    COMPARE,
    FIRST_KNOWN,
    FIRST_NEW,
    FOREIGN,
    KNOWN,
    MODELS_TO_ASK,
    Forecast,
    Group,
    GroupSum,
    ToSend,
)
from batchgen.ledger.key_patterns import Only, only_values, resolve_planned
from batchgen.ledger.newest_decisions import REJECTED, find_rejected
from batchgen.ledger.path_owners import ROOTS
from batchgen.ledger.relocations import STAY, Contested, Move
from batchgen.ledger.selection import EVERYTHING, Selection
from batchgen.ledger.sharing import (
    NO_REPEATS,
    SHARED,
    Repeats,
    find_own_shared,
    find_shared,
    repeats,
    write_shared,
)
from batchgen.ledger.staging_rows import (
    MAX_FAULTS,
    CollisionKey,
    Price,
    Priced,
    StagedRows,
    attach,
    pages,
    refuse_rows,
    rows_at_fault,
    stage_own,
    stale_before_of,
    taken_twice,
)
from batchgen.ledger.transaction import write_transaction
from batchgen.money import ZERO, Micros
from batchgen.system.failpoints import Point, hit

if TYPE_CHECKING:
    from batchgen.ledger.explain import JobExplanation


class Staging:
    """A private plan on disk, apart from the ledger; it is gone when the connection closes.

    ``file`` holds it where no ledger exists yet, so that `carry_over` can bring it to one.
    """

    def __init__(self, conn: sqlite3.Connection, clock: Clock = utc_now, file: str = "") -> None:
        self.conn = conn
        self._clock = clock
        self._file = file
        self.jobs = 0
        """How many jobs are staged."""
        self.only: Only | None = None
        """Which jobs a run takes up; None means all."""
        self._renewal_at = timestamp(clock())
        self._has_refused = False
        self.clashes: list[Fault] = []
        """Rows that are refused because an earlier job has their key or path, a hundred at most."""
        self.keeps_unplanned = False
        """Whether jobs that are not planned are kept, as a row at fault may be theirs."""
        self._met: BatchId | None = None
        self.shares = False
        """Whether one request serves all jobs with the same fingerprint."""
        self._has_shared = False
        self._keep_rejected = False
        self._is_of_ledger = False
        """Whether the jobs are those of the ledger, which does not know variants."""
        attach(conn, file, tables=(KNOWN, SHARED, REJECTED))

    def close(self) -> None:
        """Forget what is staged; it is planned again."""
        self.conn.execute("DETACH DATABASE staging")

    def carry_over(self, conn: sqlite3.Connection) -> None:
        """Continue over the connection of a ledger that did not exist before."""
        self.close()
        conn.execute("ATTACH DATABASE ? AS staging", (self._file,))
        self.conn = conn

    def fill(
        self,
        jobs: Iterable[PlannedJob],
        *,
        price: Price,
        collision_key: CollisionKey,
        priced: Priced | None = None,
        progress: Callable[[int], None] | None = None,
        selection: Selection = EVERYTHING,
        batch: BatchId | None = None,
        strict: bool = True,
    ) -> None:
        """Stage the whole plan as a stream. ``batch`` is what the ledger knows it as, if it does.

        Raises ManifestError with the jobs whose key or output path another job has already, a
        hundred at most, and with the faults that the stream ends with; the ledger is not touched
        by then. Unless ``strict``, a row whose key or path an earlier job has is refused alone.
        """
        now = self._clock()
        self.only = selection.only
        self._keep_rejected = selection.keep_rejected
        self._renewal_at = self._renewal(batch, now)

        def stale_before(refresh: str) -> str | None:
            if selection.since is not None:
                return timestamp(selection.since)
            return stale_before_of(selection.refresh or refresh, now, self._renewal_at)

        rows = StagedRows(
            self.conn,
            price=price,
            priced=priced,
            collision_key=collision_key,
            stale_before=stale_before,
        )
        faults: list[Fault] = []
        for page in pages(jobs, faults):
            rows.write(page)
            self.jobs += len(page)
            if progress is not None:
                progress(self.jobs)
        clashes = list(taken_twice(self.conn, collision_key, paths_are_keys=rows.paths_are_keys))
        alone = [clash for clash in clashes if clash.of_row and not strict]
        refuse_rows(self.conn, alone)
        self.clashes = [clash.fault for clash in alone[:MAX_FAULTS]]
        self._has_refused = rows.has_refused or bool(alone)
        fatal = (clash.fault for clash in clashes if strict or not clash.of_row)
        faults = [*islice(fatal, MAX_FAULTS), *faults]
        if faults:
            raise ManifestError(faults)

    def fill_from_ledger(self, batch: BatchId, provider: str, selection: Selection) -> None:
        """Stage the jobs of a batch that a run may have to do with, as the ledger has them."""
        self.only = selection.only
        self._keep_rejected = selection.keep_rejected
        self._is_of_ledger = True
        self.jobs = stage_own(self.conn, batch, provider)

    def refuse(self, refusals: Iterable[tuple[JobId, str]]) -> None:
        """Let jobs that are staged from the ledger fail, each for a reason, at no cost."""
        for job, reason in refusals:
            self._has_refused = True
            self.conn.execute("UPDATE staging.planned SET refused = ? WHERE seq = ?", (reason, job))

    def set_forecasts(self, forecasts: Iterable[tuple[JobId, str, Forecast]]) -> None:
        """Store the forecast of each job in flight: job, fingerprint of its attempt, forecast."""
        self.conn.executemany(
            "INSERT OR REPLACE INTO staging.forecasts VALUES (?, ?, ?)", forecasts
        )

    def hold(self, batch: BatchId, jobs: Iterable[JobId]) -> None:
        """Note which of the jobs in flight recovery will not request again."""
        self._meet(batch)
        self.conn.executemany(
            f"UPDATE staging.known SET grp = '{Group.HELD}'"
            f" WHERE job = ? AND grp = '{Group.IN_FLIGHT}'",
            ((job,) for job in jobs),
        )

    def revised_in_flight(self, batch: BatchId) -> set[JobId]:
        """Return the jobs in flight whose plan has changed since their request left."""
        self._meet(batch)
        rows = self.conn.execute(
            "SELECT known.job AS job FROM staging.forecasts CROSS JOIN staging.known"
            " ON known.job = forecasts.job CROSS JOIN staging.planned ON planned.seq = known.seq"
            " WHERE planned.fingerprint <> forecasts.fingerprint"
        )
        return {JobId(row["job"]) for row in rows}

    def _renewal(self, batch: BatchId | None, now: datetime) -> str:
        """Return when the refresh began that this run begins or continues.

        A run that was killed or stopped halfway must not regenerate again what it regenerated:
        as long as any of its jobs is left, images since its beginning are new enough.
        """
        row = self.conn.execute(
            UNFINISHED_RENEWAL,
            {
                "batch": batch,
                **only_values(self.only),
                "day_ago": timestamp(now - timedelta(days=1)),
            },
        ).fetchone()
        return row["renewal"] or timestamp(now)

    def _meet(self, batch: BatchId | None) -> None:
        """Look up once what the ledger knows of each planned job; the rest goes by that."""
        if batch is not None and batch != self._met:
            self.conn.execute("DELETE FROM staging.known")
            if not self._keep_rejected:
                find_rejected(self.conn, batch)
            values = {"batch": batch, "renewal": self._renewal_at, **only_values(self.only)}
            self.conn.execute(MEET, values)
            self._met, self._has_shared = batch, False
            if self._is_of_ledger:
                find_own_shared(self.conn, batch)
        if self.shares and not self._has_shared:
            find_shared(self.conn, self.only)
            self._has_shared = True

    def rows_at_fault(self) -> int:
        """Count the rows with a job that fails because of its row."""
        return rows_at_fault(self.conn) if self._has_refused else 0

    def resolve(self, only: Only | None, name: str) -> None:
        """Match ``only`` with the planned keys. SettingsError for what matches no job."""
        self.only = resolve_planned(self.conn, only, name)

    def models(self) -> list[str]:
        """Return the models of the plan, by name."""
        rows = self.conn.execute("SELECT DISTINCT model FROM staging.kinds ORDER BY model")
        return [row["model"] for row in rows]

    def compare(self, batch: BatchId | None, *, partial: bool = False) -> dict[Group, GroupSum]:
        """Return what a run would do: each group that has jobs, with the price of one request each.

        Of the jobs that the selection takes up; a ``partial`` plan retires none.
        """
        self._meet(batch)
        groups: dict[Group, GroupSum] = {}
        values = {**only_values(self.only), "has_refused": self._has_refused}
        for row in self.conn.execute(ALL_NEW if self._are_all_new() else COMPARE, values):
            if row["jobs"]:
                found = GroupSum(row["jobs"], Micros(row["cost"]), row["free"])
                groups[Group(row["grp"])] = found
        retired = 0 if partial else self._retired(batch)
        if retired:
            groups[Group.RETIRED] = GroupSum(retired, ZERO)
        return groups

    def repeats(self, batch: BatchId | None) -> Repeats:
        """Return the jobs to send that repeat another one; none where that is not known."""
        if self.jobs < 2 or self.shares or self._is_of_ledger:
            return NO_REPEATS
        self._meet(batch)
        return repeats(self.conn, self.only)

    def to_send(self, batch: BatchId | None, limit: int | None = None) -> ToSend:
        """Return the requests that a run sends: the first ``limit`` jobs of the groups to send."""
        self._meet(batch)
        values: dict[str, object] = {
            **only_values(self.only),
            "limit": -1 if limit is None else limit,
        }
        known = self.conn.execute(FIRST_KNOWN, values).fetchone()
        if limit is not None:
            values["limit"] = limit - known["jobs"]
        new = self.conn.execute(FIRST_NEW, values).fetchone()
        return ToSend(
            requests=known["jobs"] + new["jobs"],
            cost=Micros(known["cost"] + new["cost"]),
        )

    def _are_all_new(self) -> bool:
        """Return whether every job is new, and a run sends a request for it."""
        if self.only is not None or self._has_refused or self.shares or self._is_of_ledger:
            return False
        return self.conn.execute("SELECT 1 FROM staging.known LIMIT 1").fetchone() is None

    def _retired(self, batch: BatchId | None) -> int:
        """Count the jobs of the batch that are not planned."""
        if batch is None:
            return 0
        if self.keeps_unplanned:
            row = self.conn.execute(
                f"SELECT count(*) AS n FROM jobs WHERE batch_id = :batch AND {IS_UNPLANNED}"
                " AND fingerprint = ''",
                {"batch": batch},
            ).fetchone()
            return int(row["n"])
        (jobs,) = self.conn.execute(
            "SELECT count(*) FROM jobs WHERE batch_id = ?", (batch,)
        ).fetchone()
        (known,) = self.conn.execute("SELECT count(*) FROM staging.known").fetchone()
        return int(jobs - known)

    def models_to_ask(self, batch: BatchId | None) -> list[str]:
        """Return the models of the jobs that a run would send requests for, by name."""
        self._meet(batch)
        if self._are_all_new():
            return self.models()
        rows = self.conn.execute(MODELS_TO_ASK, only_values(self.only))
        return [row["model"] for row in rows]

    def explain(self, batch: BatchId | None, key: str) -> JobExplanation | None:
        """Return a planned job and its image; None for a key that is not planned."""
        from batchgen.ledger.explain import explain_job  # no run needs it

        self._meet(batch)
        return explain_job(self.conn, key)

    def foreign_images(self, batch: BatchId) -> dict[str, int]:
        """Count the images of other providers that a run would replace, by provider."""
        self._meet(batch)
        return {row["provider"]: row["images"] for row in self.conn.execute(FOREIGN)}

    def moves(self, batch: BatchId, *, after: int, limit: int) -> list[Move]:
        """Return a page of saved images of unchanged jobs that return or have another place."""
        self._meet(batch)
        rows = self.conn.execute(MOVES, {"after": after, "limit": limit})
        return [Move(**dict(row)) for row in rows]

    def contested(self, batch: BatchId) -> list[Contested]:
        """Return images of returning or moving jobs whose files may be those of other jobs."""
        self._meet(batch)
        if self.conn.execute(ANY_CONTESTED).fetchone() is None:
            return []
        rows = (dict(row) for row in self.conn.execute(CONTESTED))
        return [Contested(**row | {"is_in_use": bool(row["is_in_use"])}) for row in rows]

    def enroll(
        self, identity: BatchIdentity, then: Callable[[BatchId], None] | None = None
    ) -> BatchId:
        """Put the staged plan into the ledger in one transaction, together with ``then``.

        A new key is inserted; the state of a known one follows from its group; a key that is not
        planned any more is retired. What would be pending and is refused by the plan has failed:
        nothing was sent for it.
        """
        now = timestamp(self._clock())
        with write_transaction(self.conn):
            batch = enroll_batch(self.conn, identity, now)
            self._meet(batch)
            values = self._values(batch, now)
            if not identity.partial and self._retired(batch):
                self.conn.execute(RETIRE, values)
            self._change(values)
            self.conn.execute(STAY)
            self.conn.execute(ROOTS, values)
            self.conn.execute(INSERT_NEW, values)
            self.conn.execute(TALLY, values)
            if self._has_refused:
                self.conn.execute(HOLD, values)
                self.conn.execute(REFUSE, values)
            write_shared(self.conn, batch, partial=identity.partial)
            self.conn.execute(
                "INSERT OR IGNORE INTO prices (provider, model, price, source, taken_at)"
                " SELECT DISTINCT provider, model, estimated, ?, ? FROM staging.kinds",
                (identity.price_source, now),
            )
            if then is not None:
                then(batch)
            hit(Point.ENROLLED)
        return batch

    def go_on(self, batch: BatchId, then: Callable[[BatchId], None]) -> None:
        """Enroll as `enroll` does, for a batch that is staged from the ledger."""
        now = timestamp(self._clock())
        with write_transaction(self.conn):
            self._meet(batch)
            self._change(self._values(batch, now))
            then(batch)
            hit(Point.ENROLLED)

    def _values(self, batch: BatchId, now: str) -> dict[str, object]:
        return {
            "batch": batch,
            "now": now,
            "renewal": self._renewal_at,
            "keeps_unplanned": self.keeps_unplanned,
            **only_values(self.only),
        }

    def _change(self, values: dict[str, object]) -> None:
        """Let each known job become what its group says."""
        self.conn.execute(GIVE_UP, values)
        self.conn.execute(CHANGE, values)
