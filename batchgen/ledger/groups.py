"""The group of each planned job: the one decision that plan, quote and enrollment share."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from batchgen.job import PATH_REASON, REFERENCE_REASON, ROW_REASON
from batchgen.ledger.key_patterns import IS_MEANT as KEY_IS_MEANT
from batchgen.ledger.staging_rows import PLAN
from batchgen.money import Micros


class Group(StrEnum):
    """What a run would do with a planned job."""

    NEW = "new"
    CHANGED = "changed"
    """Its image on disk was made of something else."""
    REVISED = "revised"
    """Without an image: it failed, was blocked or uncertain, and has changed since."""
    STALE = "stale"
    """Unchanged, and its image is to be regenerated: by age, or by an unfinished refresh."""
    REJECTED = "rejected"
    """Unchanged, and its image was rejected in review."""
    REDO = "redo"
    """Its image was sent back in review with another prompt."""
    PENDING = "pending"
    RETRIED = "retried"
    """It failed for a reason that cost nothing and may have passed."""
    IN_FLIGHT = "in_flight"
    """In flight when the last run was killed; recovery lets it be requested again."""
    HELD = "held"
    """In flight when the last run was killed; recovery holds it, since it is over max_waste."""
    PAID_CHANGED = "paid_changed"
    """Paid, then changed: its image is downloaded, and a new one is requested."""
    PAID = "paid"
    UNCERTAIN = "uncertain"
    FAILED = "failed"
    BLOCKED = "blocked"
    MOVED = "moved"
    """Unchanged and done, but planned for another place."""
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    """Its reference image is not available; it fails, and nothing is sent."""
    AT_FAULT = "at_fault"
    """Its row has a fault; it fails, and nothing is sent."""
    KEPT = "kept"
    """Done, and its row has a fault now; it is left as it is."""
    SHARED = "shared"
    """It gets a copy of the image of another job; nothing is sent for it."""
    RETIRED = "retired"

    @property
    def is_sent(self) -> bool:
        """Whether a run would send a request for it."""
        return self in _SENT


_SENT: Final = frozenset(
    {
        Group.NEW,
        Group.CHANGED,
        Group.REVISED,
        Group.STALE,
        Group.REJECTED,
        Group.REDO,
        Group.PENDING,
        Group.RETRIED,
        Group.IN_FLIGHT,
        Group.PAID_CHANGED,
    }
)


class Forecast(StrEnum):
    """What recovery will make of an attempt that the last run left in flight."""

    PAID = "paid"
    """The whole response is in the spool, with an image."""
    FREE = "free"
    """The job is pending again, at no cost."""
    UNCERTAIN = "uncertain"
    """Possibly charged, and requested again while max_waste allows it."""
    HELD = "held"
    """Possibly charged, and not requested again."""
    FAILED = "failed"
    BLOCKED = "blocked"


@dataclass(frozen=True, slots=True)
class GroupSum:
    """How many jobs of a group there are, and what one request for each would cost together."""

    jobs: int
    cost: Micros
    free: int = 0
    """Jobs whose price is 0, which means an unknown one unless the manifest sets it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToSend:
    """The requests of a run, within its limit."""

    requests: int
    cost: Micros


def quoted(*names: str) -> str:
    """Return the names as a list of SQL texts."""
    return ", ".join(f"'{name}'" for name in names)


def is_meant(key: str) -> str:
    """Return the condition that a run takes up a key; its values are those of `only_values`."""
    return KEY_IS_MEANT.replace("key ", f"{key} ")


def fingerprint_of(state: str) -> str:
    """Return the fingerprint of the newest image of ``jobs`` in this state; NULL without one."""
    return (
        "(SELECT attempts.fingerprint FROM images"
        " CROSS JOIN attempts ON attempts.id = images.attempt_id"
        f" WHERE images.job_id = jobs.id AND images.state = '{state}'"
        " ORDER BY images.id DESC LIMIT 1)"
    )


SENT_GROUPS: Final = quoted(*sorted(_SENT))
IS_MEANT: Final = is_meant("planned.key")
IS_NEW: Final = "NOT EXISTS (SELECT 1 FROM staging.known WHERE known.seq = planned.seq)"
IS_NEW_AND_SENT: Final = (
    f"{IS_NEW} AND NOT EXISTS (SELECT 1 FROM staging.shared WHERE shared.seq = planned.seq)"
)
IS_CHANGED: Final = "jobs.fingerprint <> planned.fingerprint"

# Each of these is looked up for few jobs only: `done_at` and the state are asked first.
FINGERPRINT_ON_DISK: Final = f"""
    coalesce((SELECT attempts.fingerprint FROM images
            CROSS JOIN attempts ON attempts.id = images.attempt_id
        WHERE images.job_id = jobs.id AND images.state = 'saved'
          AND attempts.fingerprint = planned.fingerprint LIMIT 1),
        {fingerprint_of("saved")})
"""
"""Of a published image and a new one that waits, it is the one that is made as planned, if any."""
_ON_DISK: Final = f"(CASE WHEN jobs.done_at IS NOT NULL THEN {FINGERPRINT_ON_DISK} END)"
_FORECAST: Final = "(SELECT forecast FROM staging.forecasts WHERE forecasts.job = jobs.id)"
_IN_FLIGHT_OF: Final = "(SELECT fingerprint FROM staging.forecasts WHERE forecasts.job = jobs.id)"
_PAID_FOR: Final = f"""
    coalesce(iif(jobs.state = 'paid', {fingerprint_of("due")}, {_IN_FLIGHT_OF}), jobs.fingerprint)
"""

_IS_STALE: Final = f"(jobs.done_at < kinds.stale_before AND {IS_MEANT})"
_DECISION: Final = "(SELECT decision FROM staging.rejected WHERE rejected.job = jobs.id)"
_IS_PLANNED_REJECTED: Final = """
    EXISTS (SELECT 1 FROM staging.rejected WHERE rejected.job = jobs.id
        AND rejected.fingerprint = planned.fingerprint)
"""
"""The rejected image is the one that is planned: where the published one is, nothing is to do."""
_IS_REJECTED: Final = f"({_IS_PLANNED_REJECTED} AND {IS_MEANT})"
REJECTED_MARK: Final = "rejected"
"""The value of ``jobs.renewal`` while a rejected image is regenerated."""
_NOT_RENEWED: Final = f"""
    (jobs.renewal IS NULL OR {IS_CHANGED}
        OR (jobs.renewal = '{REJECTED_MARK}' AND {_DECISION} IS NULL))
"""
"""Nothing asks for another image: a rejection that was taken back does not either."""
_CHANGED_GROUP: Final = f"iif({_DECISION} = 'redo', '{Group.REDO}', '{Group.CHANGED}')"
_IS_REFUSED: Final = "planned.refused IS NOT NULL"
AT_FAULT: Final = f"planned.refused GLOB '{ROW_REASON}:*'"
"""What the plan has of such a job is incomplete, so a known job keeps what it has."""
_FREE_CODES: Final = quoted(PATH_REASON, REFERENCE_REASON, ROW_REASON, "upload_cut")
_IS_FREE_FAILURE: Final = f"""
    (jobs.state = 'failed' AND (
        substr(jobs.reason, 1, instr(jobs.reason || ':', ':') - 1) IN ({_FREE_CODES})
        OR (SELECT outcome = 'refused' AND billed = 'no' AND http_status >= 500 FROM attempts
            WHERE job_id = jobs.id ORDER BY rowid DESC LIMIT 1)))
"""
"""It failed at no cost, for a reason that may have passed: the next run tries it again."""

_DONE_CASE: Final = f"""
    CASE WHEN {_IS_REJECTED} THEN iif({_IS_REFUSED}, '{Group.REFUSED}', '{Group.REJECTED}')
        WHEN {_IS_STALE} THEN iif({_IS_REFUSED}, '{Group.REFUSED}', '{Group.STALE}')
        WHEN (jobs.root, jobs.path) <> (kinds.root, planned.path) THEN '{Group.MOVED}'
        ELSE '{Group.UNCHANGED}' END
"""
_IS_REPAIR: Final = """
    EXISTS (SELECT 1 FROM images AS newer INDEXED BY images_unpublished
        CROSS JOIN images AS due ON due.job_id = newer.job_id AND due.state = 'due'
            AND due.unpublished = 0 AND due.id < newer.id
        WHERE newer.job_id = jobs.id AND newer.state = 'saved' AND newer.unpublished = 1)
"""
"""A published image is downloaded again, while a new one waits."""
_PAID_CASE: Final = f"""
    CASE WHEN planned.fingerprint = {_PAID_FOR} OR {_IS_REPAIR} THEN '{Group.PAID}'
        WHEN planned.fingerprint = {_ON_DISK} THEN '{Group.UNCHANGED}'
        WHEN {_IS_REFUSED} THEN '{Group.PAID}'
        ELSE '{Group.PAID_CHANGED}' END
"""
_BY_FORECAST: Final = f"""
    CASE {_FORECAST} WHEN '{Forecast.FREE}' THEN '{Group.PENDING}'
        WHEN '{Forecast.HELD}' THEN '{Group.HELD}'
        WHEN '{Forecast.FAILED}' THEN '{Group.FAILED}'
        WHEN '{Forecast.BLOCKED}' THEN '{Group.BLOCKED}'
        ELSE '{Group.IN_FLIGHT}' END
"""
_IN_FLIGHT_CASE: Final = f"""
    CASE WHEN planned.fingerprint = {_ON_DISK} AND {_NOT_RENEWED}
            THEN '{Group.UNCHANGED}'
        WHEN {_IS_REFUSED} THEN '{Group.REFUSED}'
        WHEN planned.fingerprint <> {_IN_FLIGHT_OF} THEN '{Group.IN_FLIGHT}'
        ELSE {_BY_FORECAST} END
"""
_AT_FAULT_CASE: Final = f"""
    CASE WHEN jobs.state = 'paid' OR (jobs.state = 'sending' AND {_FORECAST} = '{Forecast.PAID}')
            THEN '{Group.PAID}'
        WHEN jobs.state = 'sending' THEN {_BY_FORECAST}
        WHEN jobs.state = 'pending' OR {_IS_FREE_FAILURE} THEN '{Group.AT_FAULT}'
        WHEN jobs.state = 'done' THEN '{Group.KEPT}'
        ELSE jobs.state END
"""
GROUP_CASE: Final = f"""
    CASE
        WHEN jobs.state = 'pending' AND jobs.done_at IS NULL AND NOT ({_IS_REFUSED})
            THEN '{Group.PENDING}'
        WHEN {AT_FAULT} THEN {_AT_FAULT_CASE}
        WHEN jobs.fingerprint = '' AND NOT ({_IS_REFUSED}) THEN '{Group.NEW}'
        WHEN jobs.state = 'done' AND (jobs.fingerprint = planned.fingerprint
            OR planned.fingerprint = {_ON_DISK}) THEN {_DONE_CASE}
        WHEN jobs.state = 'paid' OR (jobs.state = 'sending' AND {_FORECAST} = '{Forecast.PAID}')
            THEN {_PAID_CASE}
        WHEN jobs.state = 'sending' THEN {_IN_FLIGHT_CASE}
        WHEN planned.fingerprint = {_ON_DISK} AND {_NOT_RENEWED} THEN {_DONE_CASE}
        WHEN {_IS_REFUSED} AND ({IS_CHANGED} OR jobs.state = 'pending' OR {_IS_FREE_FAILURE})
            THEN '{Group.REFUSED}'
        WHEN jobs.state = 'pending' THEN
            CASE {_ON_DISK} WHEN planned.fingerprint
                THEN iif({_DECISION} IS NULL, '{Group.STALE}', '{Group.REJECTED}')
                ELSE iif({_ON_DISK} IS NULL, '{Group.PENDING}', {_CHANGED_GROUP}) END
        WHEN {IS_CHANGED}
            THEN iif(jobs.state <> 'done' AND {_ON_DISK} IS NULL,
                '{Group.REVISED}', {_CHANGED_GROUP})
        WHEN {_IS_FREE_FAILURE} THEN '{Group.RETRIED}'
        ELSE jobs.state
    END
"""
"""The group of a job that the ledger knows; over ``planned``, ``kinds`` and ``jobs``."""

STATE_CASE: Final = f"""
    CASE
        WHEN was IN ('sending', grp) THEN was
        WHEN grp IN ({quoted(Group.UNCHANGED, Group.MOVED)}) THEN 'done'
        WHEN was = 'paid' THEN was
        WHEN grp = '{Group.REFUSED}' THEN 'failed'
        WHEN grp IN ({SENT_GROUPS}, '{Group.SHARED}') THEN 'pending'
        ELSE was
    END
"""
"""The state that enrollment gives a job, by its group and the state it was in."""

KNOWN: Final = f"""
CREATE TABLE staging.known (
    seq INTEGER PRIMARY KEY, job INTEGER NOT NULL, was TEXT NOT NULL, grp TEXT NOT NULL,
    meant INTEGER NOT NULL, changed INTEGER NOT NULL, differs INTEGER NOT NULL,
    becomes TEXT GENERATED ALWAYS AS ({STATE_CASE}) VIRTUAL
)
"""
"""The planned jobs that the ledger knows, looked up once."""

PLANNED_KNOWN: Final = (
    "staging.known CROSS JOIN staging.planned ON planned.seq = known.seq"
    " CROSS JOIN staging.kinds ON kinds.id = planned.kind"
)

COMPARE: Final = f"""
SELECT '{Group.NEW}' AS grp, count(*) AS jobs, sum(estimated) AS cost, sum(estimated = 0) AS free
FROM {PLAN} WHERE {IS_NEW_AND_SENT} AND {IS_MEANT} AND refused IS NULL
UNION ALL
SELECT grp, count(*), sum(estimated), sum(estimated = 0) FROM (
    SELECT grp, iif(grp = '{Group.SHARED}', 0, estimated) AS estimated
    FROM {PLANNED_KNOWN} WHERE meant
    UNION ALL
    SELECT '{Group.SHARED}', 0 FROM staging.shared
    CROSS JOIN staging.planned ON planned.seq = shared.seq WHERE {IS_NEW} AND {IS_MEANT}
    UNION ALL
    SELECT iif({AT_FAULT}, '{Group.AT_FAULT}', '{Group.REFUSED}'), estimated FROM {PLAN}
    WHERE :has_refused AND refused IS NOT NULL AND {IS_NEW} AND {IS_MEANT}
) GROUP BY grp
"""
ALL_NEW: Final = f"""
SELECT '{Group.NEW}' AS grp, coalesce(sum(jobs), 0) AS jobs, sum(jobs * estimated) AS cost,
       coalesce(sum(jobs * (estimated = 0)), 0) AS free
FROM staging.kinds
"""
"""What `COMPARE` says of a plan whose jobs are all new and meant, without reading each."""
FIRST_KNOWN: Final = f"""
SELECT count(*) AS jobs, coalesce(sum(estimated), 0) AS cost
FROM (SELECT estimated FROM {PLANNED_KNOWN} WHERE meant AND grp IN ({SENT_GROUPS})
    ORDER BY job LIMIT :limit)
"""
"""The first jobs of a run that the ledger knows, in the order in which a run takes them up."""
FIRST_NEW: Final = f"""
SELECT count(*) AS jobs, coalesce(sum(estimated), 0) AS cost
FROM (SELECT estimated FROM {PLAN} WHERE {IS_NEW_AND_SENT} AND {IS_MEANT} AND refused IS NULL
    ORDER BY seq LIMIT :limit)
"""
MODELS_TO_ASK: Final = f"""
SELECT model FROM {PLAN} WHERE refused IS NULL AND {IS_NEW_AND_SENT} AND {IS_MEANT}
UNION
SELECT model FROM {PLANNED_KNOWN} WHERE meant AND grp IN ({SENT_GROUPS})
ORDER BY 1
"""
FOREIGN: Final = f"""
SELECT attempts.provider AS provider, count(DISTINCT jobs.id) AS images
FROM {PLANNED_KNOWN} CROSS JOIN jobs ON jobs.id = known.job
CROSS JOIN images ON images.job_id = jobs.id AND images.state IN ('saved', 'due')
CROSS JOIN attempts ON attempts.id = images.attempt_id
WHERE known.changed AND grp IN ({SENT_GROUPS}, '{Group.SHARED}')
  AND attempts.provider <> kinds.provider
GROUP BY 1
"""
"""Images of other providers that a run would replace, paid ones that are not on disk too."""
