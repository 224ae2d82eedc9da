"""Tables of the review page and the dashboard: decisions of people, and samples of a run."""

from __future__ import annotations

from typing import Final

DECISIONS: Final = """
-- What people decided about images, newest last. A row counts for an image only while the image
-- has the sha256 that the person saw. Undo appends a row; nothing is changed or deleted.
CREATE TABLE decisions (
    id INTEGER PRIMARY KEY,
    job_id INTEGER NOT NULL REFERENCES jobs(id),
    image_id INTEGER NOT NULL REFERENCES images(id),
    sha256 TEXT NOT NULL,
    decision TEXT NOT NULL CHECK (decision IN ('accept', 'reject', 'redo', 'clear')),
    note TEXT NOT NULL,
    prompt TEXT,
    replaced_prompt TEXT,
    decided_by TEXT NOT NULL,
    decided_at TEXT NOT NULL,
    session TEXT NOT NULL,
    -- One keypress or one command, which may be about many images; sent twice it counts once.
    action TEXT NOT NULL,
    undoes INTEGER REFERENCES decisions(id),
    UNIQUE (action, image_id),
    CHECK (prompt IS NULL OR (decision = 'redo' AND replaced_prompt IS NOT NULL))
) STRICT;
CREATE INDEX decisions_by_image ON decisions(image_id, sha256, id);
CREATE INDEX decisions_by_job ON decisions(job_id, id);
CREATE INDEX decisions_undone ON decisions(undoes) WHERE undoes IS NOT NULL;
CREATE TRIGGER decisions_stay BEFORE UPDATE ON decisions BEGIN
    SELECT RAISE(ABORT, 'decisions are append-only');
END;
CREATE TRIGGER decisions_remain BEFORE DELETE ON decisions BEGIN
    SELECT RAISE(ABORT, 'decisions are append-only');
END;
-- The throttle of a run, every ten seconds.
CREATE TABLE samples (
    run_id INTEGER NOT NULL REFERENCES runs(id),
    at TEXT NOT NULL,
    in_flight INTEGER NOT NULL,
    width INTEGER NOT NULL,
    allowed INTEGER NOT NULL,
    waiting_for TEXT,
    queued INTEGER NOT NULL,
    PRIMARY KEY (run_id, at)
) STRICT, WITHOUT ROWID;
"""
