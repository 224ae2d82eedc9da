"""Responses that turn up after their attempts were given up."""

from __future__ import annotations

import pytest

from batchgen.job import AttemptId, BatchId, Billed, ImageRef, JobId, JobState, Outcome
from batchgen.ledger.attempts import settle_attempt
from batchgen.ledger.images import due_images
from batchgen.ledger.jobs import read_job
from batchgen.ledger.late_responses import (
    late_attempts,
    needed_responses,
    record_late_refusal,
    record_late_response,
    spent_attempts,
)
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.run_sums import run_totals
from batchgen.outcomes.classify import Classification
from tests.support.builders import OK, enroll, first, pay, planned, save, send, start

LOST = Classification(outcome=Outcome.AMBIGUOUS, billed=Billed.MAYBE, code="network")
REFUSED = Classification(outcome=Outcome.REFUSED, billed=Billed.NO, code="bad_request", status=400)
IMAGES = [(ImageRef(index=0, url="http://x/0"), None)]


@pytest.fixture
def batch(ledger: Ledger) -> BatchId:
    return enroll(ledger, [planned(0)])


def given_up(ledger: Ledger, batch: BatchId, *, waste: int = 0) -> AttemptId:
    """Send the first job and lose its response."""
    attempt = send(ledger, start(ledger, batch, waste=waste), first(ledger, batch))
    settle_attempt(ledger, attempt, LOST)
    return attempt


def sums(ledger: Ledger) -> tuple[int, int, int]:
    rows = ledger.conn.execute("SELECT id FROM runs").fetchall()
    found = [run_totals(ledger, row["id"]) for row in rows]
    spent = ledger.conn.execute("SELECT total(spent) FROM days").fetchone()[0]
    return sum(one.charged for one in found), sum(one.maybe for one in found), int(spent)


def test_late_response_pays_a_held_job(ledger: Ledger, batch: BatchId) -> None:
    attempt = given_up(ledger, batch)
    price = read_job(ledger, first_job(ledger)).price
    assert sums(ledger) == (0, price, price)
    assert [one.id for one in late_attempts(ledger, batch, [attempt])] == [attempt]
    state = record_late_response(ledger, attempt, OK, IMAGES, response="r")
    assert state is JobState.PAID
    assert sums(ledger) == (price, 0, price)
    (image,) = due_images(ledger, first_job(ledger))
    assert image.attempt_id == attempt
    assert save(ledger, image.id) is not None
    assert late_attempts(ledger, batch, [attempt]) == []
    assert spent_attempts(ledger, batch, [attempt]) == [attempt]


def test_late_response_saves_the_rebuy_that_waits(ledger: Ledger, batch: BatchId) -> None:
    attempt = given_up(ledger, batch, waste=10**9)
    assert read_job(ledger, first_job(ledger)).state is JobState.PENDING
    assert record_late_response(ledger, attempt, OK, IMAGES, response="r") is JobState.PAID


def test_late_response_of_a_bought_job_is_only_charged(ledger: Ledger, batch: BatchId) -> None:
    attempt = given_up(ledger, batch, waste=10**9)
    other = pay(ledger, start(ledger, batch), first(ledger, batch))
    assert record_late_response(ledger, attempt, OK, IMAGES, response="r") is JobState.PAID
    assert [one.attempt_id for one in due_images(ledger, first_job(ledger))] == [other]
    price = read_job(ledger, first_job(ledger)).price
    assert sums(ledger) == (2 * price, 0, 2 * price)


def test_late_refusal_frees_a_held_job(ledger: Ledger, batch: BatchId) -> None:
    attempt = given_up(ledger, batch)
    assert record_late_refusal(ledger, attempt, REFUSED) is JobState.PENDING
    assert sums(ledger) == (0, 0, 0)
    assert record_late_refusal(ledger, attempt, REFUSED) is None


def test_responses_are_needed_until_their_images_are_saved(ledger: Ledger, batch: BatchId) -> None:
    attempt = send(ledger, start(ledger, batch), first(ledger, batch))
    assert needed_responses(ledger, batch, [attempt, AttemptId("unknown")]) == [attempt]
    assert spent_attempts(ledger, batch, [attempt]) == []
    settle_attempt(ledger, attempt, REFUSED)
    assert needed_responses(ledger, batch, [attempt]) == []
    assert spent_attempts(ledger, batch, [attempt]) == [attempt]


def first_job(ledger: Ledger) -> JobId:
    return JobId(ledger.conn.execute("SELECT min(id) FROM jobs").fetchone()[0])
