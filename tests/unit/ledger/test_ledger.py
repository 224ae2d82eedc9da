"""The steps of the hot path on a real file: states, money, and what must never be written."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from batchgen.job import (
    AttemptId,
    ImageRef,
    JobId,
    JobState,
)
from batchgen.ledger.attempts import (
    finished_attempts,
    mark_response_spoiled,
    open_attempts,
    settle_attempt,
)
from batchgen.ledger.batch_status import status
from batchgen.ledger.clock import timestamp
from batchgen.ledger.images import due_images, mark_image_lost
from batchgen.ledger.jobs import fail_pending_job, paid_jobs, pending_jobs, read_job
from batchgen.ledger.key_patterns import Only
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.path_owners import path_history
from batchgen.ledger.records import BudgetReached, NotPending
from batchgen.ledger.retry_selection import RetrySelection, retry_jobs
from batchgen.ledger.run_sums import run_totals
from batchgen.ledger.runs import end_run
from batchgen.money import Micros
from batchgen.outcomes.classify import Classification
from tests.support.builders import (
    BLOCKED,
    EMPTY,
    FREE,
    IMAGE,
    LOST,
    OK,
    OVERLOADED,
    PRICE,
    REFUSED,
    THROTTLED,
    enroll,
    first,
    pay,
    planned,
    reason_of,
    save,
    send,
    start,
)
from tests.support.ledger_steps import record_placement, record_response, reserve_attempt
from tests.support.rig import changed_job


def test_a_done_job_moves_its_price_from_reserved_to_charged(
    ledger: Ledger,
) -> None:
    batch = enroll(ledger, [planned(0)])
    run = start(ledger, batch)
    attempt = send(ledger, run, first(ledger, batch))
    assert run_totals(ledger, run).reserved == PRICE
    assert status(ledger.conn, "b").maybe == PRICE, "what is in flight counts as maybe"
    assert pending_jobs(ledger, batch, after=JobId(0), limit=9) == []

    images = [(ImageRef(index=0, url="https://h/1?sig=x"), None), (ImageRef(index=1), None)]
    record_response(ledger, attempt, OK, images, response="a.answer")
    assert run_totals(ledger, run).charged == PRICE
    assert run_totals(ledger, run).reserved == 0
    (job,) = paid_jobs(ledger, batch)
    one, two = due_images(ledger, job)
    save(ledger, one.id)
    assert read_job(ledger, job).state is JobState.PAID, "the other image is not on disk"
    save(ledger, two.id, "0-extra.png")
    assert read_job(ledger, job).state is JobState.DONE
    urls = ledger.conn.execute("SELECT url FROM images").fetchall()
    assert {row["url"] for row in urls} == {None}, "a signed URL that is not needed is kept"


def test_a_job_knows_whether_the_ledger_has_images_of_it(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(0), planned(1)])
    attempt = send(ledger, start(ledger, batch), first(ledger, batch))
    record_response(ledger, attempt, OK, [(ImageRef(index=0), None)], response="x")
    (job,) = paid_jobs(ledger, batch)
    assert read_job(ledger, job).has_images
    (other,) = pending_jobs(ledger, batch, after=JobId(0), limit=9)
    assert not other.has_images


def test_budget_counts_reserved_charged_and_uncertain_money(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(n) for n in range(5)])
    run = start(ledger, batch, max_cost=3 * PRICE + 1)
    jobs = pending_jobs(ledger, batch, after=JobId(0), limit=9)
    charged, lost, _ = [send(ledger, run, job) for job in jobs[:3]]
    record_response(ledger, charged, OK, [(ImageRef(index=0), None)], response="x")
    settle_attempt(ledger, lost, LOST)
    reached = reserve_attempt(ledger, run, jobs[3], AttemptId("x"), provider="local")
    assert reached == BudgetReached(max_cost=Micros(3 * PRICE + 1), used=Micros(3 * PRICE))
    assert read_job(ledger, jobs[3].id).state is JobState.PENDING
    assert ledger.conn.execute("SELECT count(*) FROM attempts").fetchone()[0] == 3


def test_a_budget_can_be_used_to_its_last_cent(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(n) for n in range(2)])
    run = start(ledger, batch, max_cost=2 * PRICE)
    for job in pending_jobs(ledger, batch, after=JobId(0), limit=9):
        send(ledger, run, job)
    assert run_totals(ledger, run).reserved == 2 * PRICE


def test_what_is_not_billed_goes_back_to_the_budget(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(0)])
    run = start(ledger, batch, max_cost=PRICE)
    for classification in (FREE, THROTTLED, OVERLOADED):
        settle_attempt(ledger, send(ledger, run, first(ledger, batch)), classification)
    totals = run_totals(ledger, run)
    assert (totals.reserved, totals.charged, totals.maybe) == (0, 0, 0)
    assert first(ledger, batch).tries == 1, "only the refusal counts as a try"


def test_an_uncertain_job_is_rebought_once_within_max_waste(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(0), planned(1), planned(2)])
    run = start(ledger, batch, waste=2 * PRICE)
    one, two, three = pending_jobs(ledger, batch, after=JobId(0), limit=9)
    assert settle_attempt(ledger, send(ledger, run, one), LOST).state is JobState.PENDING
    assert settle_attempt(ledger, send(ledger, run, one), LOST).state is JobState.UNCERTAIN
    assert settle_attempt(ledger, send(ledger, run, two), EMPTY).state is JobState.PENDING
    assert settle_attempt(ledger, send(ledger, run, three), LOST).state is JobState.UNCERTAIN
    totals = run_totals(ledger, run)
    assert (totals.wasted, totals.maybe, totals.charged) == (2 * PRICE, 3 * PRICE, PRICE)


def test_the_next_run_pays_the_waste_of_a_killed_one(
    ledger: Ledger,
) -> None:
    batch = enroll(ledger, [planned(0)])
    killed = start(ledger, batch)
    attempt = send(ledger, killed, first(ledger, batch))
    run = start(ledger, batch, waste=PRICE)
    (opened,) = open_attempts(ledger, batch)
    assert (opened.id, opened.run_id, opened.job.key) == (attempt, killed, "k0")
    assert settle_attempt(ledger, opened.id, LOST, allowance_of=run).state is JobState.PENDING
    assert run_totals(ledger, killed).maybe == PRICE
    assert run_totals(ledger, killed).wasted == 0
    assert run_totals(ledger, run).wasted == PRICE
    assert run_totals(ledger, run).maybe == 0
    assert open_attempts(ledger, batch) == []


def test_uncertain_job_is_held_when_a_person_stopped_the_run(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(0)])
    run = start(ledger, batch, waste=9 * PRICE)
    attempt = send(ledger, run, first(ledger, batch))
    assert settle_attempt(ledger, attempt, LOST, hold=True).state is JobState.UNCERTAIN
    assert run_totals(ledger, run).wasted == 0


def test_a_page_that_is_out_of_date_sends_nothing(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(0)])
    run = start(ledger, batch)
    old = first(ledger, batch)
    enroll(ledger, [planned(0, edition=1)])
    assert reserve_attempt(ledger, run, old, AttemptId("x"), provider="local") == NotPending()
    send(ledger, run, first(ledger, batch))
    assert reserve_attempt(ledger, run, old, AttemptId("y"), provider="local") == NotPending()


def test_an_attempt_is_closed_once(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(0)])
    run = start(ledger, batch)
    attempt = send(ledger, run, first(ledger, batch))
    settle_attempt(ledger, attempt, FREE)
    with pytest.raises(AssertionError, match="closed already"):
        settle_attempt(ledger, attempt, LOST)


def test_a_change_of_a_paid_job_keeps_image_and_new_prompt(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(0)])
    run = start(ledger, batch)
    attempt = send(ledger, run, first(ledger, batch))
    record_response(ledger, attempt, OK, [(ImageRef(index=0), None)], response="x")
    enroll(ledger, [planned(0, edition=1)])
    (job,) = paid_jobs(ledger, batch)
    save(ledger, due_images(ledger, job)[0].id)
    assert read_job(ledger, job).state is JobState.PENDING, "the new prompt has no image yet"
    assert first(ledger, batch).prompt == "prompt 0, edition 1"


@pytest.mark.parametrize("classification", [LOST, REFUSED, EMPTY, BLOCKED, OVERLOADED])
def test_the_result_of_an_old_prompt_does_not_settle_a_new_one(
    classification: Classification, ledger: Ledger
) -> None:
    """A run is killed, the manifest is corrected, and the next run finds the old request's end."""
    batch = enroll(ledger, [planned(0)])
    run = start(ledger, batch)
    attempt = send(ledger, run, first(ledger, batch))
    enroll(ledger, [planned(0, edition=1)])
    assert settle_attempt(ledger, attempt, classification).state is JobState.PENDING
    job = first(ledger, batch)
    assert (job.prompt, job.tries, job.doubts) == ("prompt 0, edition 1", 0, 0)
    assert reason_of(ledger, job.id) is None


@pytest.mark.parametrize("spoiled", [True, False])
def test_a_lost_image_of_an_old_prompt_fails_no_new_one(spoiled: bool, ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(0)])
    run = start(ledger, batch)
    attempt = pay(ledger, run, first(ledger, batch))
    enroll(ledger, [planned(0, edition=1)])
    (job,) = paid_jobs(ledger, batch)
    if spoiled:
        assert mark_response_spoiled(ledger, attempt, EMPTY, run).state is JobState.PENDING
    else:
        mark_image_lost(ledger, due_images(ledger, job)[0].id, job, "gone")
    assert read_job(ledger, job).state is JobState.PENDING
    assert run_totals(ledger, run).charged == PRICE


def test_a_lost_image_is_not_in_the_way_of_the_next_one(ledger: Ledger) -> None:
    """Two images came, one can't be had; a person has the job made again."""
    batch = enroll(ledger, [planned(0)])
    run = start(ledger, batch)
    pay(ledger, run, first(ledger, batch), images=2)
    (job,) = paid_jobs(ledger, batch)
    mark_image_lost(ledger, due_images(ledger, job)[0].id, job, "HTTP 404")
    assert read_job(ledger, job).state is JobState.FAILED
    assert reason_of(ledger, job) == "image_lost: HTTP 404"
    assert paid_jobs(ledger, batch) == []
    retry_jobs(ledger.conn, batch, RetrySelection(states=[JobState.FAILED], only=None))
    again = pay(ledger, run, first(ledger, batch))
    assert [image.attempt_id for image in due_images(ledger, job)] == [again]
    save(ledger, due_images(ledger, job)[0].id)
    assert read_job(ledger, job).state is JobState.DONE


def test_an_image_in_the_place_of_an_older_one_is_not_removed(
    ledger: Ledger,
) -> None:
    """Also where the new ones were saved in two runs, and the second knows of its own only."""
    batch = enroll(ledger, [planned(0)])
    run = start(ledger, batch)
    pay(ledger, run, first(ledger, batch), images=3)
    (job,) = paid_jobs(ledger, batch)
    for image, name in zip(due_images(ledger, job), ["0.png", "0-b.png", "0-c.png"], strict=True):
        save(ledger, image.id, name)
    enroll(ledger, [planned(0, edition=1)])
    pay(ledger, run, first(ledger, batch), images=2)
    one, two = due_images(ledger, job)
    assert save(ledger, one.id, "0.png") is None
    finished = save(ledger, two.id, "0-b.png")
    assert finished is not None
    assert [old.path for old in finished.replaced] == ["0-c.png"]
    assert path_history(ledger, job, "out", "0.png").is_own


def test_the_image_before_is_named_when_the_new_one_is_saved(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(0)])
    run = start(ledger, batch)
    pay(ledger, run, first(ledger, batch))
    (job,) = paid_jobs(ledger, batch)
    save(ledger, due_images(ledger, job)[0].id, "0.png")
    enroll(ledger, [planned(0, edition=1)])
    again = pay(ledger, run, first(ledger, batch))
    assert path_history(ledger, job, "out", "0.png").is_own, (
        "the old image stays until the new one is there"
    )
    finished = save(ledger, due_images(ledger, job)[0].id, "0.webp")
    assert finished is not None
    assert finished.attempt_id == again
    assert [(old.root, old.path) for old in finished.replaced] == [("out", "0.png")]
    assert not path_history(ledger, job, "out", "0.png").is_own
    assert path_history(ledger, job, "out", "0.webp").is_own


def test_an_image_being_placed_at_a_kill_is_known_by_its_hash(
    ledger: Ledger,
) -> None:
    batch = enroll(ledger, [planned(0)])
    run = start(ledger, batch)
    pay(ledger, run, first(ledger, batch), images=2)
    (job,) = paid_jobs(ledger, batch)
    one, other = due_images(ledger, job)
    assert (one.rank, other.rank) == (0, 1)
    assert (one.position, other.position) == (0, 1)
    assert (one.path, one.sha256) == (None, None)
    record_placement(ledger, one.id, "out", replace(IMAGE, path="0.png"))
    placed, still = due_images(ledger, job)
    assert (placed.path, placed.sha256) == ("0.png", "s")
    assert (still.path, still.response) == (None, "a.answer")


def test_paid_images_are_downloaded_soonest_expiry_first(
    ledger: Ledger,
) -> None:
    batch = enroll(ledger, [planned(n) for n in range(4)])
    run = start(ledger, batch)
    expiries = ["2026-11-22T12:00:00.000Z", None, "2026-11-22T11:00:00.000Z"]
    jobs = pending_jobs(ledger, batch, after=JobId(0), limit=3)
    for job, expires in zip(jobs, expiries, strict=True):
        attempt = send(ledger, run, job)
        record_response(ledger, attempt, OK, [(ImageRef(index=0), expires)], response="x")
    enroll(ledger, [planned(0)])
    assert paid_jobs(ledger, batch) == [jobs[2].id, jobs[0].id, jobs[1].id]


def test_pending_jobs_come_in_pages_without_retired_ones(
    ledger: Ledger,
) -> None:
    batch = enroll(ledger, [planned(n) for n in range(5)])
    enroll(ledger, [planned(n) for n in (0, 1, 3, 4)])
    page = pending_jobs(ledger, batch, after=JobId(0), limit=3)
    assert [job.key for job in page] == ["k0", "k1", "k3"]
    assert [job.key for job in pending_jobs(ledger, batch, after=page[-1].id, limit=3)] == ["k4"]


def test_an_attempt_is_on_record_with_what_the_provider_said(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(0)])
    run = start(ledger, batch)
    attempt = send(ledger, run, first(ledger, batch))
    classification = replace(REFUSED, message="bad size", status=400, request_id="2026-1")
    settle_attempt(ledger, attempt, classification, response="raw")
    (row,) = ledger.conn.execute(
        "SELECT outcome, billed, cost, http_status, error_code, message, request_id, response,"
        " fingerprint, provider, model, price FROM attempts"
    ).fetchall()
    said = ("refused", "no", 0, 400, "invalid_value", "bad size", "2026-1", "raw")
    assert tuple(row) == (*said, "0-0", "local", "gpt-image-2", PRICE)
    assert reason_of(ledger, JobId(1)) == "invalid_value: bad size"


def test_only_attempts_of_this_batch_are_open_or_finished(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(0), planned(1)])
    other = enroll(ledger, [planned(2)], name="other")
    run = start(ledger, batch)
    done = pay(ledger, run, first(ledger, batch))
    (job,) = paid_jobs(ledger, batch)
    save(ledger, due_images(ledger, job)[0].id)
    mine = send(ledger, run, first(ledger, batch))
    theirs = send(ledger, start(ledger, other), first(ledger, other))
    for one in (batch, other):
        start(ledger, one)
    assert [opened.id for opened in open_attempts(ledger, batch)] == [mine]
    assert [opened.id for opened in open_attempts(ledger, other)] == [theirs]
    assert finished_attempts(ledger, batch, [done, mine, theirs, AttemptId("x")]) == [done]
    assert finished_attempts(ledger, other, [done, mine, theirs]) == []


def test_a_job_can_be_failed_only_before_its_request(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(0), planned(1)])
    run = start(ledger, batch)
    sent, unsent = pending_jobs(ledger, batch, after=JobId(0), limit=9)
    send(ledger, run, sent)
    for job in (sent, unsent):
        fail_pending_job(ledger, job.id, "reference_unreadable: no")
    assert read_job(ledger, sent.id).state is JobState.SENDING
    assert read_job(ledger, unsent.id).state is JobState.FAILED


def test_a_run_ends_with_its_reason_and_code(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(0)])
    run = start(ledger, batch)
    end_run(ledger, run, stopped="budget: used", exit_code=3)
    last = status(ledger.conn, "b").last_run
    assert last is not None
    assert (last.stopped, last.exit_code) == ("budget: used", 3)
    assert last.ended_at is not None


def test_moments_are_written_in_utc_and_sort_as_text() -> None:
    noon = datetime(2026, 11, 22, 12, tzinfo=timezone(timedelta(hours=2)))
    assert timestamp(noon) == "2026-11-22T10:00:00.000Z"
    assert timestamp(noon) < timestamp(noon + timedelta(milliseconds=1))


def test_a_retry_takes_only_the_chosen_states_and_keys(ledger: Ledger) -> None:
    batch = enroll(ledger, [changed_job(planned(n), key=f"mug/{n}") for n in range(3)])
    run = start(ledger, batch)
    for job in pending_jobs(ledger, batch, after=JobId(0), limit=2):
        settle_attempt(ledger, send(ledger, run, job), REFUSED)
    moved = retry_jobs(ledger.conn, batch, RetrySelection(states=[JobState.BLOCKED], only=None))
    assert (moved.jobs, moved.cost) == (0, 0)
    moved = retry_jobs(
        ledger.conn, batch, RetrySelection(states=[JobState.FAILED], only=Only.of(["*1"]))
    )
    assert (moved.jobs, moved.cost) == (1, PRICE)
    assert [job.key for job in pending_jobs(ledger, batch, after=JobId(0), limit=9)] == [
        "mug/1",
        "mug/2",
    ]


def test_a_spoiled_response_stays_charged(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(0)])
    run = start(ledger, batch)
    attempt = pay(ledger, run, first(ledger, batch))
    assert mark_response_spoiled(ledger, attempt, EMPTY, run).state is JobState.FAILED
    assert run_totals(ledger, run).charged == PRICE
    assert due_images(ledger, JobId(1)) == []


def test_spoiled_response_is_rebought_within_the_allowance(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(0)])
    run = start(ledger, batch, waste=PRICE)
    attempt = pay(ledger, run, first(ledger, batch))
    assert mark_response_spoiled(ledger, attempt, EMPTY, run).state is JobState.PENDING
    assert run_totals(ledger, run).wasted == PRICE
    attempt = pay(ledger, run, first(ledger, batch))
    assert mark_response_spoiled(ledger, attempt, EMPTY, run).state is JobState.FAILED, "once a job"
    assert run_totals(ledger, run).charged == 2 * PRICE


def test_a_retry_resets_the_job_but_not_the_possible_charge(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(0)])
    run = start(ledger, batch)
    settle_attempt(ledger, send(ledger, run, first(ledger, batch)), LOST)
    moved = retry_jobs(
        ledger.conn, batch, RetrySelection(states=[JobState.UNCERTAIN], only=Only.of(["k*"]))
    )
    assert (moved.jobs, moved.cost) == (1, PRICE)
    assert first(ledger, batch).doubts == 0
    assert status(ledger.conn, "b").maybe == PRICE
