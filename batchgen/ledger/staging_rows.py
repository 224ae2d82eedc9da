"""A plan on disk before it is enrolled: what jobs have in common once, the rest job by job."""

from __future__ import annotations

import operator
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from batchgen.errors import Fault, ManifestError
from batchgen.job import (
    EXT_PLACEHOLDER,
    ROW_REASON,
    JobKind,
    OptionValue,
    PlannedJob,
    canonical_json,
)
from batchgen.ledger.clock import timestamp
from batchgen.ledger.relocations import TABLES as MOVE_TABLES
from batchgen.money import Micros

Price = Callable[[str, Mapping[str, OptionValue], int], Micros]
"""Price of one request in micros, from model, options and number of reference images."""
Priced = Callable[[str, Mapping[str, OptionValue], int, Micros, int], None]
"""Called for jobs that were staged: model, options, references, price of each, how many."""
CollisionKey = Callable[[str, str], str]
"""One text for all spellings of an output path that some file system takes for the same."""

MAX_FAULTS: Final = 100
_PAGE: Final = 2_000
_PAGE_BYTES: Final = 16_384
"""Rows are written and read in their order; larger pages save a third of that."""
_EXTENSION: Final = f".{EXT_PLACEHOLDER}"
_MAX_KINDS: Final = 1_024

_TABLES: Final = (
    """
    CREATE TABLE staging.kinds (
        id INTEGER PRIMARY KEY, provider TEXT NOT NULL, model TEXT NOT NULL, options TEXT NOT NULL,
        root TEXT NOT NULL, verify TEXT NOT NULL, keep_previous INTEGER NOT NULL,
        keep_partials INTEGER NOT NULL, sidecar INTEGER NOT NULL, metadata INTEGER NOT NULL,
        publish TEXT NOT NULL, tags TEXT NOT NULL, estimated INTEGER NOT NULL, stale_before TEXT,
        of_rows INTEGER NOT NULL, is_variant INTEGER NOT NULL DEFAULT 0,
        jobs INTEGER NOT NULL DEFAULT 0
    )
    """,
    """
    CREATE TABLE staging.planned (
        seq INTEGER PRIMARY KEY, kind INTEGER NOT NULL, key TEXT NOT NULL,
        key_hash INTEGER NOT NULL, place_hash INTEGER, fingerprint TEXT NOT NULL,
        prompt TEXT NOT NULL, path TEXT NOT NULL, source TEXT NOT NULL, images TEXT NOT NULL,
        mask TEXT, refused TEXT
    )
    """,
    """
    CREATE TABLE staging.forecasts (
        job INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL, forecast TEXT NOT NULL
    )
    """,
    """
    CREATE TABLE staging.others (
        place_hash INTEGER NOT NULL, key TEXT NOT NULL, path TEXT NOT NULL
    )
    """,
    "CREATE INDEX staging.others_by_place ON others(place_hash)",
)
_INSERT_KIND: Final = f"INSERT INTO staging.kinds VALUES (NULL{', ?' * 15}, 0)"
_COUNT: Final = "UPDATE staging.kinds SET jobs = jobs + ? WHERE id = ?"
_INSERT: Final = f"INSERT INTO staging.planned VALUES (NULL{', ?' * 11})"
_INSERT_PLAIN: Final = f"INSERT INTO staging.planned VALUES (NULL{', ?' * 8}, '[]', NULL, NULL)"
PLAN: Final = "staging.planned CROSS JOIN staging.kinds ON kinds.id = planned.kind"
"""Every planned job with its kind, in the plan's order."""


def attach(conn: sqlite3.Connection, file: str = "", *, tables: Sequence[str] = ()) -> None:
    """Begin an empty plan with ``tables`` besides its own.

    Without a file it is private to the connection, and gone with it.
    """
    # An empty name gives a temporary database that spills to disk and leaves no file.
    conn.execute("ATTACH DATABASE ? AS staging", (file,))
    conn.execute(f"PRAGMA staging.page_size = {_PAGE_BYTES}")
    conn.execute("PRAGMA staging.journal_mode = OFF")
    conn.execute("PRAGMA staging.synchronous = OFF")
    conn.execute("PRAGMA staging.locking_mode = EXCLUSIVE")
    for table in (*_TABLES, *MOVE_TABLES, *tables):
        conn.execute(table)


# One kind for all jobs of a ledger that have it in common; a job keeps its id as its place.
_OWN_KINDS: Final = """
INSERT INTO staging.kinds (provider, model, options, root, verify, keep_previous, keep_partials,
    sidecar, metadata, publish, tags, estimated, of_rows)
SELECT DISTINCT :provider, model, options, root, verify, keep_previous, keep_partials, sidecar,
    metadata, publish, tags, estimated, 0
FROM jobs WHERE batch_id = :batch AND retired = 0
    AND state IN ('pending', 'sending', 'paid', 'failed')
"""
# Without its row a job at fault cannot be sent.
_OWN_JOBS: Final = f"""
INSERT INTO staging.planned
SELECT jobs.id, kinds.id, key, 0, 0, fingerprint, prompt, path, source, images, mask,
    iif(state = 'failed' AND reason GLOB '{ROW_REASON}:*', reason, NULL)
FROM jobs CROSS JOIN staging.kinds ON (kinds.model, kinds.options, kinds.root, kinds.verify,
    kinds.keep_previous, kinds.keep_partials, kinds.sidecar, kinds.metadata, kinds.publish,
    kinds.tags, kinds.estimated) = (jobs.model, jobs.options, jobs.root, jobs.verify,
    jobs.keep_previous, jobs.keep_partials, jobs.sidecar, jobs.metadata, jobs.publish, jobs.tags,
    jobs.estimated)
WHERE batch_id = :batch AND retired = 0 AND state IN ('pending', 'sending', 'paid', 'failed')
"""


def stage_own(conn: sqlite3.Connection, batch: int, provider: str) -> int:
    """Stage the jobs of a batch that a run may have to do with, as the ledger has them."""
    values = {"batch": batch, "provider": provider}
    conn.execute("BEGIN")
    try:
        conn.execute(_OWN_KINDS, values)
        conn.execute(
            "CREATE INDEX staging.kinds_by_value ON kinds(model, options, root, tags, estimated)"
        )
        return conn.execute(_OWN_JOBS, values).rowcount
    finally:
        conn.execute("COMMIT")


class StagedRows:
    """Writes planned jobs, page by page."""

    def __init__(
        self,
        conn: sqlite3.Connection,
        *,
        price: Price,
        priced: Priced | None,
        collision_key: CollisionKey,
        stale_before: Callable[[str], str | None],
    ) -> None:
        self._conn = conn
        self._price = price
        self._priced = priced
        self._collision_key = collision_key
        self._stale_before = stale_before
        self._kinds = dict[tuple[int, int], tuple[JobKind, int, Micros]]()
        """By identity, which holds while they are kept here, and number of references."""
        self._counts = dict[int, int]()
        """How many jobs of a page are of each kind."""
        self.has_refused = False
        """Whether nothing can be sent for some job."""
        self.paths_are_keys = True
        """Whether the path of every job is its key with the extension, as it is by default."""

    def write(self, page: Sequence[PlannedJob]) -> None:
        """Append jobs. Raises what ``price`` raises."""
        self._conn.execute("BEGIN")
        try:
            rows, is_plain = self._rows(page)
            if is_plain:
                self._conn.executemany(_INSERT_PLAIN, rows)
            else:
                self.has_refused = self.has_refused or any(job.refused for job in page)
                self._conn.executemany(_INSERT, map(operator.add, rows, map(_more, page)))
            counts = [(jobs, number) for number, jobs in self._counts.items()]
            self._conn.executemany(_COUNT, counts)
            self._counts.clear()
        finally:
            self._conn.execute("COMMIT")  # without a journal nothing can be rolled back

    def _rows(self, page: Sequence[PlannedJob]) -> tuple[list[tuple[object, ...]], bool]:
        """Return the columns that every job has, and whether no job has more.

        Binding a null takes time.
        """
        rows: list[tuple[object, ...]] = []
        is_plain, paths_are_keys = True, self.paths_are_keys
        collision_key = self._collision_key
        now: JobKind | None = None
        references = number = begin = 0
        for kind, key, fingerprint, prompt, path, source, images, mask, refused in page:
            if kind is not now or len(images) != references:
                self._note(now, references, len(rows) - begin)
                now, references, begin = kind, len(images), len(rows)
                number, _ = self._known(kind, references)
            # Hashes sort faster than texts; where two are alike, the texts are looked at.
            place = hash(collision_key(kind.root, path)) if path else None
            rows.append((number, key, hash(key), place, fingerprint, prompt, path, source))
            if images or mask or refused:
                is_plain = False
            if paths_are_keys and path != key + _EXTENSION:
                paths_are_keys = False
        self.paths_are_keys = paths_are_keys
        self._note(now, references, len(rows) - begin)
        return rows, is_plain

    def _known(self, kind: JobKind, references: int) -> tuple[int, Micros]:
        """Return the number of a kind in the table, and what a request of it costs."""
        if (known := self._kinds.get((id(kind), references))) is None:
            price = self._price(kind.model, kind.options, references)
            if len(self._kinds) >= _MAX_KINDS:
                self._kinds.clear()
            known = (kind, self._insert_kind(kind, price), price)
            self._kinds[id(kind), references] = known
        _, number, price = known
        return number, price

    def _insert_kind(self, kind: JobKind, price: Micros) -> int:
        cursor = self._conn.execute(
            _INSERT_KIND,
            (
                kind.provider,
                kind.model,
                canonical_json(dict(kind.options)),
                kind.root,
                kind.verify.value,
                int(kind.keep_previous),
                int(kind.keep_partials),
                int(kind.sidecar),
                int(kind.metadata),
                kind.publish.value,
                canonical_json(kind.tags) if kind.tags else "[]",
                price,
                self._stale_before(kind.refresh),
                int(kind.of_rows),
                int(kind.is_variant),
            ),
        )
        return int(cursor.lastrowid or 0)

    def _note(self, kind: JobKind | None, references: int, jobs: int) -> None:
        """Count successive jobs of one kind, and report their price."""
        if kind is None:
            return
        number, price = self._known(kind, references)
        self._counts[number] = self._counts.get(number, 0) + jobs
        if self._priced is not None:
            self._priced(kind.model, kind.options, references, price, jobs)


def _more(job: PlannedJob) -> tuple[object, ...]:
    """Return the further columns of jobs with reference images."""
    return (canonical_json(job.images) if job.images else "[]", job.mask, job.refused)


def unpriced_models(conn: sqlite3.Connection) -> dict[str, int]:
    """Count the planned jobs with a price of 0, by model; without a set price it is unknown."""
    if not conn.execute("SELECT 1 FROM staging.kinds WHERE estimated = 0 LIMIT 1").fetchone():
        return {}
    rows = conn.execute(f"SELECT model, count(*) FROM {PLAN} WHERE estimated = 0 GROUP BY model")
    return {row[0]: row[1] for row in rows}


@dataclass(frozen=True, slots=True)
class Clash:
    """A job whose key or output path an earlier job of the plan has."""

    seq: int
    fault: Fault
    of_key: bool
    of_row: bool
    """Whether its row is at fault, and not the manifest that makes several jobs of one line."""


def taken_twice(
    conn: sqlite3.Connection, collision_key: CollisionKey, *, paths_are_keys: bool
) -> Iterator[Clash]:
    """Yield the jobs whose key or output path an earlier job has, in their order.

    With ``paths_are_keys``, see `StagedRows`, jobs of one directory with one key have one path.
    """
    (roots,) = conn.execute("SELECT count(DISTINCT root) FROM staging.kinds").fetchone()
    names = ("place_hash",) if paths_are_keys and roots == 1 else ("key_hash", "place_hash")
    hashes = {name: _hashes_twice(conn, name) for name in names}
    if not any(hashes.values()):
        return
    keys, places = dict[str, tuple[str, str]](), dict[str, tuple[str, str]]()
    rows = conn.execute(
        f"SELECT seq, key, root, path, source, of_rows FROM {PLAN}"
        " WHERE key_hash IN (SELECT value FROM json_each(?))"
        " OR place_hash IN (SELECT value FROM json_each(?)) ORDER BY seq",
        [canonical_json(hashes.get(name, [])) for name in ("key_hash", "place_hash")],
    )
    for row in rows:
        key, path, source = row["key"], row["path"], row["source"]
        place = collision_key(row["root"], path) if path else ""
        if key in keys:
            fault, taker = _taken("key", f"key {key!r}", source, keys[key]), keys[key]
            yield Clash(row["seq"], fault, True, row["of_rows"] and taker[1] != source)
            continue
        if place in places:
            fault = _taken("output.path", f"output path {path!r}", source, places[place])
            yield Clash(row["seq"], fault, False, row["of_rows"] and places[place][1] != source)
        keys[key] = (key, source)
        if place:
            places.setdefault(place, (key, source))


def _hashes_twice(conn: sqlite3.Connection, name: str) -> list[int]:
    rows = conn.execute(
        f"SELECT {name} FROM staging.planned WHERE {name} IS NOT NULL"
        " GROUP BY 1 HAVING count(*) > 1"
    )
    return [row[0] for row in rows]


def refuse_rows(conn: sqlite3.Connection, clashes: Iterable[Clash]) -> None:
    """Refuse the jobs of rows whose key or path is taken; without a key of its own, by its line."""
    conn.execute("BEGIN")
    try:
        for clash in clashes:
            reason = f"{ROW_REASON}: {clash.fault}"
            conn.execute(
                "UPDATE staging.planned SET refused = :reason, fingerprint = '',"
                " path = iif(:of_key, '', path), key = iif(:of_key, source || '/' || key, key)"
                " WHERE seq = :seq",
                {"reason": reason, "of_key": clash.of_key, "seq": clash.seq},
            )
    finally:
        conn.execute("COMMIT")  # without a journal nothing can be rolled back


def rows_at_fault(conn: sqlite3.Connection) -> int:
    """Count the rows of the plan's table with a job that fails because of its row."""
    row = conn.execute(
        "SELECT count(DISTINCT source) AS n FROM staging.planned WHERE refused GLOB ?",
        (f"{ROW_REASON}:*",),
    ).fetchone()
    return int(row["n"])


def _taken(path: str, what: str, source: str, taker: tuple[str, str]) -> Fault:
    key, its_source = taker
    shown = "a job of the same line" if its_source == source else its_source
    file, _, line = source.rpartition(":")
    return Fault(
        file=file if line.isdecimal() else source,
        line=int(line) if line.isdecimal() else 0,
        column=0,
        path=path,
        message=f"the {what} is taken already by {shown} ({key}); each job needs its own",
    )


def pages(jobs: Iterable[PlannedJob], faults: list[Fault]) -> Iterator[list[PlannedJob]]:
    """Yield the stream in pages; add the faults that it ends with to those that are known."""
    stream = iter(jobs)
    while True:
        page: list[PlannedJob] = []
        try:
            page.extend(islice(stream, _PAGE))  # keeps what came before an error
        except ManifestError as exc:
            faults += exc.faults
        if not page:
            return
        yield page


def stale_before_of(refresh: str, now: datetime, renewal_at: str) -> str | None:
    """Return until when images are too old, by the text of ``refresh``; None for never."""
    if refresh == "changed":
        return None
    if refresh == "always":
        return renewal_at
    return timestamp(now - timedelta(days=int(refresh.removesuffix("d"))))
