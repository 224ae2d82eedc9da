"""An attempt that is recorded again from its intent is the one that was reserved."""

from __future__ import annotations

import pytest

from batchgen.job import AttemptId, JobId
from batchgen.ledger.jobs import pending_jobs
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.lost_attempts import LostAttempt, record_lost_attempts
from batchgen.ledger.reservations import Reservation, reserve_attempts
from batchgen.money import Micros, PriceTerms
from tests.support.builders import PRICE, enroll, planned, start

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
