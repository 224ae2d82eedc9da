"""Build jobs, runs, attempts and images in a ledger."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

from batchgen.job import (
    AttemptId,
    BatchId,
    Billed,
    ImageRef,
    Job,
    JobId,
    Outcome,
    PlannedJob,
    RunId,
    SavedImage,
)
from batchgen.ledger.batch_identity import BatchIdentity
from batchgen.ledger.jobs import pending_jobs
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.records import JobFinished, Reserved
from batchgen.ledger.runs import start_run
from batchgen.ledger.staging import Staging
from batchgen.money import Micros
from batchgen.outcomes.classify import Classification
from batchgen.planning.naming import collision_key
from tests.support.ledger_steps import (
    mark_image_saved,
    record_placement,
    record_response,
    reserve_attempt,
)
from tests.support.rig import planned_job

PRICE = Micros(37_700)
OK = Classification(outcome=Outcome.OK, billed=Billed.YES)
LOST = Classification(outcome=Outcome.AMBIGUOUS, billed=Billed.MAYBE, code="deadline")
FREE = Classification(outcome=Outcome.SAFE, billed=Billed.NO, code="unreachable")
REFUSED = Classification(outcome=Outcome.REFUSED, billed=Billed.NO, code="invalid_value")
EMPTY = Classification(outcome=Outcome.SPOILED, billed=Billed.YES, code="no_image")
BLOCKED = Classification(outcome=Outcome.BLOCKED, billed=Billed.NO, code="moderation_blocked")
THROTTLED = Classification(outcome=Outcome.THROTTLED, billed=Billed.NO, code="http_429")
OVERLOADED = Classification(outcome=Outcome.REFUSED, billed=Billed.NO, code="http_500", again=True)
FEE = Classification(outcome=Outcome.BLOCKED, billed=Billed.MAYBE, code="violation_fee.x")
IMAGE = SavedImage(path="0.png", sha256="s", bytes=1, width=1, height=1, format="png")
IDENTITY = BatchIdentity(
    name="b",
    provider="local",
    price_source="test",
    manifest_path="b.yaml",
    manifest_sha256="",
    manifest="",
)


def planned(number: int, edition: int = 0) -> PlannedJob:
    return planned_job(
        key=f"k{number}",
        fingerprint=f"{number}-{edition}",
        provider="local",
        model="gpt-image-2",
        prompt=f"prompt {number}, edition {edition}",
        options={},
        root="out",
        path=f"{number}.{{ext}}",
        source=f"b.yaml:{number}",
    )


def enroll(ledger: Ledger, jobs: list[PlannedJob], name: str = "b") -> BatchId:
    staging = Staging(ledger.conn)
    staging.fill(jobs, price=lambda *_: PRICE, collision_key=collision_key)
    batch = staging.enroll(replace(IDENTITY, name=name))
    ledger.conn.execute("DETACH DATABASE staging")
    return batch


def start(ledger: Ledger, batch: BatchId, max_cost: int | None = None, waste: int = 0) -> RunId:
    return start_run(
        ledger,
        batch,
        estimate=Micros(0),
        max_cost=None if max_cost is None else Micros(max_cost),
        max_waste=Micros(waste),
    )


def send(ledger: Ledger, run: RunId, job: Job) -> AttemptId:
    attempt = AttemptId(uuid4().hex)
    assert reserve_attempt(ledger, run, job, attempt, provider="local") == Reserved()
    return attempt


def first(ledger: Ledger, batch: BatchId) -> Job:
    return pending_jobs(ledger, batch, after=JobId(0), limit=1)[0]


def pay(ledger: Ledger, run: RunId, job: Job, images: int = 1) -> AttemptId:
    attempt = send(ledger, run, job)
    refs = [(ImageRef(index=index), None) for index in range(images)]
    record_response(ledger, attempt, OK, refs, response="a.answer")
    return attempt


def save(ledger: Ledger, image: int, name: str = "0.png") -> JobFinished | None:
    record_placement(ledger, image, "out", replace(IMAGE, path=name))
    return mark_image_saved(ledger, image)


def reason_of(ledger: Ledger, job: JobId) -> str | None:
    row = ledger.conn.execute("SELECT reason FROM jobs WHERE id = ?", (job,)).fetchone()
    reason: str | None = row["reason"]
    return reason
