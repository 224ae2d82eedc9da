"""The statements by which the enrollment of a staged plan changes a ledger."""

from __future__ import annotations

from typing import Final

from batchgen.ledger.groups import (
    AT_FAULT,
    GROUP_CASE,
    IS_CHANGED,
    IS_MEANT,
    IS_NEW,
    PLANNED_KNOWN,
    REJECTED_MARK,
    Group,
    is_meant,
)
from batchgen.ledger.staging_rows import PLAN
from batchgen.planning.naming import PENDING_DIRECTORY

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
    "publish",
    "tags",
    "estimated",
)
_COLUMNS: Final = {
    **{name: f"planned.{name}" for name in _OWN_COLUMNS},
    **{name: f"kinds.{name}" for name in _KIND_COLUMNS},
}
"""What the ledger keeps of a planned job, and its position in the plan."""

_IS_RENEWED: Final = f"(kinds.stale_before = :renewal AND {IS_MEANT})"
"""A refresh regenerates the job, or waits for it before it counts as finished."""
_DIFFERS: Final = f"""
    CASE WHEN {AT_FAULT} OR (jobs.state = 'paid' AND planned.refused IS NOT NULL) THEN 0
        ELSE jobs.retired
        OR ({", ".join(f"jobs.{name}" for name in _COLUMNS)})
            IS NOT ({", ".join(_COLUMNS.values())})
        OR (jobs.renewal IS NULL AND jobs.state IN ('pending', 'sending')
            AND ifnull({_IS_RENEWED}, 0)) END
"""
MEET: Final = f"""
INSERT INTO staging.known (seq, job, was, grp, meant, changed, differs)
SELECT seq, jobs.id, jobs.state, {GROUP_CASE}, {IS_MEANT}, {IS_CHANGED}, {_DIFFERS}
FROM {PLAN} CROSS JOIN jobs ON jobs.batch_id = :batch AND jobs.key = planned.key
"""
UNFINISHED_RENEWAL: Final = f"""
SELECT min(renewal) AS renewal FROM jobs INDEXED BY jobs_by_renewal
WHERE batch_id = :batch AND renewal IS NOT NULL AND renewal <> '{REJECTED_MARK}'
  AND retired = 0 AND {is_meant("key")}
  AND (state IN ('pending', 'sending') OR (state = 'paid' AND changed_at > :day_ago))
"""
_MAY_BE_ELSEWHERE: Final = f"""
{PLANNED_KNOWN} CROSS JOIN jobs ON jobs.id = known.job
CROSS JOIN images ON images.job_id = jobs.id AND images.state = 'saved'
"""
_IS_MOVED_OR_RETURNS: Final = """
known.differs AND jobs.state = 'done' AND jobs.fingerprint = planned.fingerprint
    AND (jobs.retired OR (jobs.root, jobs.path) <> (kinds.root, planned.path))
"""
MOVES: Final = f"""
SELECT images.id AS image, jobs.id AS job, jobs.key AS key, images.root AS root,
       images.path AS path, sha256, format, kinds.root AS new_root,
       iif(images.unpublished, '{PENDING_DIRECTORY}/', '') || planned.path AS new_path,
       (SELECT count(*) FROM images AS before WHERE before.position < images.position
        AND before.attempt_id = images.attempt_id) AS rank
FROM {_MAY_BE_ELSEWHERE} WHERE {_IS_MOVED_OR_RETURNS} AND images.id > :after
ORDER BY images.id LIMIT :limit
"""
ANY_CONTESTED: Final = f"SELECT 1 FROM {_MAY_BE_ELSEWHERE} WHERE {_IS_MOVED_OR_RETURNS} LIMIT 1"
"""Whether a place of two images can matter, which takes reading all images to find out."""
CONTESTED: Final = f"""
WITH shared AS MATERIALIZED (SELECT root, path,
        sum(job_id IN (SELECT job FROM staging.known)) > 1 AS is_in_use
    FROM images WHERE state = 'saved' GROUP BY root, path HAVING count(DISTINCT job_id) > 1)
SELECT images.id AS image, images.root AS root, images.path AS path, images.sha256 AS sha256,
       shared.is_in_use AS is_in_use
FROM {_MAY_BE_ELSEWHERE} CROSS JOIN shared
    ON shared.root = images.root AND shared.path = images.path
WHERE {_IS_MOVED_OR_RETURNS} ORDER BY images.id
"""
"""Images whose place another job has or had too: after its key changed, or a file was moved away.
The file there may be that of the other job."""
IS_UNPLANNED: Final = "retired = 0 AND id NOT IN (SELECT job FROM staging.known)"
RETIRE: Final = f"""
UPDATE jobs SET retired = 1
WHERE batch_id = :batch AND {IS_UNPLANNED} AND (NOT :keeps_unplanned OR fingerprint = '')
"""
GIVE_UP: Final = """
UPDATE images SET state = 'lost' WHERE state = 'due' AND job_id IN
    (SELECT job FROM staging.known WHERE was = 'paid' AND becomes = 'done')
"""
"""The image on disk is the one that is planned again: another must not replace it."""
_MADE_OF: Final = """
    json_object('fingerprint', jobs.fingerprint, 'model', jobs.model, 'prompt', jobs.prompt,
        'options', json(jobs.options), 'images', json(jobs.images), 'mask', jobs.mask)
"""
_STARTS_OVER: Final = """
    (known.becomes <> known.was OR (known.changed AND known.was NOT IN ('paid', 'sending')))
"""
CHANGE: Final = f"""
UPDATE jobs SET
    state = known.becomes,
    reason = CASE WHEN known.grp = '{Group.REFUSED}' THEN planned.refused
        WHEN {_STARTS_OVER} THEN NULL ELSE jobs.reason END,
    tries = iif({_STARTS_OVER}, 0, jobs.tries),
    doubts = iif({_STARTS_OVER}, 0, jobs.doubts),
    cuts = iif({_STARTS_OVER}, 0, jobs.cuts),
    changed_at = iif({_STARTS_OVER}, :now, jobs.changed_at),
    made_of = iif((jobs.state = 'done' AND known.becomes <> 'done')
        OR (jobs.state IN ('paid', 'sending') AND known.changed), {_MADE_OF}, jobs.made_of),
    renewal = CASE WHEN known.becomes = 'done' THEN NULL
        WHEN known.grp = '{Group.STALE}' OR {_IS_RENEWED}
            THEN coalesce(nullif(jobs.renewal, '{REJECTED_MARK}'), :renewal)
        WHEN known.grp = '{Group.REJECTED}' THEN coalesce(jobs.renewal, '{REJECTED_MARK}')
        WHEN known.changed THEN NULL ELSE jobs.renewal END,
    {", ".join(f"{name} = {value}" for name, value in _COLUMNS.items())},
    plan = (SELECT plan FROM batches WHERE id = :batch), retired = 0
FROM {PLANNED_KNOWN}
WHERE jobs.id = known.job AND (known.differs OR known.becomes <> known.was
    OR known.grp = '{Group.REFUSED}')
"""
INSERT_NEW: Final = f"""
INSERT INTO jobs (batch_id, key, state, {", ".join(_COLUMNS)}, plan, changed_at, renewal)
SELECT :batch, key, 'pending', {", ".join(_COLUMNS.values())},
       (SELECT plan FROM batches WHERE id = :batch), :now, iif({_IS_RENEWED}, :renewal, NULL)
FROM {PLAN} WHERE {IS_NEW} ORDER BY seq
"""
TALLY: Final = f"""
UPDATE tallies SET jobs = tallies.jobs + new.jobs, estimated = tallies.estimated + new.estimated
FROM (SELECT planned.jobs - known.jobs AS jobs, planned.estimated - known.estimated AS estimated
    FROM (SELECT coalesce(sum(jobs), 0) AS jobs, coalesce(sum(jobs * estimated), 0) AS estimated
        FROM staging.kinds) AS planned,
    (SELECT count(*) AS jobs, coalesce(sum(estimated), 0) AS estimated
        FROM {PLANNED_KNOWN}) AS known) AS new
WHERE batch_id = :batch
"""
"""Counts what `INSERT_NEW` inserts, without reading a plan whose jobs are all new once more."""
HOLD: Final = f"""
UPDATE jobs SET retired = 0, source = planned.source,
    reason = iif(known.grp = '{Group.AT_FAULT}', planned.refused, jobs.reason),
    plan = (SELECT plan FROM batches WHERE id = :batch)
FROM staging.known CROSS JOIN staging.planned ON planned.seq = known.seq
WHERE {AT_FAULT} AND jobs.id = known.job
"""
"""A known job whose row is at fault keeps its data; it says why nothing is sent for it."""
REFUSE: Final = """
UPDATE jobs SET state = 'failed', changed_at = :now, reason = planned.refused
FROM staging.planned
WHERE planned.refused IS NOT NULL AND jobs.batch_id = :batch AND jobs.key = planned.key
  AND jobs.retired = 0 AND jobs.state = 'pending'
"""
