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
from batchgen.ledger.ledger import (
    JobFinished,
    Ledger,
    Reserved,
)
from batchgen.ledger.staging import BatchIdentity, Staging
from batchgen.money import Micros
from batchgen.outcomes.classify import Verdict
from batchgen.planning.naming import collision_key
from tests.support.rig import planned_job

PRICE = Micros(37_700)
OK = Verdict(outcome=Outcome.OK, billed=Billed.YES)
LOST = Verdict(outcome=Outcome.AMBIGUOUS, billed=Billed.MAYBE, code="deadline")
FREE = Verdict(outcome=Outcome.SAFE, billed=Billed.NO, code="unreachable")
REFUSED = Verdict(outcome=Outcome.REFUSED, billed=Billed.NO, code="invalid_value")
EMPTY = Verdict(outcome=Outcome.SPOILED, billed=Billed.YES, code="no_image")
BLOCKED = Verdict(outcome=Outcome.BLOCKED, billed=Billed.NO, code="moderation_blocked")
THROTTLED = Verdict(outcome=Outcome.THROTTLED, billed=Billed.NO, code="http_429")
OVERLOADED = Verdict(outcome=Outcome.REFUSED, billed=Billed.NO, code="http_500", again=True)
FEE = Verdict(outcome=Outcome.BLOCKED, billed=Billed.MAYBE, code="violation_fee.x")
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
    return ledger.start_run(
        batch,
        estimate=Micros(0),
        max_cost=None if max_cost is None else Micros(max_cost),
        max_waste=Micros(waste),
    )


def send(ledger: Ledger, run: RunId, job: Job) -> AttemptId:
    attempt = AttemptId(uuid4().hex)
    assert ledger.reserve(run, job, attempt, provider="local") == Reserved()
    return attempt


def first(ledger: Ledger, batch: BatchId) -> Job:
    return ledger.pending(batch, after=JobId(0), limit=1)[0]


def pay(ledger: Ledger, run: RunId, job: Job, images: int = 1) -> AttemptId:
    attempt = send(ledger, run, job)
    refs = [(ImageRef(index=index), None) for index in range(images)]
    ledger.record_response(attempt, OK, refs, response="a.answer")
    return attempt


def save(ledger: Ledger, image: int, name: str = "0.png") -> JobFinished | None:
    ledger.placing(image, "out", replace(IMAGE, path=name))
    return ledger.image_saved(image)


def reason_of(ledger: Ledger, job: JobId) -> str | None:
    row = ledger.conn.execute("SELECT reason FROM jobs WHERE id = ?", (job,)).fetchone()
    reason: str | None = row["reason"]
    return reason
