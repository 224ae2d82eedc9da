"""Responses that the ledger keeps from the payment until the job is done."""

from __future__ import annotations

from batchgen.job import AttemptId, BatchId, ImageRef, JobId
from batchgen.ledger.attempts import mark_response_spoiled
from batchgen.ledger.images import due_images
from batchgen.ledger.jobs import pending_jobs
from batchgen.ledger.ledger import Ledger
from tests.support.builders import EMPTY, OK, enroll, first, planned, save, send, start
from tests.support.ledger_steps import record_response


def stored(ledger: Ledger) -> dict[str, bytes]:
    return {
        row["attempt_id"]: row["body"] for row in ledger.conn.execute("SELECT * FROM responses")
    }


def paid(ledger: Ledger, batch: BatchId, body: bytes | None, images: int = 1) -> AttemptId:
    attempt = send(ledger, start(ledger, batch), first(ledger, batch))
    refs = [(ImageRef(index=n, url=f"http://x/{n}"), None) for n in range(images)]
    record_response(ledger, attempt, OK, refs, response=None, body=body)
    return attempt


def test_a_response_is_kept_until_its_job_is_done(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(0), planned(1)])
    attempt = paid(ledger, batch, b"one", images=2)
    other = paid(ledger, batch, b"two")
    assert stored(ledger) == {attempt: b"one", other: b"two"}
    job = ledger.conn.execute("SELECT job_id FROM attempts WHERE id = ?", (attempt,)).fetchone()[0]
    left, last = due_images(ledger, job)
    assert save(ledger, left.id, "0.png") is None
    assert stored(ledger) == {attempt: b"one", other: b"two"}
    finished = save(ledger, last.id, "1.png")
    assert finished is not None
    assert not finished.has_spool_file
    assert stored(ledger) == {other: b"two"}


def test_a_job_whose_response_is_a_file_says_so(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(0)])
    paid(ledger, batch, None)
    (image,) = due_images(ledger, only_job(ledger))
    finished = save(ledger, image.id)
    assert finished is not None
    assert finished.has_spool_file


def test_a_spoiled_response_is_kept_until_another_is_saved(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(0)])
    spoiled = paid(ledger, batch, b"spoiled")
    mark_response_spoiled(ledger, spoiled, EMPTY, start(ledger, batch, waste=10**6))
    assert stored(ledger) == {spoiled: b"spoiled"}
    assert pending_jobs(ledger, batch, after=JobId(0), limit=1)
    paid(ledger, batch, b"good")
    (image,) = due_images(ledger, only_job(ledger))
    save(ledger, image.id)
    assert stored(ledger) == {}


def only_job(ledger: Ledger) -> JobId:
    return JobId(ledger.conn.execute("SELECT id FROM jobs").fetchone()[0])


def test_response_in_the_spool_is_not_taken_for_an_earlier_one(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(0)])
    spoiled = paid(ledger, batch, b"spoiled")
    mark_response_spoiled(ledger, spoiled, EMPTY, start(ledger, batch, waste=10**6))
    paid(ledger, batch, None)
    (image,) = due_images(ledger, only_job(ledger))
    finished = save(ledger, image.id)
    assert finished is not None
    assert finished.has_spool_file
