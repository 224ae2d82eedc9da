"""An attempt that is recorded again from its intent is the one that was reserved."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from batchgen.job import AttemptId, Billed, JobId, JobState
from batchgen.ledger.images import due_images
from batchgen.ledger.jobs import pending_jobs, read_job
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.lost_attempts import LostAttempt, record_lost_attempts
from batchgen.ledger.reconciliation import settle_attempts
from batchgen.ledger.reservations import Reservation, reserve_attempts
from batchgen.money import Micros, PriceTerms
from batchgen.reconciliation.charges import Charge, UsageLog
from batchgen.reconciliation.matching import reconcile
from tests.support.builders import PRICE, enroll, first, pay, planned, save, start
from tests.support.settlement import SETTLE, sent

ATTEMPT = AttemptId("a" * 32)


@pytest.mark.parametrize("least", [None, Micros(10), Micros(PRICE * 2)])
@pytest.mark.parametrize("is_known", [True, False])
def test_a_lost_attempt_is_recorded_as_it_was_reserved(
    least: Micros | None, is_known: bool, ledger: Ledger
) -> None:
    batch = enroll(ledger, [planned(0)])
    run = start(ledger, batch)
    (job,) = pending_jobs(ledger, batch, after=JobId(0), limit=2)
    terms = PriceTerms(least=least, is_known=is_known)
    order = Reservation(run=run, job=job, attempt=ATTEMPT, provider="local", terms=terms)
    reserve_attempts(ledger, [order])
    reserved = dict(ledger.conn.execute("SELECT * FROM attempts").fetchone())
    # The backup was made before.
    ledger.conn.execute("DELETE FROM attempts")
    lost = LostAttempt(
        attempt=ATTEMPT,
        batch=ledger.conn.execute("SELECT name FROM batches").fetchone()[0],
        key=job.key,
        fingerprint=job.fingerprint,
        provider="local",
        model=job.model,
        price=job.price,
        least=terms.least_within(job.price),
        price_known=is_known,
        started_at=reserved["started_at"],
    )
    assert record_lost_attempts(ledger, [lost]) == []
    assert dict(ledger.conn.execute("SELECT * FROM attempts").fetchone()) == reserved
    assert reserved["least"] is None or reserved["least"] <= reserved["price"]


def test_a_lost_attempt_of_a_done_job_can_be_reconciled(ledger: Ledger) -> None:
    """It has an end: for one that is open, a log never covers the window of its charge."""
    batch = enroll(ledger, [planned(0)])
    job = first(ledger, batch)
    pay(ledger, start(ledger, batch), job)
    save(ledger, due_images(ledger, job.id)[0].id)
    (made,) = sent(ledger, batch)
    lost = LostAttempt(
        attempt=ATTEMPT,
        batch="b",
        key=job.key,
        fingerprint=job.fingerprint,
        provider="local",
        model=job.model,
        price=job.price,
        least=None,
        price_known=True,
        started_at=ledger.timestamp(),
    )
    assert record_lost_attempts(ledger, [lost]) == []
    made_row = Charge(at=made.started_at, model=job.model, amount=PRICE, request_id="id-1")
    log = UsageLog(
        charges=(made_row,),
        since=made.started_at - timedelta(hours=2),
        until=made.started_at + timedelta(hours=9),
    )
    attempts = [
        replace(one, request_id="id-1") if one.id == made.id else one for one in sent(ledger, batch)
    ]
    found = reconcile(attempts, log, SETTLE)
    assert [settled.attempt.id for settled in found.unbilled] == [ATTEMPT], found.unproven
    settle_attempts(ledger.conn, found)
    assert read_job(ledger, job.id).state is JobState.DONE
    (row,) = ledger.conn.execute("SELECT billed FROM attempts WHERE id = ?", (ATTEMPT,))
    assert row["billed"] == Billed.NO
    (sums,) = ledger.conn.execute("SELECT sum(maybe) AS maybe, sum(reserved) AS open FROM runs")
    assert (sums["maybe"], sums["open"]) == (0, 0)
