"""What a log has proven, written into a ledger: money to its column, jobs to their state."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from batchgen.job import AttemptId, BatchId, Billed, JobId, JobState, Outcome
from batchgen.ledger.attempts import record_task_failure, settle_attempt
from batchgen.ledger.batch_status import status
from batchgen.ledger.jobs import read_job
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.reconciliation import Moved, sent_attempts, settle_attempts
from batchgen.ledger.retry_selection import RetrySelection, retry_jobs
from batchgen.ledger.runs import end_run
from batchgen.money import Micros
from batchgen.outcomes.classify import Classification
from batchgen.reconciliation.settlement import Reconciliation, Sent, Settled
from tests.support.builders import (
    FEE,
    LOST,
    OK,
    PRICE,
    REFUSED,
    enroll,
    first,
    pay,
    planned,
    reason_of,
    send,
    start,
)
from tests.support.fixtures import Clock
from tests.support.ledger_steps import record_response, reserve_attempt
from tests.support.settlement import NOTHING, SETTLE, sent

CLOCK = Clock(datetime(2026, 11, 22, 23, tzinfo=UTC), step=timedelta(minutes=1))


def lose(
    ledger: Ledger, batch: BatchId, classification: Classification = LOST, waste: int = 0
) -> JobId:
    """Send for the first pending job in a run of its own, and get this classification."""
    run = start(ledger, batch, waste=waste)
    job = first(ledger, batch)
    settle_attempt(ledger, send(ledger, run, job), classification)
    end_run(ledger, run, stopped=None, exit_code=1)
    return job.id


def money(ledger: Ledger) -> tuple[int, int, dict[Billed, int]]:
    """Charged, maybe and attempts by what is known of them; the run's sums agree with them."""
    found = status(ledger.conn, "b")
    sums = ledger.conn.execute(
        "SELECT coalesce(sum(cost), 0), coalesce(sum(iif(billed = 'maybe', price, 0)), 0)"
        " FROM attempts JOIN jobs ON jobs.id = job_id JOIN batches ON batches.id = batch_id"
        " WHERE batches.name = 'b'"
    ).fetchone()
    assert tuple(sums) == (found.charged, found.maybe)
    return found.charged, found.maybe, found.attempts


def state(ledger: Ledger, job: JobId) -> JobState:
    return read_job(ledger, job).state


def charged(attempt: Sent, amount: int = PRICE, request_id: str | None = None) -> Reconciliation:
    settled = Settled(attempt=attempt, amount=Micros(amount), request_id=request_id)
    return replace(NOTHING, billed=(settled,))


def free(*attempts: Sent) -> tuple[Settled, ...]:
    return tuple(Settled(attempt=attempt, amount=Micros(0)) for attempt in attempts)


def test_a_proven_charge_is_moved_and_its_job_stays_held(
    ledger: Ledger,
) -> None:
    batch = enroll(ledger, [planned(0)])
    job = lose(ledger, batch)
    (attempt,) = sent(ledger, batch)
    moved = settle_attempts(ledger.conn, charged(attempt, 40_000, "id"))
    assert (moved.charged, moved.pending.jobs) == (1, 0)
    assert money(ledger) == (40_000, 0, {Billed.YES: 1, Billed.MAYBE: 0, Billed.NO: 0})
    assert state(ledger, job) is JobState.UNCERTAIN
    assert (reason_of(ledger, job) or "").startswith("charged: the provider's log has the charge")
    assert sent(ledger, batch)[0].request_id == "id"


def test_an_id_that_is_known_is_kept(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(0)])
    lose(ledger, batch, replace(LOST, request_id="first"))
    settle_attempts(ledger.conn, charged(sent(ledger, batch)[0], PRICE, "second"))
    assert sent(ledger, batch)[0].request_id == "first"


def test_an_attempt_proven_free_makes_its_job_pending(
    ledger: Ledger,
) -> None:
    batch = enroll(ledger, [planned(0)])
    job = lose(ledger, batch)
    moved = settle_attempts(ledger.conn, replace(NOTHING, unbilled=free(*sent(ledger, batch))))
    assert (moved.pending.jobs, moved.pending.cost, moved.charged) == (1, PRICE, 0)
    assert money(ledger) == (0, 0, {Billed.YES: 0, Billed.MAYBE: 0, Billed.NO: 1})
    again = first(ledger, batch)
    assert (again.id, again.tries, again.doubts) == (job, 0, 0)
    assert reason_of(ledger, job) is None


@pytest.mark.parametrize("other", [Billed.YES, Billed.MAYBE, Billed.NO])
def test_a_job_continues_only_if_all_its_attempts_are_free(ledger: Ledger, other: Billed) -> None:
    batch = enroll(ledger, [planned(0)])
    job = lose(ledger, batch, waste=PRICE)
    lose(ledger, batch)
    one, two = sent(ledger, batch)
    found = replace(NOTHING, unbilled=free(two))
    if other is Billed.YES:
        found = replace(charged(one), unbilled=free(two))
    elif other is Billed.NO:
        found = replace(NOTHING, unbilled=free(one, two))
    settle_attempts(ledger.conn, found)
    wanted = JobState.PENDING if other is Billed.NO else JobState.UNCERTAIN
    assert state(ledger, job) is wanted
    assert (
        money(ledger)[:2]
        == {
            Billed.YES: (PRICE, 0),
            Billed.MAYBE: (0, PRICE),
            Billed.NO: (0, 0),
        }[other]
    )


def test_a_job_that_is_not_held_is_left_where_it_is(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(0), planned(1)])
    done = lose(ledger, batch, waste=PRICE)
    pay(ledger, start(ledger, batch), first(ledger, batch))
    blocked = lose(ledger, batch, FEE)
    uncertain = [attempt for attempt in sent(ledger, batch) if attempt.billed is Billed.MAYBE]
    assert len(uncertain) == 2
    moved = settle_attempts(ledger.conn, replace(NOTHING, unbilled=free(*uncertain)))
    assert (moved.pending.jobs, moved.charged) == (0, 0)
    assert state(ledger, done) is JobState.PAID
    assert state(ledger, blocked) is JobState.BLOCKED
    assert money(ledger)[:2] == (PRICE, 0)


def test_a_retired_job_is_settled_and_not_asked_again(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(0), planned(1)])
    job = lose(ledger, batch)
    enroll(ledger, [planned(1)])
    settle_attempts(ledger.conn, replace(NOTHING, unbilled=free(*sent(ledger, batch))))
    assert state(ledger, job) is JobState.UNCERTAIN
    assert money(ledger)[:2] == (0, 0)


@pytest.mark.fault("A12")
def test_a_refusal_that_was_charged_is_charged(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(0)])
    job = lose(ledger, batch, REFUSED)
    moved = settle_attempts(ledger.conn, charged(sent(ledger, batch)[0]))
    assert moved.charged == 0
    assert money(ledger)[:2] == (PRICE, 0)
    assert state(ledger, job) is JobState.FAILED


def test_an_uncertain_task_counts_with_its_price_until_settled(
    ledger: Ledger,
) -> None:
    batch = enroll(ledger, [planned(0)])
    run = start(ledger, batch)
    attempt = send(ledger, run, first(ledger, batch))
    record_response(ledger, attempt, OK, [], response="a.answer", cost=Micros(20_000))
    record_task_failure(ledger, attempt, LOST, run)
    assert money(ledger)[:2] == (0, PRICE)
    settle_attempts(ledger.conn, replace(NOTHING, unbilled=free(*sent(ledger, batch))))
    assert money(ledger)[:2] == (0, 0)


def test_a_known_charge_takes_the_amount_of_the_log(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(0)])
    pay(ledger, start(ledger, batch), first(ledger, batch))
    (attempt,) = sent(ledger, batch)
    found = replace(NOTHING, corrected=(Settled(attempt=attempt, amount=Micros(30_000)),))
    settle_attempts(ledger.conn, found)
    settle_attempts(ledger.conn, found)
    assert money(ledger)[:2] == (30_000, 0)
    assert sent(ledger, batch)[0].price == PRICE, "what it was estimated at stays"


def test_what_was_settled_or_is_open_is_left_alone(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(0), planned(1)])
    lose(ledger, batch)
    run = start(ledger, batch)
    send(ledger, run, first(ledger, batch))
    one, open_one = sent(ledger, batch)
    assert open_one.outcome is Outcome.SENDING
    assert open_one.ended_at is None
    found = replace(charged(one), unbilled=free(open_one))
    settle_attempts(ledger.conn, found)
    nothing = settle_attempts(ledger.conn, replace(found, unbilled=free(one, open_one)))
    assert nothing == Moved(pending=nothing.pending, charged=0)
    assert nothing.pending.jobs == 0
    assert money(ledger)[:2] == (PRICE, PRICE)


def test_all_is_written_or_nothing(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(0), planned(1)])
    lose(ledger, batch)
    lose(ledger, batch)
    one, two = sent(ledger, batch)
    broken = Settled(attempt=two, amount=Micros(-1))
    with pytest.raises(sqlite3.IntegrityError):
        settle_attempts(ledger.conn, replace(charged(one), billed=(*charged(one).billed, broken)))
    assert money(ledger)[:2] == (0, 2 * PRICE)
    assert not ledger.conn.in_transaction


def test_a_person_may_still_pay_again_for_what_is_charged(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(0)])
    lose(ledger, batch)
    settle_attempts(ledger.conn, charged(sent(ledger, batch)[0]))
    assert retry_jobs(ledger.conn, batch, RetrySelection(states=[JobState.UNCERTAIN])).jobs == 1


def test_attempts_of_other_batches_are_read_where_times_are_near(
    ledger: Ledger, clock: Clock
) -> None:
    batch = enroll(ledger, [planned(n) for n in range(3)])
    lose(ledger, batch)
    other = enroll(ledger, [planned(n) for n in range(4)], name="other")
    lose(ledger, other)
    clock.now += timedelta(hours=5)
    lose(ledger, other)
    elsewhere = start(ledger, other)
    reserve_attempt(
        ledger, elsewhere, first(ledger, other), AttemptId("elsewhere"), provider="openai"
    )
    found = sent(ledger, batch)
    assert [(attempt.ours, attempt.key) for attempt in found] == [(True, "k0"), (False, "k0")]
    assert len([attempt for attempt in sent(ledger, other) if attempt.ours]) == 2, "at `local`"
    assert found[0].price == PRICE
    assert found[0].billed is Billed.MAYBE
    assert found[0].ended_at is not None
    assert found[0].ended_at - found[0].started_at == timedelta(minutes=1)


def test_from_a_day_on_earlier_attempts_only_explain(ledger: Ledger, clock: Clock) -> None:
    batch = enroll(ledger, [planned(n) for n in range(2)])
    lose(ledger, batch)
    clock.now = datetime(2026, 11, 23, 0, 10, tzinfo=UTC)
    lose(ledger, batch)
    found = sent_attempts(ledger.conn, batch, "local", settle=SETTLE, since=date(2026, 11, 23))
    assert [(attempt.ours, attempt.key) for attempt in found] == [(True, "k1")]
    wide = timedelta(hours=2)
    found = sent_attempts(ledger.conn, batch, "local", settle=wide, since=date(2026, 11, 23))
    assert [(attempt.ours, attempt.key) for attempt in found] == [(True, "k1"), (False, "k0")]


def test_a_batch_that_sent_nothing_has_nothing_to_compare(ledger: Ledger) -> None:
    assert sent(ledger, enroll(ledger, [planned(0)])) == []
