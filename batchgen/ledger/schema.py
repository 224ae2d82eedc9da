"""Tables of the ledger, and the numbered steps to them; a released step is never edited."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Final

from batchgen.ledger.review_schema import DECISIONS

if TYPE_CHECKING:
    from sqlite_utils import Database, Migrations

SCHEMA_VERSION: Final = 8
"""Kept in ``PRAGMA user_version``; equals the number of migrations."""

APPLICATION_ID: Final = 0x42474C31
"""``BGL1`` in ``PRAGMA application_id``: distinguishes a ledger from any other SQLite file."""

_FIRST: Final = """
CREATE TABLE batches (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    provider TEXT NOT NULL,
    manifest_path TEXT NOT NULL,
    manifest_sha256 TEXT NOT NULL,
    manifest TEXT NOT NULL,
    plan INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    planned_at TEXT NOT NULL,
    renewed_at TEXT
) STRICT;

CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    batch_id INTEGER NOT NULL REFERENCES batches(id),
    started_at TEXT NOT NULL,
    ended_at TEXT,
    estimate INTEGER NOT NULL,
    max_cost INTEGER,
    max_waste INTEGER NOT NULL,
    reserved INTEGER NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    charged INTEGER NOT NULL DEFAULT 0 CHECK (charged >= 0),
    maybe INTEGER NOT NULL DEFAULT 0 CHECK (maybe >= 0),
    wasted INTEGER NOT NULL DEFAULT 0 CHECK (wasted >= 0),
    stopped TEXT,
    exit_code INTEGER
) STRICT;
CREATE INDEX runs_by_batch ON runs(batch_id);

CREATE TABLE jobs (
    id INTEGER PRIMARY KEY,
    batch_id INTEGER NOT NULL REFERENCES batches(id),
    key TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN
        ('pending', 'sending', 'paid', 'done', 'failed', 'blocked', 'uncertain')),
    reason TEXT,
    retired INTEGER NOT NULL DEFAULT 0 CHECK (retired IN (0, 1)),
    fingerprint TEXT NOT NULL,
    model TEXT NOT NULL,
    prompt TEXT NOT NULL,
    options TEXT NOT NULL,
    images TEXT NOT NULL,
    mask TEXT,
    root TEXT NOT NULL,
    path TEXT NOT NULL,
    verify TEXT NOT NULL,
    keep_previous INTEGER NOT NULL,
    keep_partials INTEGER NOT NULL,
    sidecar INTEGER NOT NULL,
    metadata INTEGER NOT NULL,
    tags TEXT NOT NULL,
    source TEXT NOT NULL,
    estimated INTEGER NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0,
    doubts INTEGER NOT NULL DEFAULT 0,
    plan INTEGER NOT NULL,
    changed_at TEXT NOT NULL,
    done_at TEXT,
    made_of TEXT,
    UNIQUE (batch_id, key)
) STRICT;
CREATE INDEX jobs_by_state ON jobs(batch_id, retired, state, id, estimated);

CREATE TABLE attempts (
    id TEXT PRIMARY KEY,
    job_id INTEGER NOT NULL REFERENCES jobs(id),
    run_id INTEGER NOT NULL REFERENCES runs(id),
    fingerprint TEXT NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    started_at TEXT NOT NULL,
    ended_at TEXT,
    outcome TEXT NOT NULL CHECK (outcome IN ('sending', 'ok', 'safe', 'refused', 'blocked',
        'throttled', 'stop', 'ambiguous', 'spoiled')),
    billed TEXT NOT NULL CHECK (billed IN ('yes', 'no', 'maybe')),
    price INTEGER NOT NULL,
    cost INTEGER NOT NULL DEFAULT 0 CHECK (cost >= 0),
    http_status INTEGER,
    error_code TEXT,
    message TEXT,
    request_id TEXT,
    answer TEXT
) STRICT;
CREATE INDEX attempts_by_job ON attempts(job_id);
CREATE INDEX attempts_by_run ON attempts(run_id, billed, outcome);
CREATE INDEX attempts_open ON attempts(job_id) WHERE outcome = 'sending';

CREATE TABLE budgets (
    period TEXT PRIMARY KEY CHECK (period IN ('day', 'month')),
    max_cost INTEGER NOT NULL CHECK (max_cost >= 0)
) STRICT;

CREATE TABLE days (
    day TEXT PRIMARY KEY,
    spent INTEGER NOT NULL
) STRICT;
CREATE TRIGGER attempts_begin AFTER INSERT ON attempts BEGIN
    INSERT INTO days (day, spent) VALUES (
        substr(new.started_at, 1, 10),
        CASE new.billed WHEN 'yes' THEN new.cost WHEN 'maybe' THEN new.price ELSE 0 END
    ) ON CONFLICT (day) DO UPDATE SET spent = spent + excluded.spent;
END;
CREATE TRIGGER attempts_change AFTER UPDATE OF billed, cost, price ON attempts BEGIN
    UPDATE days SET spent = spent
        + CASE new.billed WHEN 'yes' THEN new.cost WHEN 'maybe' THEN new.price ELSE 0 END
        - CASE old.billed WHEN 'yes' THEN old.cost WHEN 'maybe' THEN old.price ELSE 0 END
    WHERE day = substr(old.started_at, 1, 10);
END;

CREATE TABLE rates (
    key TEXT NOT NULL,
    unit TEXT NOT NULL CHECK (unit IN ('requests', 'images')),
    due REAL NOT NULL,
    PRIMARY KEY (key, unit)
) STRICT;

CREATE TABLE images (
    id INTEGER PRIMARY KEY,
    job_id INTEGER NOT NULL REFERENCES jobs(id),
    attempt_id TEXT NOT NULL REFERENCES attempts(id),
    position INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('due', 'saved', 'lost', 'replaced', 'pruned')),
    url TEXT,
    task TEXT,
    expires_at TEXT,
    root TEXT NOT NULL,
    path TEXT,
    sha256 TEXT,
    bytes INTEGER,
    width INTEGER,
    height INTEGER,
    format TEXT,
    warnings TEXT,
    saved_at TEXT,
    UNIQUE (attempt_id, position)
) STRICT;
CREATE INDEX images_by_job ON images(job_id, state);

CREATE TABLE prices (
    id INTEGER PRIMARY KEY,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    price INTEGER NOT NULL,
    source TEXT NOT NULL,
    taken_at TEXT NOT NULL,
    UNIQUE (provider, model, price, source)
) STRICT;

CREATE TABLE price_lists (
    url TEXT PRIMARY KEY,
    body BLOB NOT NULL,
    fetched_at TEXT NOT NULL
) STRICT;

CREATE TABLE reference_urls (
    url TEXT PRIMARY KEY,
    sha256 TEXT NOT NULL,
    format TEXT NOT NULL,
    etag TEXT,
    last_modified TEXT,
    fetched_at TEXT NOT NULL
) STRICT;
CREATE INDEX reference_urls_by_content ON reference_urls(sha256);
"""

# A status of a million jobs counts what is rare, and reads here what is not: of the states that
# fill up, `done` is counted by a trigger and `pending` is the rest. How many jobs there are only
# an enrollment changes, which adds up what it inserts; triggers for that would cost it a tenth.
_TALLIES: Final = """
CREATE TABLE tallies (
    batch_id INTEGER PRIMARY KEY REFERENCES batches(id),
    jobs INTEGER NOT NULL DEFAULT 0,
    retired INTEGER NOT NULL DEFAULT 0,
    estimated INTEGER NOT NULL DEFAULT 0,
    done INTEGER NOT NULL DEFAULT 0,
    saved INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO tallies SELECT id,
    (SELECT count(*) FROM jobs WHERE batch_id = batches.id),
    (SELECT count(*) FROM jobs WHERE batch_id = batches.id AND retired = 1),
    (SELECT coalesce(sum(estimated), 0) FROM jobs WHERE batch_id = batches.id AND retired = 0),
    (SELECT count(*) FROM jobs WHERE batch_id = batches.id AND retired = 0 AND state = 'done'),
    (SELECT count(*) FROM images JOIN jobs ON jobs.id = job_id
        WHERE batch_id = batches.id AND images.state = 'saved')
FROM batches;
CREATE TRIGGER batches_begin AFTER INSERT ON batches BEGIN
    INSERT INTO tallies (batch_id) VALUES (new.id);
END;
CREATE TRIGGER jobs_change AFTER UPDATE OF state, retired, estimated ON jobs
WHEN (new.state = 'done') <> (old.state = 'done') OR new.retired <> old.retired
    OR new.estimated <> old.estimated BEGIN
    UPDATE tallies SET retired = retired + new.retired - old.retired,
        estimated = estimated + iif(new.retired, 0, new.estimated)
            - iif(old.retired, 0, old.estimated),
        done = done + (new.state = 'done' AND NOT new.retired)
            - (old.state = 'done' AND NOT old.retired)
    WHERE batch_id = new.batch_id;
END;
CREATE TRIGGER images_begin AFTER INSERT ON images WHEN new.state = 'saved' BEGIN
    UPDATE tallies SET saved = saved + 1
    WHERE batch_id = (SELECT batch_id FROM jobs WHERE id = new.job_id);
END;
CREATE TRIGGER images_change AFTER UPDATE OF state ON images
WHEN (new.state = 'saved') <> (old.state = 'saved') BEGIN
    UPDATE tallies SET saved = saved + iif(new.state = 'saved', 1, -1)
    WHERE batch_id = (SELECT batch_id FROM jobs WHERE id = new.job_id);
END;

ALTER TABLE runs ADD COLUMN billed_attempts INTEGER NOT NULL DEFAULT 0;
UPDATE runs SET billed_attempts =
    (SELECT count(*) FROM attempts WHERE run_id = runs.id AND billed = 'yes');
CREATE TRIGGER attempts_bought AFTER INSERT ON attempts WHEN new.billed = 'yes' BEGIN
    UPDATE runs SET billed_attempts = billed_attempts + 1 WHERE id = new.run_id;
END;
CREATE TRIGGER attempts_settled AFTER UPDATE OF billed ON attempts
WHEN (new.billed = 'yes') <> (old.billed = 'yes') BEGIN
    UPDATE runs SET billed_attempts = billed_attempts + iif(new.billed = 'yes', 1, -1)
    WHERE id = new.run_id;
END;
"""

_MONEY_SAFETY: Final = """
-- The last verified image of each kind: a run that begins without one sends canaries first.
CREATE TABLE canaries (
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    route TEXT NOT NULL,
    verified_at TEXT NOT NULL,
    PRIMARY KEY (provider, model, route)
) STRICT;

-- When a place was reserved, in Unix seconds: one from the future was given by a wrong clock.
ALTER TABLE rates ADD COLUMN taken_at REAL NOT NULL DEFAULT 0;
-- How often the upload of a job was cut off, since a person or a new prompt made it pending.
ALTER TABLE jobs ADD COLUMN cuts INTEGER NOT NULL DEFAULT 0;
-- Money that an option leaves open, that was refunded or has no known price; and uncertain jobs
-- that a person acknowledged. What is charged may have a possible rest, which counts as spent.
ALTER TABLE attempts RENAME COLUMN answer TO response;
ALTER TABLE attempts ADD COLUMN least INTEGER;
ALTER TABLE attempts ADD COLUMN possible INTEGER NOT NULL DEFAULT 0;
ALTER TABLE attempts ADD COLUMN refunded INTEGER NOT NULL DEFAULT 0;
ALTER TABLE attempts ADD COLUMN price_known INTEGER NOT NULL DEFAULT 1;
ALTER TABLE attempts ADD COLUMN acknowledged_at TEXT;
CREATE INDEX attempts_unpriced ON attempts(run_id, billed) WHERE price_known = 0;
CREATE TABLE notices (
    id INTEGER PRIMARY KEY,
    batch_id INTEGER NOT NULL REFERENCES batches(id),
    run_id INTEGER REFERENCES runs(id),
    noticed_at TEXT NOT NULL
) STRICT;
CREATE INDEX notices_by_batch ON notices(batch_id);
CREATE TABLE noticed_jobs (
    job_id INTEGER PRIMARY KEY REFERENCES jobs(id),
    state TEXT NOT NULL,
    cause TEXT NOT NULL
) STRICT;
DROP TRIGGER attempts_begin;
CREATE TRIGGER attempts_begin AFTER INSERT ON attempts BEGIN
    INSERT INTO days (day, spent) VALUES (
        substr(new.started_at, 1, 10),
        CASE new.billed WHEN 'yes' THEN new.cost + new.possible
            WHEN 'maybe' THEN new.price ELSE 0 END
    ) ON CONFLICT (day) DO UPDATE SET spent = spent + excluded.spent;
END;
DROP TRIGGER attempts_change;
CREATE TRIGGER attempts_change AFTER UPDATE OF billed, cost, price, possible ON attempts BEGIN
    UPDATE days SET spent = spent
        + CASE new.billed WHEN 'yes' THEN new.cost + new.possible
            WHEN 'maybe' THEN new.price ELSE 0 END
        - CASE old.billed WHEN 'yes' THEN old.cost + old.possible
            WHEN 'maybe' THEN old.price ELSE 0 END
    WHERE day = substr(old.started_at, 1, 10);
END;
-- Failed downloads of a paid image: how many, when, why, and until when the host asked to wait.
-- `refetched` is 1 once a person had a lost image downloaded again: the next time it is bought.
ALTER TABLE images ADD COLUMN tries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE images ADD COLUMN tried_at TEXT;
ALTER TABLE images ADD COLUMN trouble TEXT;
ALTER TABLE images ADD COLUMN not_before TEXT;
ALTER TABLE images ADD COLUMN refetched INTEGER NOT NULL DEFAULT 0 CHECK (refetched IN (0, 1));
-- The process that owns a run (JSON), when it was last alive, the spool that takes its responses,
-- and the run that took over what it left open.
ALTER TABLE runs ADD COLUMN owner TEXT;
ALTER TABLE runs ADD COLUMN heartbeat_at TEXT;
ALTER TABLE runs ADD COLUMN spool TEXT;
ALTER TABLE runs ADD COLUMN taken_by INTEGER REFERENCES runs(id);
-- A refresh marks each job that it regenerates, until that job has its new image. A pending job
-- without the mark needs no request where its image on disk has the fingerprint of its plan.
ALTER TABLE jobs ADD COLUMN renewal TEXT;
CREATE INDEX jobs_by_renewal ON jobs(batch_id, renewal) WHERE renewal IS NOT NULL;
-- A plan must not write where a job of another batch does. Which batches share a directory with it
-- is read here, not from their jobs.
CREATE TABLE output_roots (
    batch_id INTEGER NOT NULL REFERENCES batches(id),
    root TEXT NOT NULL,
    PRIMARY KEY (batch_id, root)
) STRICT, WITHOUT ROWID;
INSERT INTO output_roots SELECT DISTINCT batch_id, root FROM jobs;
-- An image that could not be moved to its planned place is found by the place of its job, which is
-- that of the image as long as the two differ.
UPDATE jobs SET root = images.root, path = images.path FROM images
WHERE images.job_id = jobs.id AND images.state = 'saved' AND jobs.state = 'done'
    AND images.position = (SELECT min(position) FROM images AS one
        WHERE one.attempt_id = images.attempt_id)
    AND (images.root, images.path) <> (jobs.root,
        replace(jobs.path, '{ext}', iif(images.format = 'jpeg', 'jpg', images.format)));
-- With `share: true`, the job whose image a job gets a copy of; no request is sent for it. The
-- attempt of such a copy names the attempt that made the image.
ALTER TABLE jobs ADD COLUMN shares INTEGER REFERENCES jobs(id);
CREATE INDEX jobs_by_sharing ON jobs(batch_id) WHERE shares IS NOT NULL;
ALTER TABLE attempts ADD COLUMN copy_of TEXT;
"""

_RESPONSES: Final = """
-- Small responses with URLs of images, as they arrived (head line and body), from the transaction
-- that records them until the job is done. Larger ones, and those with inline images, are files of
-- the spool.
CREATE TABLE responses (
    attempt_id TEXT PRIMARY KEY REFERENCES attempts(id),
    body BLOB NOT NULL
) STRICT;
"""


_PACES: Final = """
-- What 429s taught about the rate of a key: the slack of a declared rate, or the gap in seconds
-- where none is declared. Times are Unix seconds.
CREATE TABLE paces (
    key TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('slack', 'interval')),
    value REAL NOT NULL,
    changed_at REAL NOT NULL,
    PRIMARY KEY (key, kind)
) STRICT;
"""

_PUBLISHING: Final = """
-- `publish: on_accept`: an image has a path below `.pending/` until a person accepted it.
ALTER TABLE jobs ADD COLUMN publish TEXT NOT NULL DEFAULT 'at_once'
    CHECK (publish IN ('at_once', 'on_accept'));
ALTER TABLE images ADD COLUMN unpublished INTEGER
    GENERATED ALWAYS AS (ifnull(path GLOB '.pending/*', 0)) VIRTUAL;
CREATE INDEX images_unpublished ON images(job_id) WHERE state = 'saved' AND unpublished = 1;
"""

_REPLACEMENTS: Final = """
-- When another image took the place of a replaced image; NULL for others. A rollback makes an older
-- image the current one again, so the previous version is not always the one that was made last.
ALTER TABLE images ADD COLUMN replaced_at TEXT;
"""


def migrations() -> Migrations:
    """Return all steps in order. Step N leads from schema N-1 to schema N."""
    from sqlite_utils import Migrations  # 125 ms to import, and only a change of schema needs it

    steps = Migrations("batchgen")

    @steps(name="0001_first")
    def first(db: Database) -> None:
        _statements(db.conn, _FIRST)
        db.conn.execute(f"PRAGMA application_id = {APPLICATION_ID}")

    @steps(name="0002_tallies")
    def tallies(db: Database) -> None:
        _statements(db.conn, _TALLIES)

    @steps(name="0003_money_safety")
    def money_safety(db: Database) -> None:
        _statements(db.conn, _MONEY_SAFETY)
        _make_paths_relative(db.conn)

    @steps(name="0004_decisions")
    def decisions(db: Database) -> None:
        _statements(db.conn, DECISIONS)

    @steps(name="0005_responses")
    def responses(db: Database) -> None:
        _statements(db.conn, _RESPONSES)

    @steps(name="0006_paces")
    def paces(db: Database) -> None:
        _statements(db.conn, _PACES)

    @steps(name="0007_publishing")
    def publishing(db: Database) -> None:
        _statements(db.conn, _PUBLISHING)

    @steps(name="0008_replacements")
    def replacements(db: Database) -> None:
        _statements(db.conn, _REPLACEMENTS)

    return steps


def _make_paths_relative(conn: sqlite3.Connection) -> None:
    """Store manifests below the ledger's directory relative to it, so that both can be moved."""
    (file,) = (row[2] for row in conn.execute("PRAGMA database_list") if row[1] == "main")
    directory = Path(file).resolve().parent
    rows = conn.execute("SELECT id, manifest_path FROM batches").fetchall() if file else []
    for batch, written in rows:
        path = Path(written)
        place = path.parent.resolve().joinpath(path.name)
        if path.is_absolute() and place.is_relative_to(directory):
            conn.execute(
                "UPDATE batches SET manifest_path = ? WHERE id = ?",
                (place.relative_to(directory).as_posix(), batch),
            )


def _statements(conn: sqlite3.Connection, script: str) -> None:
    """Run a script inside the open transaction; ``executescript`` would commit it first."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            conn.execute(statement)
            statement = ""
