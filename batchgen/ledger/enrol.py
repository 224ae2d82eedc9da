"""From a stream of planned jobs to the ledger: staged on disk, compared, then enrolled at once."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from batchgen.errors import Fault, ManifestError
from batchgen.failpoints import Point, reach
from batchgen.job import (
    PATH_REASON,
    REFERENCE_REASON,
    BatchId,
    OptionValue,
    PlannedJob,
    canonical_json,
)
from batchgen.ledger.ledger import Clock, timestamp, utc_now
from batchgen.ledger.transaction import write_transaction
from batchgen.money import ZERO, Micros
from batchgen.why import MadeOf

Price = Callable[[str, Mapping[str, OptionValue], int], Micros]
"""Price of one request in micros, from model, options and number of reference images."""
CollisionKey = Callable[[str, str], str]
"""One text for all spellings of an output path that some file system takes for the same."""

_PAGE: Final = 2_000
_MAX_FAULTS: Final = 100

_STAGING: Final = """
CREATE TABLE staging.planned (
    seq INTEGER PRIMARY KEY, key TEXT NOT NULL, collision TEXT NOT NULL,
    fingerprint TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL, prompt TEXT NOT NULL,
    options TEXT NOT NULL, images TEXT NOT NULL, mask TEXT, root TEXT NOT NULL, path TEXT NOT NULL,
    verify TEXT NOT NULL, keep_previous INTEGER NOT NULL, keep_partials INTEGER NOT NULL,
    sidecar INTEGER NOT NULL, metadata INTEGER NOT NULL,
    tags TEXT NOT NULL, source TEXT NOT NULL, estimated INTEGER NOT NULL, stale_before TEXT,
    refused TEXT,
    UNIQUE (key), UNIQUE (collision)
)
"""
_COLUMNS: Final = (
    "key, collision, fingerprint, provider, model, prompt, options, images, mask, root, path,"
    " verify, keep_previous, keep_partials, sidecar, metadata, tags, source, estimated,"
    " stale_before, refused"
)
_INSERT: Final = f"INSERT INTO staging.planned ({_COLUMNS}) VALUES ({', '.join('?' * 21)})"


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

    only: str | None = None
    """A glob over keys, where ``*`` also stands for ``/``; other jobs are left as they are."""
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
    """A private table on disk beside the ledger's own; it is gone when the connection closes."""

    def __init__(self, conn: sqlite3.Connection, clock: Clock = utc_now) -> None:
        self.conn = conn
        self._clock = clock
        self.jobs = 0
        """How many jobs are staged."""
        self._renewed_at = timestamp(clock())
        # An empty name gives a temporary database that spills to disk and leaves no file behind.
        conn.execute("ATTACH DATABASE '' AS staging")
        conn.execute("PRAGMA staging.journal_mode = OFF")
        conn.execute(_STAGING)

    def close(self) -> None:
        """Forget what is staged; it is planned anew."""
        self.conn.execute("DETACH DATABASE staging")

    def fill(
        self,
        jobs: Iterable[PlannedJob],
        *,
        price: Price,
        collision_key: CollisionKey,
        progress: Callable[[int], None] | None = None,
        selection: Selection = EVERYTHING,
        batch: BatchId | None = None,
    ) -> None:
        """Stage the whole plan as a stream. ``batch`` is what the ledger knows it as, if it does.

        Raises ManifestError with every job whose key or output path another job has already, and
        with the faults that the stream ends with; the ledger is not touched by then.
        """
        faults: list[Fault] = []
        now = self._clock()
        self._renewed_at = self._renewal(batch, now)

        def stale_before(refresh: str) -> str | None:
            if selection.since is not None:
                return timestamp(selection.since)
            return _stale_before(selection.refresh or refresh, now, self._renewed_at)

        as_json = _JsonOfOptions()
        for page in _pages(jobs, faults):
            rows = [_row(job, price, collision_key, stale_before, as_json) for job in page]
            faults += self._insert(rows)
            self.jobs += len(page)
            if progress is not None:
                progress(self.jobs)
            if len(faults) >= _MAX_FAULTS:
                break
        if faults:
            raise ManifestError(faults)
        if selection.only is not None:
            self.conn.execute(
                "UPDATE staging.planned SET stale_before = NULL WHERE NOT key GLOB ?",
                (selection.only,),
            )

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

    def _insert(self, rows: list[tuple[object, ...]]) -> list[Fault]:
        """Insert a page, but for rows that are in the way of an earlier one; those are faults."""
        faults = []
        self.conn.execute("BEGIN")
        before = self.conn.total_changes
        try:
            self.conn.executemany(_INSERT, rows)
        except sqlite3.IntegrityError:
            # Without a journal there is no way back: what was inserted stays, and it goes on there.
            for row in rows[self.conn.total_changes - before :]:
                try:
                    self.conn.execute(_INSERT, row)
                except sqlite3.IntegrityError:
                    faults.append(self._taken(row))
        self.conn.execute("COMMIT")
        return faults

    def _taken(self, row: tuple[object, ...]) -> Fault:
        """What is wrong with a row whose key or output path an earlier job has."""
        planned = dict(zip(_COLUMNS.split(", "), row, strict=True))
        standing = self.conn.execute(
            "SELECT key, source FROM staging.planned WHERE key = :key OR collision = :collision"
            " ORDER BY key = :key DESC",
            {"key": planned["key"], "collision": planned["collision"]},
        ).fetchone()
        same_key = standing["key"] == planned["key"]
        what = f"key {planned['key']!r}" if same_key else f"output path {planned['path']!r}"
        source = str(planned["source"])
        taker = "a job of the same line" if standing["source"] == source else standing["source"]
        file, _, line = source.rpartition(":")
        return Fault(
            file=file if line.isdecimal() else source,
            line=int(line) if line.isdecimal() else 0,
            column=0,
            path="key" if same_key else "output.path",
            message=f"the {what} is taken already by {taker} ({standing['key']});"
            " each job needs its own",
        )

    def models(self) -> list[str]:
        """The models that the plan asks for, by name."""
        rows = self.conn.execute("SELECT DISTINCT model FROM staging.planned ORDER BY model")
        return [row["model"] for row in rows]

    def compare(
        self, batch: BatchId | None, *, only: str | None = None, partial: bool = False
    ) -> dict[Group, GroupSum]:
        """What a run would do: each group that has jobs, with the price of one request each.

        With ``only``, a glob over keys, of those jobs alone; a ``partial`` plan retires none.
        """
        groups: dict[Group, GroupSum] = {}
        rows = self.conn.execute(
            f"""
            SELECT {_GROUP_CASE} AS grp, count(*) AS jobs, sum(planned.estimated) AS cost
            FROM staging.planned AS planned
            LEFT JOIN jobs ON jobs.batch_id = ? AND jobs.key = planned.key
            WHERE ? IS NULL OR planned.key GLOB ?
            GROUP BY grp
            """,
            (batch, only, only),
        )
        for row in rows:
            groups[Group(row["grp"])] = GroupSum(row["jobs"], Micros(row["cost"]))
        (retired,) = self.conn.execute(
            "SELECT count(*) FROM jobs WHERE batch_id = ? AND key NOT IN"
            " (SELECT key FROM staging.planned)",
            (batch,),
        ).fetchone()
        if retired and not partial:
            groups[Group.RETIRED] = GroupSum(retired, ZERO)
        return groups

    def models_to_ask(self, batch: BatchId | None, *, only: str | None = None) -> list[str]:
        """The models of the jobs that a run would send requests for, by name."""
        rows = self.conn.execute(
            f"""
            SELECT DISTINCT planned.model AS model FROM staging.planned AS planned
            LEFT JOIN jobs ON jobs.batch_id = ? AND jobs.key = planned.key
            WHERE (? IS NULL OR planned.key GLOB ?)
              AND {_GROUP_CASE} IN (SELECT value FROM json_each(?)) ORDER BY 1
            """,
            (batch, only, only, canonical_json([group for group in Group if group.is_sent])),
        )
        return [row["model"] for row in rows]

    def why(self, batch: BatchId | None, key: str) -> Why | None:
        """A planned job beside what its picture was made of; None for a key that is not planned."""
        row = self.conn.execute(
            """
            SELECT planned.fingerprint AS fingerprint, planned.model AS model,
                   planned.prompt AS prompt, planned.options AS options, planned.images AS images,
                   planned.mask AS mask, planned.refused AS refused, jobs.state AS state,
                   jobs.reason AS reason, jobs.done_at AS done_at, stale_before,
                   iif(jobs.state = 'done' OR jobs.made_of IS NULL, json_object(
                       'fingerprint', jobs.fingerprint, 'model', jobs.model,
                       'prompt', jobs.prompt, 'options', json(jobs.options),
                       'images', json(jobs.images), 'mask', jobs.mask), jobs.made_of) AS made_of
            FROM staging.planned AS planned
            LEFT JOIN jobs ON jobs.batch_id = ? AND jobs.key = planned.key
            WHERE planned.key = ?
            """,
            (batch, key),
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
        rows = self.conn.execute(
            """
            SELECT attempts.provider AS provider, count(DISTINCT jobs.id) AS pictures
            FROM staging.planned AS planned
            JOIN jobs ON jobs.batch_id = ? AND jobs.key = planned.key
            JOIN images ON images.job_id = jobs.id AND images.state = 'saved'
            JOIN attempts ON attempts.id = images.attempt_id
            WHERE jobs.fingerprint <> planned.fingerprint
              AND attempts.provider <> planned.provider
            GROUP BY 1
            """,
            (batch,),
        )
        return {row["provider"]: row["pictures"] for row in rows}

    def moves(self, batch: BatchId, *, after: int, limit: int) -> list[Move]:
        """A page of saved pictures of unchanged jobs that are planned for another place."""
        rows = self.conn.execute(
            """
            SELECT images.id AS image, jobs.key AS key, images.root AS root, images.path AS path,
                   sha256, format, planned.root AS new_root, planned.path AS new_path,
                   (SELECT count(*) FROM images AS before WHERE before.position < images.position
                    AND before.attempt_id = images.attempt_id) AS rank
            FROM staging.planned AS planned
            JOIN jobs ON jobs.batch_id = ? AND jobs.key = planned.key
            JOIN images ON images.job_id = jobs.id AND images.state = 'saved'
            WHERE jobs.state = 'done' AND jobs.fingerprint = planned.fingerprint
              AND (jobs.root, jobs.path) <> (planned.root, planned.path) AND images.id > ?
            ORDER BY images.id LIMIT ?
            """,
            (batch, after, limit),
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
            self.conn.execute(_ENROL, {"batch": batch, "now": now})
            self.conn.execute(_REFUSE, {"batch": batch, "now": now})
            self.conn.execute(
                "INSERT OR IGNORE INTO prices (provider, model, price, source, taken_at)"
                " SELECT DISTINCT provider, model, estimated, ?, ? FROM staging.planned",
                (identity.price_source, now),
            )
            if not identity.partial:
                self.conn.execute(
                    "UPDATE jobs SET retired = 1 WHERE batch_id = :batch AND retired = 0"
                    " AND plan < (SELECT plan FROM batches WHERE id = :batch)",
                    {"batch": batch},
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
        return BatchId(row["id"])


_NEVER_SENT: Final = (
    "jobs.state = 'failed' AND substr(jobs.reason, 1, instr(jobs.reason, ':') - 1)"
    f" IN ('{REFERENCE_REASON}', '{PATH_REASON}')"
)
"""Failed for want of a reference image, or for a file in its way: that may be mended by now."""
_STALE: Final = "jobs.state = 'done' AND jobs.done_at < planned.stale_before"
_GROUP_CASE: Final = f"""
    CASE
        WHEN jobs.state = 'paid' THEN '{Group.PAID}'
        WHEN planned.refused IS NOT NULL AND (jobs.id IS NULL OR {_STALE}
            OR jobs.state = 'pending' OR jobs.fingerprint <> planned.fingerprint)
            THEN '{Group.REFUSED}'
        WHEN jobs.id IS NULL THEN '{Group.NEW}'
        WHEN jobs.fingerprint <> planned.fingerprint THEN '{Group.CHANGED}'
        WHEN {_STALE} THEN '{Group.STALE}'
        WHEN {_NEVER_SENT}
            THEN iif(planned.refused IS NULL, '{Group.PENDING}', '{Group.REFUSED}')
        WHEN jobs.state IN ('pending', 'sending') THEN '{Group.PENDING}'
        WHEN jobs.state = 'done' AND (jobs.root, jobs.path) <> (planned.root, planned.path)
            THEN '{Group.MOVED}'
        WHEN jobs.state = 'done' THEN '{Group.UNCHANGED}'
        ELSE jobs.state
    END
"""
_AGAIN: Final = f"""
    (jobs.state NOT IN ('paid', 'sending') AND (
        jobs.fingerprint <> excluded.fingerprint
        OR ({_NEVER_SENT})
        OR (jobs.state = 'done' AND jobs.done_at < (
            SELECT stale_before FROM staging.planned AS p WHERE p.key = excluded.key))))
"""


_ENROL: Final = f"""
INSERT INTO jobs (batch_id, key, state, fingerprint, model, prompt, options, images, mask, root,
                  path, verify, keep_previous, keep_partials, sidecar, metadata, tags, source,
                  estimated, plan, changed_at)
SELECT :batch, key, 'pending', fingerprint, model, prompt, options, images, mask, root, path,
       verify, keep_previous, keep_partials, sidecar, metadata, tags, source, estimated,
       (SELECT plan FROM batches WHERE id = :batch), :now
FROM staging.planned WHERE true ORDER BY seq
ON CONFLICT (batch_id, key) DO UPDATE SET
    state = CASE WHEN {_AGAIN} THEN 'pending' ELSE jobs.state END,
    reason = CASE WHEN {_AGAIN} THEN NULL ELSE jobs.reason END,
    tries = CASE WHEN {_AGAIN} THEN 0 ELSE jobs.tries END,
    doubts = CASE WHEN {_AGAIN} THEN 0 ELSE jobs.doubts END,
    changed_at = CASE WHEN {_AGAIN} THEN excluded.changed_at ELSE jobs.changed_at END,
    made_of = CASE WHEN jobs.state = 'done' AND jobs.fingerprint <> excluded.fingerprint
        THEN json_object('fingerprint', jobs.fingerprint, 'model', jobs.model,
            'prompt', jobs.prompt, 'options', json(jobs.options), 'images', json(jobs.images),
            'mask', jobs.mask)
        ELSE jobs.made_of END,
    fingerprint = excluded.fingerprint, model = excluded.model, prompt = excluded.prompt,
    options = excluded.options, images = excluded.images, mask = excluded.mask,
    root = excluded.root, path = excluded.path, verify = excluded.verify,
    keep_previous = excluded.keep_previous, keep_partials = excluded.keep_partials,
    sidecar = excluded.sidecar, metadata = excluded.metadata,
    tags = excluded.tags, source = excluded.source, estimated = excluded.estimated,
    plan = excluded.plan, retired = 0
"""


_REFUSE: Final = """
UPDATE jobs SET state = 'failed', changed_at = :now, reason =
    (SELECT refused FROM staging.planned WHERE planned.key = jobs.key)
WHERE batch_id = :batch AND retired = 0 AND state = 'pending'
  AND key IN (SELECT key FROM staging.planned WHERE refused IS NOT NULL)
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


def _row(
    job: PlannedJob,
    price: Price,
    collision_key: CollisionKey,
    stale_before: Callable[[str], str | None],
    json_of_options: Callable[[Mapping[str, OptionValue]], str],
) -> tuple[object, ...]:
    return (
        job.key,
        collision_key(job.root, job.path),
        job.fingerprint,
        job.provider,
        job.model,
        job.prompt,
        json_of_options(job.options),
        canonical_json(job.images) if job.images else "[]",
        job.mask,
        job.root,
        job.path,
        job.verify.value,
        int(job.keep_previous),
        int(job.keep_partials),
        int(job.sidecar),
        int(job.metadata),
        canonical_json(job.tags) if job.tags else "[]",
        job.source,
        price(job.model, job.options, len(job.images)),
        stale_before(job.refresh),
        job.refused,
    )


class _JsonOfOptions:
    """Rows of a table mostly share one mapping; its text is made once."""

    def __init__(self) -> None:
        self._options: Mapping[str, OptionValue] = {}
        self._text = "{}"

    def __call__(self, options: Mapping[str, OptionValue]) -> str:
        if options is not self._options:
            self._options, self._text = options, canonical_json(dict(options))
        return self._text


def _stale_before(refresh: str, now: datetime, renewed_at: str) -> str | None:
    if refresh == "changed":
        return None
    if refresh == "always":
        return renewed_at
    return timestamp(now - timedelta(days=int(refresh.removesuffix("d"))))
