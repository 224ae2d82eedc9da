"""Fill and migrate ledgers of other schema versions."""

from __future__ import annotations

from sqlite_utils import Database, Migrations


def with_next(steps: Migrations) -> Migrations:
    @steps(name="9999_next")
    def _next(db: Database) -> None:
        db.execute("CREATE TABLE next (id INTEGER PRIMARY KEY) STRICT")

    return steps


TWO_BATCHES = """
INSERT INTO batches VALUES (1, 'b', 'p', '', '', '', 1, '', '', NULL);
INSERT INTO batches VALUES (2, 'empty', 'p', '', '', '', 1, '', '', NULL);
INSERT INTO runs (id, batch_id, started_at, estimate, max_waste) VALUES (1, 1, '', 0, 0);
INSERT INTO jobs (id, batch_id, key, state, retired, fingerprint, model, prompt, options, images,
    root, path, verify, keep_previous, keep_partials, sidecar, metadata, tags, source, estimated,
    plan, changed_at)
SELECT column1, 1, 'k' || column1, column2, column3, '', '', '', '{}', '[]', '', '', '', 0, 0, 0, 0,
    '[]', '', 10, 1, ''
FROM (VALUES (1, 'pending', 0), (2, 'done', 0), (3, 'done', 0), (4, 'done', 1));
INSERT INTO attempts (id, job_id, run_id, fingerprint, provider, model, started_at, outcome, billed,
    price) SELECT 'a' || id, id, 1, '', '', '', '', 'ok', iif(id = 1, 'maybe', 'yes'), 1 FROM jobs;
INSERT INTO images (job_id, attempt_id, position, state, root)
SELECT id, 'a' || id, 0, iif(id < 3, 'saved', 'due'), '' FROM jobs;
"""
