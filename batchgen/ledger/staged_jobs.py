"""Single jobs of a plan as they would be sent, and a sample of them. Never writes."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from batchgen.job import Job, JobId, JobState, Verify
from batchgen.ledger.reference_paths import reference_path
from batchgen.ledger.staging_rows import PLAN
from batchgen.money import Micros
from batchgen.planning.sample import most_different, most_different_rows

_COLUMNS: Final = (
    "planned.key AS key, planned.fingerprint AS fingerprint, planned.prompt AS prompt,"
    " planned.path AS path, planned.source AS source, planned.images AS images,"
    " planned.mask AS mask, planned.refused AS refused, kinds.model AS model,"
    " kinds.options AS options, kinds.root AS root, kinds.estimated AS estimated"
)
_CANDIDATES: Final = 500
"""Jobs of a large plan among which a sample is chosen, evenly spread over it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedJob:
    """A planned job, with what messages about it need."""

    job: Job
    source: str
    """Its place in the manifest or table."""
    refused: str | None
    """Why it will not be sent; None for a job without errors."""


def staged_job(conn: sqlite3.Connection, key: str, ledger: Path) -> StagedJob | None:
    """Return a planned job; None for a key that is not planned.

    ``ledger`` is where the plan would be enrolled; it may not exist yet.
    """
    row = conn.execute(f"SELECT {_COLUMNS} FROM {PLAN} WHERE planned.key = ?", (key,)).fetchone()
    if row is None:
        return None
    values: dict[str, Any] = dict(row)

    def located(stored: str) -> str:
        return reference_path(stored, ledger.parent)

    job = Job(
        id=JobId(0),
        key=key,
        state=JobState.PENDING,
        fingerprint=values["fingerprint"],
        model=values["model"],
        prompt=values["prompt"],
        options=json.loads(values["options"]),
        images=tuple(located(image) for image in json.loads(values["images"])),
        mask=values["mask"] and located(values["mask"]),
        root=values["root"],
        path=values["path"],
        verify=Verify.STRUCTURE,
        price=Micros(values["estimated"]),
    )
    return StagedJob(job=job, source=values["source"], refused=values["refused"])


def sample_keys(conn: sqlite3.Connection, number: int, *, in_rows: bool = False) -> list[str]:
    """Return the keys of the most different jobs of a plan without errors, in its order.

    They differ in model, options and words of the prompt. With ``in_rows``, they are all jobs of
    the most different lines of the manifest, so that the values of a matrix can be compared.
    """
    found = list(_candidates(conn, in_rows=in_rows))
    texts = [text for _, _, text in found]
    if in_rows:
        chosen = most_different_rows(texts, [source for _, source, _ in found], number)
    else:
        chosen = most_different(texts, number)
    return [found[index][0] for index in chosen]


def jobs_without_error(conn: sqlite3.Connection) -> int:
    """Count the jobs of a plan that can be requested."""
    row = conn.execute("SELECT count(*) AS n FROM staging.planned WHERE refused IS NULL").fetchone()
    return int(row["n"])


def _candidates(conn: sqlite3.Connection, *, in_rows: bool) -> Iterator[tuple[str, str, str]]:
    """Return keys, lines and texts of jobs among which a sample is chosen."""
    jobs = conn.execute("SELECT count(*) AS n FROM staging.planned").fetchone()["n"]
    step = max(1, jobs // _CANDIDATES)
    chosen = (
        "planned.seq % :step = 0 OR planned.seq IN"
        " (SELECT min(seq) FROM staging.planned WHERE refused IS NULL GROUP BY kind)"
    )
    if in_rows:
        lines = "SELECT source FROM staging.planned WHERE refused IS NULL AND seq % :step = 0"
        chosen = f"planned.source IN ({lines})"
    rows = conn.execute(
        f"SELECT planned.key AS key, planned.source AS source, kinds.model AS model,"
        f" kinds.options AS options, planned.prompt AS prompt FROM {PLAN}"
        f" WHERE planned.refused IS NULL AND ({chosen}) ORDER BY planned.seq",
        {"step": step},
    )
    for row in rows:
        yield row["key"], row["source"], f"{row['model']} {row['options']} {row['prompt']}"
