"""From a stream of planned jobs to the ledger: staged on disk, compared, then enrolled at once."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import islice
from typing import Any, Final

from batchgen.errors import Fault, ManifestError
from batchgen.failpoints import Point, reach
from batchgen.job import (
    PATH_REASON,
    REFERENCE_REASON,
    ROW_REASON,
    BatchId,
    PlannedJob,
    canonical_json,
)
from batchgen.ledger.ledger import Clock, timestamp, utc_now
from batchgen.ledger.manifest_paths import Adoption, move_roots
from batchgen.ledger.only import IS_MEANT, Only, only_values, resolve_planned
from batchgen.ledger.staging import (
    MAX_FAULTS,
    PLAN,
    CollisionKey,
    Price,
    Priced,
    StagedRows,
    attach,
    refuse_rows,
    rows_at_fault,
    taken_twice,
)
from batchgen.ledger.transaction import write_transaction
from batchgen.money import ZERO, Micros
from batchgen.why import MadeOf

_PAGE: Final = 2_000


class Group(StrEnum):
    """What a run would do with a planned job."""

    NEW = "new"
    CHANGED = "changed"
    STALE = "stale"
    """Unchanged and done, but older than ``refresh`` allows."""
    PENDING = "pending"
    PAID = "paid"
    UNCERTAIN = "uncertain"
    FAILED = "failed"
    BLOCKED = "blocked"
    MOVED = "moved"
    """Unchanged and done, but planned for another place."""
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    """Its reference image can't be had; it fails, and nothing is sent."""
    AT_FAULT = "at_fault"
    """Its row has a fault; it fails, and nothing is sent."""
    KEPT = "kept"
    """Done, and its row has a fault now; it is left as it is."""
    RETIRED = "retired"

    @property
    def is_sent(self) -> bool:
        """Whether a run would send a request for it."""
        return self in (Group.NEW, Group.CHANGED, Group.STALE, Group.PENDING)


@dataclass(frozen=True, slots=True)
class GroupSum:
    """How many jobs of a group there are, and what one request for each would cost together."""

    jobs: int
    cost: Micros


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchIdentity:
    """What the ledger keeps of a manifest, so that a batch can be resumed without the file."""

    name: str
    provider: str
    price_source: str
    manifest_path: str
    manifest_sha256: str
    manifest: str
    adopted: Adoption | None = None
    """Set where the batch continues with a manifest at another path."""
    partial: bool = False
    """The plan is of some jobs only: the others are not retired, and the whole manifest is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """A planned job, and what the ledger knows of it."""

    planned: MadeOf
    made: MadeOf | None
    """What its picture was made of; None where there is none."""
    state: str | None
    """None where the ledger does not know the key."""
    reason: str
    done_at: str | None
    stale: bool
    """Older than ``refresh`` allows."""
    refused: str | None


def _made_of(values: dict[str, Any]) -> MadeOf:
    return MadeOf(
        fingerprint=values["fingerprint"],
        model=values["model"],
        prompt=values["prompt"],
        options=values["options"],
        images=tuple(values["images"]),
        mask=values["mask"],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What a run is told beyond its manifest: which jobs, and which pictures are too old."""

    only: Only | None = None
    """Other jobs are left as they are."""
    refresh: str | None = None
    """In place of the manifest's ``refresh``."""
    since: datetime | None = None
    """What was made before is made anew."""


EVERYTHING: Final = Selection()


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A saved picture that the plan wants elsewhere."""

    image: int
    key: str
    root: str
    path: str
    sha256: str
    format: str
    rank: int
    new_root: str
    new_path: str
    """As planned, with ``{ext}``."""


class Staging:
    """A private plan on disk beside the ledger's own; it is gone when the connection closes."""

    def __init__(self, conn: sqlite3.Connection, clock: Clock = utc_now) -> None:
        self.conn = conn
        self._clock = clock
        self.jobs = 0
        """How many jobs are staged."""
        self._renewed_at = timestamp(clock())
        self.only: Only | None = None
        """Which jobs may be renewed; None means all."""
        self._has_refused = False
        self.clashes: list[Fault] = []
        """Rows that are refused because an earlier job has their key or path, a hundred at most."""
        self.keeps_unplanned = False
        """Whether jobs that are not planned are kept, as a row at fault may be theirs."""
        self._met: BatchId | None = None
        attach(conn)

    def close(self) -> None:
        """Forget what is staged; it is planned anew."""
        self.conn.execute("DETACH DATABASE staging")

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
        self._renewed_at = self._renewal(batch, now)
        self.only = selection.only

        def stale_before(refresh: str) -> str | None:
            if selection.since is not None:
                return timestamp(selection.since)
            return _stale_before(selection.refresh or refresh, now, self._renewed_at)

        rows = StagedRows(
            self.conn,
            price=price,
            priced=priced,
            collision_key=collision_key,
            stale_before=stale_before,
        )
        faults: list[Fault] = []
        for page in _pages(jobs, faults):
            rows.write(page)
            self.jobs += len(page)
            if progress is not None:
                progress(self.jobs)
        clashes = list(taken_twice(self.conn, collision_key))
        alone = [clash for clash in clashes if clash.of_row and not strict]
        refuse_rows(self.conn, alone)
        self.clashes = [clash.fault for clash in alone[:MAX_FAULTS]]
        self._has_refused = rows.has_refused or bool(alone)
        fatal = (clash.fault for clash in clashes if strict or not clash.of_row)
        faults = [*islice(fatal, MAX_FAULTS), *faults]
        if faults:
            raise ManifestError(faults)

    def _renewal(self, batch: BatchId | None, now: datetime) -> str:
        """When the renewal of the batch began that this run goes on with, or begins itself.

        A run that was killed or stopped half way must not renew again what it has renewed.
        """
        row = self.conn.execute(
            "SELECT renewed_at FROM batches WHERE id = :batch AND renewed_at IS NOT NULL"
            " AND EXISTS (SELECT 1 FROM jobs WHERE batch_id = :batch AND retired = 0 AND ("
            " state IN ('pending', 'sending') OR (state = 'paid' AND changed_at > :day_ago)))",
            {"batch": batch, "day_ago": timestamp(now - timedelta(days=1))},
        ).fetchone()
        return row["renewed_at"] if row is not None else timestamp(now)

    def _meet(self, batch: BatchId | None) -> None:
        """Look up once what the ledger knows of each planned job; the rest goes by that."""
        if batch is None or batch == self._met:
            return
        self.conn.execute("DELETE FROM staging.known")
        self.conn.execute(_MEET, {"batch": batch, **only_values(self.only)})
        self._met = batch

    def rows_at_fault(self) -> int:
        """How many rows have a job that is refused for its row."""
        return rows_at_fault(self.conn) if self._has_refused else 0

    def resolve(self, only: Only | None, name: str) -> None:
        """Match ``only`` with the planned keys. SettingsError for what matches no job."""
        self.only = resolve_planned(self.conn, only, name)

    def models(self) -> list[str]:
        """The models that the plan asks for, by name."""
        rows = self.conn.execute("SELECT DISTINCT model FROM staging.kinds ORDER BY model")
        return [row["model"] for row in rows]

    def compare(
        self, batch: BatchId | None, *, only: Only | None = None, partial: bool = False
    ) -> dict[Group, GroupSum]:
        """What a run would do: each group that has jobs, with the price of one request each.

        With ``only``, of those jobs alone; a ``partial`` plan retires none.
        """
        self._meet(batch)
        groups: dict[Group, GroupSum] = {}
        values = {**only_values(only), "has_refused": self._has_refused}
        for row in self.conn.execute(_COMPARE, values):
            if row["jobs"]:
                groups[Group(row["grp"])] = GroupSum(row["jobs"], Micros(row["cost"]))
        retired = 0 if partial else self._retired(batch)
        if retired:
            groups[Group.RETIRED] = GroupSum(retired, ZERO)
        return groups

    def _retired(self, batch: BatchId | None) -> int:
        """How many jobs of the batch are not planned."""
        if batch is None:
            return 0
        if self.keeps_unplanned:
            row = self.conn.execute(
                f"SELECT count(*) AS n FROM jobs WHERE batch_id = :batch AND {_IS_UNPLANNED}"
                " AND fingerprint = ''",
                {"batch": batch},
            ).fetchone()
            return int(row["n"])
        (jobs,) = self.conn.execute(
            "SELECT count(*) FROM jobs WHERE batch_id = ?", (batch,)
        ).fetchone()
        (known,) = self.conn.execute("SELECT count(*) FROM staging.known").fetchone()
        return int(jobs - known)

    def models_to_ask(self, batch: BatchId | None, *, only: Only | None = None) -> list[str]:
        """The models of the jobs that a run would send requests for, by name."""
        self._meet(batch)
        sent = [group for group in Group if group.is_sent]
        rows = self.conn.execute(
            _MODELS_TO_ASK, {**only_values(only), "sent": canonical_json(sent)}
        )
        return [row["model"] for row in rows]

    def why(self, batch: BatchId | None, key: str) -> Why | None:
        """A planned job beside what its picture was made of; None for a key that is not planned."""
        row = self.conn.execute(
            f"""
            SELECT planned.fingerprint AS fingerprint, kinds.model AS model,
                   planned.prompt AS prompt, kinds.options AS options, planned.images AS images,
                   planned.mask AS mask, planned.refused AS refused, jobs.state AS state,
                   jobs.reason AS reason, jobs.done_at AS done_at,
                   iif({_IS_MEANT}, stale_before, NULL) AS stale_before,
                   iif(jobs.state = 'done' OR jobs.made_of IS NULL, json_object(
                       'fingerprint', jobs.fingerprint, 'model', jobs.model,
                       'prompt', jobs.prompt, 'options', json(jobs.options),
                       'images', json(jobs.images), 'mask', jobs.mask), jobs.made_of) AS made_of
            FROM {PLAN} LEFT JOIN jobs ON jobs.batch_id = :batch AND jobs.key = planned.key
            WHERE planned.key = :key
            """,
            {"batch": batch, "key": key, **only_values(self.only)},
        ).fetchone()
        if row is None:
            return None
        values = dict(row)
        planned = _made_of(
            values | {name: json.loads(values[name]) for name in ("options", "images")}
        )
        known = values["state"] is not None and values["done_at"] is not None
        stale = known and values["stale_before"] and values["done_at"] < values["stale_before"]
        return Why(
            planned=planned,
            made=_made_of(json.loads(values["made_of"])) if known else None,
            state=values["state"],
            reason=values["reason"] or "",
            done_at=values["done_at"],
            stale=bool(stale),
            refused=values["refused"],
        )

    def foreign_pictures(self, batch: BatchId) -> dict[str, int]:
        """How many pictures that another provider made a run would replace, by that provider."""
        self._meet(batch)
        rows = self.conn.execute(
            f"""
            SELECT attempts.provider AS provider, count(DISTINCT jobs.id) AS pictures
            FROM {_THAT_DIFFER}
            CROSS JOIN images ON images.job_id = jobs.id AND images.state = 'saved'
            CROSS JOIN attempts ON attempts.id = images.attempt_id
            WHERE differs AND jobs.fingerprint <> planned.fingerprint
              AND attempts.provider <> kinds.provider
            GROUP BY 1
            """
        )
        return {row["provider"]: row["pictures"] for row in rows}

    def moves(self, batch: BatchId, *, after: int, limit: int) -> list[Move]:
        """A page of saved pictures of unchanged jobs that are planned for another place."""
        self._meet(batch)
        rows = self.conn.execute(
            f"""
            SELECT images.id AS image, jobs.key AS key, images.root AS root, images.path AS path,
                   sha256, format, kinds.root AS new_root, planned.path AS new_path,
                   (SELECT count(*) FROM images AS before WHERE before.position < images.position
                    AND before.attempt_id = images.attempt_id) AS rank
            FROM {_THAT_DIFFER}
            CROSS JOIN images ON images.job_id = jobs.id AND images.state = 'saved'
            WHERE differs AND jobs.state = 'done' AND jobs.fingerprint = planned.fingerprint
              AND (jobs.root, jobs.path) <> (kinds.root, planned.path) AND images.id > ?
            ORDER BY images.id LIMIT ?
            """,
            (after, limit),
        )
        return [Move(**dict(row)) for row in rows]

    def moved(self, places: Iterable[tuple[str, str, int]]) -> None:
        """Write where pictures stand now: root, path and image of each."""
        with write_transaction(self.conn):
            self.conn.executemany("UPDATE images SET root = ?, path = ? WHERE id = ?", places)

    def enrol(self, identity: BatchIdentity) -> BatchId:
        """Put the staged plan into the ledger in one transaction.

        A new key is inserted; a known key with the same fingerprint keeps its state; a changed one
        goes back to pending; a key that is not planned any more is retired. What would be pending
        and is refused by the plan has failed: nothing was sent for it.
        """
        now = timestamp(self._clock())
        with write_transaction(self.conn):
            batch = self._enrol_batch(identity, now)
            self._meet(batch)
            values = {
                "batch": batch,
                "now": now,
                **only_values(self.only),
                "keeps_unplanned": self.keeps_unplanned,
            }
            if not identity.partial and self._retired(batch):
                self.conn.execute(_RETIRE, values)
            self.conn.execute(_CHANGE, values)
            self.conn.execute(_INSERT_NEW, values)
            self.conn.execute(_TALLY, values)
            if self._has_refused:
                self.conn.execute(_HOLD, values)
                self.conn.execute(_REFUSE, values)
            self.conn.execute(
                "INSERT OR IGNORE INTO prices (provider, model, price, source, taken_at)"
                " SELECT DISTINCT provider, model, estimated, ?, ? FROM staging.kinds",
                (identity.price_source, now),
            )
            reach(Point.ENROLLED)
        return batch

    def _enrol_batch(self, identity: BatchIdentity, now: str) -> BatchId:
        row = self.conn.execute(
            """
            INSERT INTO batches (name, provider, manifest_path, manifest_sha256, manifest, plan,
                                 created_at, planned_at, renewed_at)
            VALUES (:name, :provider, :path, :sha256, :manifest, 1, :now, :now, :renewed_at)
            ON CONFLICT (name) DO UPDATE SET provider = excluded.provider,
                manifest_path = iif(:partial, manifest_path, excluded.manifest_path),
                manifest = iif(:partial, manifest, excluded.manifest),
                manifest_sha256 = iif(:partial, manifest_sha256, excluded.manifest_sha256),
                plan = batches.plan + 1,
                planned_at = excluded.planned_at, renewed_at = excluded.renewed_at
            RETURNING id
            """,
            {
                "name": identity.name,
                "provider": identity.provider,
                "path": identity.manifest_path,
                "sha256": identity.manifest_sha256,
                "manifest": identity.manifest,
                "now": now,
                "renewed_at": self._renewed_at,
                "partial": identity.partial,
            },
        ).fetchone()
        if identity.adopted is not None:
            move_roots(self.conn, BatchId(row["id"]), identity.adopted)
        return BatchId(row["id"])


_NEVER_SENT: Final = (
    "jobs.state = 'failed' AND substr(jobs.reason, 1, instr(jobs.reason, ':') - 1)"
    f" IN ('{REFERENCE_REASON}', '{PATH_REASON}', '{ROW_REASON}')"
)
"""Failed for want of a reference image, a file in its way, or its row: that may be fixed by now."""
_AT_FAULT: Final = f"planned.refused GLOB '{ROW_REASON}:*'"
"""What the plan has of such a job is incomplete, so a known job keeps what it has."""
_IS_MEANT: Final = IS_MEANT.replace("key ", "planned.key ")
_STALE: Final = f"jobs.state = 'done' AND jobs.done_at < kinds.stale_before AND {_IS_MEANT}"
_GROUP_CASE: Final = f"""
    CASE
        WHEN jobs.state = 'paid' THEN '{Group.PAID}'
        WHEN {_AT_FAULT} THEN CASE
            WHEN jobs.state = 'pending' OR {_NEVER_SENT} THEN '{Group.AT_FAULT}'
            WHEN jobs.state = 'done' THEN '{Group.KEPT}'
            WHEN jobs.state = 'sending' THEN '{Group.PENDING}'
            ELSE jobs.state END
        WHEN jobs.fingerprint = '' AND {_NEVER_SENT} AND planned.refused IS NULL
            THEN '{Group.NEW}'
        WHEN planned.refused IS NOT NULL AND ({_STALE}
            OR jobs.state = 'pending' OR jobs.fingerprint <> planned.fingerprint)
            THEN '{Group.REFUSED}'
        WHEN jobs.fingerprint <> planned.fingerprint THEN '{Group.CHANGED}'
        WHEN {_STALE} THEN '{Group.STALE}'
        WHEN {_NEVER_SENT}
            THEN iif(planned.refused IS NULL, '{Group.PENDING}', '{Group.REFUSED}')
        WHEN jobs.state IN ('pending', 'sending') THEN '{Group.PENDING}'
        WHEN jobs.state = 'done' AND (jobs.root, jobs.path) <> (kinds.root, planned.path)
            THEN '{Group.MOVED}'
        WHEN jobs.state = 'done' THEN '{Group.UNCHANGED}'
        ELSE jobs.state
    END
"""
_OWN_COLUMNS: Final = ("fingerprint", "prompt", "images", "mask", "path", "source")
_KIND_COLUMNS: Final = (
    "model",
    "options",
    "root",
    "verify",
    "keep_previous",
    "keep_partials",
    "sidecar",
    "metadata",
    "tags",
    "estimated",
)
_COLUMNS: Final = {
    **{name: f"planned.{name}" for name in _OWN_COLUMNS},
    **{name: f"kinds.{name}" for name in _KIND_COLUMNS},
}
"""What the ledger keeps of a planned job, and where it stands in the plan."""
_AGAIN: Final = f"""
    (jobs.state NOT IN ('paid', 'sending') AND (
        jobs.fingerprint <> planned.fingerprint OR ({_NEVER_SENT}) OR ({_STALE})))
"""
_DIFFERS: Final = f"""
    jobs.retired OR {_AGAIN}
    OR ({", ".join(f"jobs.{name}" for name in _COLUMNS)}) IS NOT ({", ".join(_COLUMNS.values())})
"""
_MEET: Final = f"""
INSERT INTO staging.known (seq, job, was_retired, grp, differs)
SELECT seq, jobs.id, jobs.retired, {_GROUP_CASE},
    iif({_AT_FAULT}, 0, ifnull({_DIFFERS}, 0))
FROM {PLAN} CROSS JOIN jobs ON jobs.batch_id = :batch AND jobs.key = planned.key
"""
_THAT_DIFFER: Final = """
    staging.known CROSS JOIN staging.planned ON planned.seq = known.seq
    CROSS JOIN staging.kinds ON kinds.id = planned.kind CROSS JOIN jobs ON jobs.id = known.job
"""
_IS_NEW: Final = "NOT EXISTS (SELECT 1 FROM staging.known WHERE known.seq = planned.seq)"
_COMPARE: Final = f"""
SELECT '{Group.NEW}' AS grp, count(*) AS jobs, sum(estimated) AS cost
FROM {PLAN} WHERE {_IS_NEW} AND {_IS_MEANT} AND refused IS NULL
UNION ALL
SELECT grp, count(*), sum(estimated) FROM (
    SELECT grp, estimated FROM staging.known CROSS JOIN staging.planned ON planned.seq = known.seq
    CROSS JOIN staging.kinds ON kinds.id = planned.kind WHERE {_IS_MEANT}
    UNION ALL
    SELECT iif({_AT_FAULT}, '{Group.AT_FAULT}', '{Group.REFUSED}'), estimated FROM {PLAN}
    WHERE :has_refused AND refused IS NOT NULL AND {_IS_NEW} AND {_IS_MEANT}
) GROUP BY grp
"""
_MODELS_TO_ASK: Final = f"""
SELECT model FROM {PLAN} WHERE refused IS NULL AND {_IS_NEW} AND {_IS_MEANT}
UNION
SELECT model FROM staging.known CROSS JOIN staging.planned ON planned.seq = known.seq
CROSS JOIN staging.kinds ON kinds.id = planned.kind
WHERE grp IN (SELECT value FROM json_each(:sent)) AND {_IS_MEANT}
ORDER BY 1
"""
_IS_UNPLANNED: Final = "retired = 0 AND id NOT IN (SELECT job FROM staging.known)"
_RETIRE: Final = f"""
UPDATE jobs SET retired = 1
WHERE batch_id = :batch AND {_IS_UNPLANNED} AND (NOT :keeps_unplanned OR fingerprint = '')
"""
_CHANGE: Final = f"""
UPDATE jobs SET
    state = iif({_AGAIN}, 'pending', jobs.state),
    reason = iif({_AGAIN}, NULL, jobs.reason),
    tries = iif({_AGAIN}, 0, jobs.tries),
    doubts = iif({_AGAIN}, 0, jobs.doubts),
    cuts = iif({_AGAIN}, 0, jobs.cuts),
    changed_at = iif({_AGAIN}, :now, jobs.changed_at),
    made_of = iif(jobs.state = 'done' AND jobs.fingerprint <> planned.fingerprint,
        json_object('fingerprint', jobs.fingerprint, 'model', jobs.model, 'prompt', jobs.prompt,
            'options', json(jobs.options), 'images', json(jobs.images), 'mask', jobs.mask),
        jobs.made_of),
    {", ".join(f"{name} = {value}" for name, value in _COLUMNS.items())},
    plan = (SELECT plan FROM batches WHERE id = :batch), retired = 0
FROM staging.known CROSS JOIN staging.planned ON planned.seq = known.seq
    CROSS JOIN staging.kinds ON kinds.id = planned.kind
WHERE known.differs AND jobs.id = known.job
"""
_INSERT_NEW: Final = f"""
INSERT INTO jobs (batch_id, key, state, {", ".join(_COLUMNS)}, plan, changed_at)
SELECT :batch, key, 'pending', {", ".join(_COLUMNS.values())},
       (SELECT plan FROM batches WHERE id = :batch), :now
FROM {PLAN} WHERE {_IS_NEW} ORDER BY seq
"""
_TALLY: Final = f"""
UPDATE tallies SET jobs = tallies.jobs + new.jobs, estimated = tallies.estimated + new.estimated
FROM (SELECT count(*) AS jobs, coalesce(sum(estimated), 0) AS estimated FROM {PLAN} WHERE {_IS_NEW})
    AS new
WHERE batch_id = :batch
"""
_HOLD: Final = f"""
UPDATE jobs SET retired = 0, source = planned.source,
    reason = iif({_NEVER_SENT}, planned.refused, jobs.reason),
    plan = (SELECT plan FROM batches WHERE id = :batch)
FROM staging.known CROSS JOIN staging.planned ON planned.seq = known.seq
WHERE {_AT_FAULT} AND jobs.id = known.job
"""
_REFUSE: Final = """
UPDATE jobs SET state = 'failed', changed_at = :now, reason = planned.refused
FROM staging.planned
WHERE planned.refused IS NOT NULL AND jobs.batch_id = :batch AND jobs.key = planned.key
  AND jobs.retired = 0 AND jobs.state = 'pending'
"""


def _pages(jobs: Iterable[PlannedJob], faults: list[Fault]) -> Iterator[list[PlannedJob]]:
    """The stream in pages; the faults that it ends with are added to those that are known."""
    page: list[PlannedJob] = []
    try:
        for job in jobs:
            page.append(job)
            if len(page) == _PAGE:
                yield page
                page = []
    except ManifestError as exc:
        faults += exc.faults
    if page:
        yield page


def _stale_before(refresh: str, now: datetime, renewed_at: str) -> str | None:
    if refresh == "changed":
        return None
    if refresh == "always":
        return renewed_at
    return timestamp(now - timedelta(days=int(refresh.removesuffix("d"))))
