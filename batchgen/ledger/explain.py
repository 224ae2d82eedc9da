"""One planned job and its image: what a run would do with it, and what changed since."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any, Final

from batchgen.job import ROW_REASON
from batchgen.ledger.decisions import MadeDecision, decision_about
from batchgen.ledger.groups import FINGERPRINT_ON_DISK, Group
from batchgen.ledger.reference_paths import reference_paths
from batchgen.ledger.staging_rows import PLAN
from batchgen.money import Micros
from batchgen.planning.changes import MadeOf


@dataclass(frozen=True, slots=True, kw_only=True)
class LastAttempt:
    """The newest request for a job."""

    sent_at: str
    price: Micros
    request_id: str | None
    billed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobExplanation:
    """A planned job, and what the ledger knows of it."""

    group: Group
    planned: MadeOf
    has_image: bool
    made: MadeOf | None
    """What its image on disk was made of; None without an image, or where that is not recorded."""
    state: str | None
    """None where the ledger does not know the key."""
    reason: str
    done_at: str | None
    refused: str | None
    attempt: LastAttempt | None
    shares: str | None = None
    """The key of the job whose image it gets."""
    decision: MadeDecision | None = None
    """Why its image was rejected in review; None if it was not."""


_EXPLAIN: Final = f"""
SELECT planned.fingerprint AS fingerprint, kinds.model AS model, planned.prompt AS prompt,
       kinds.options AS options, planned.images AS images, planned.mask AS mask,
       planned.refused AS refused, known.grp AS grp, jobs.id AS job, jobs.state AS state,
       coalesce(jobs.reason, '') AS reason, jobs.done_at AS done_at,
       {FINGERPRINT_ON_DISK} AS on_disk, jobs.fingerprint AS own_fingerprint,
       json_object('fingerprint', jobs.fingerprint, 'model', jobs.model,
           'prompt', jobs.prompt, 'options', json(jobs.options),
           'images', json(jobs.images), 'mask', jobs.mask) AS own,
       jobs.made_of AS made_of,
       (SELECT first.key FROM staging.shared CROSS JOIN staging.planned AS first
        ON first.seq = shared.leader WHERE shared.seq = planned.seq) AS shares
FROM {PLAN} LEFT JOIN staging.known ON known.seq = planned.seq
LEFT JOIN jobs ON jobs.id = known.job
WHERE planned.key = :key
"""
_LAST_ATTEMPT: Final = (
    "SELECT started_at AS sent_at, price, request_id, billed FROM attempts WHERE job_id = ?"
    " ORDER BY rowid DESC LIMIT 1"
)


def explain_job(conn: sqlite3.Connection, key: str) -> JobExplanation | None:
    """Describe a staged job whose group is known; None for a key that is not planned."""
    row = conn.execute(_EXPLAIN, {"key": key}).fetchone()
    if row is None:
        return None
    values = dict(row)
    planned = values | {name: json.loads(values[name]) for name in ("options", "images")}
    has_image = values["done_at"] is not None and values["on_disk"] is not None
    attempt = conn.execute(_LAST_ATTEMPT, (values["job"],)).fetchone()
    return JobExplanation(
        group=_group(values),
        planned=_made_of(conn, planned),
        has_image=has_image,
        made=_made(conn, values) if has_image else None,
        state=values["state"],
        reason=values["reason"],
        done_at=values["done_at"],
        refused=values["refused"],
        attempt=LastAttempt(**dict(attempt)) if attempt is not None else None,
        shares=values["shares"],
        decision=decision_about(conn, values["job"]) if has_image else None,
    )


def _group(values: dict[str, Any]) -> Group:
    if values["grp"] is not None:
        return Group(values["grp"])
    if values["shares"] is not None:
        return Group.SHARED
    if values["refused"] is None:
        return Group.NEW
    return Group.AT_FAULT if values["refused"].startswith(f"{ROW_REASON}:") else Group.REFUSED


def _made(conn: sqlite3.Connection, values: dict[str, Any]) -> MadeOf | None:
    """Return the inputs of the image on disk, as far as a row of the job has them."""
    if values["state"] == "done" or values["on_disk"] == values["own_fingerprint"]:
        return _made_of(conn, json.loads(values["own"]))
    found = json.loads(values["made_of"] or "{}")
    return _made_of(conn, found) if found.get("fingerprint") == values["on_disk"] else None


def _made_of(conn: sqlite3.Connection, values: dict[str, Any]) -> MadeOf:
    images, mask = reference_paths(conn, json.dumps(values["images"]), values["mask"])
    return MadeOf(
        fingerprint=values["fingerprint"],
        model=values["model"],
        prompt=values["prompt"],
        options=values["options"],
        images=images,
        mask=mask,
    )
