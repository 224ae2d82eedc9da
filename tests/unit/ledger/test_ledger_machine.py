"""Any sequence of steps keeps the ledger whole."""

from __future__ import annotations

from datetime import timedelta
from itertools import cycle
from uuid import uuid4

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from batchgen.job import (
    AttemptId,
    Billed,
    ImageRef,
    JobId,
    JobState,
    Outcome,
)
from batchgen.ledger.attempts import mark_response_spoiled, open_attempts, settle_attempt
from batchgen.ledger.clock import utc_now
from batchgen.ledger.database import in_memory
from batchgen.ledger.images import (
    due_images,
    mark_extra_image_lost,
    mark_image_lost,
    record_download_failure,
)
from batchgen.ledger.jobs import paid_jobs, pending_jobs
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.paid_images import lost_images
from batchgen.ledger.reconciliation import sent_attempts, settle_attempts
from batchgen.ledger.records import Reserved
from batchgen.ledger.retry_selection import RetrySelection, retry_jobs
from batchgen.ledger.saved_images import fetch_again
from batchgen.money import Micros
from batchgen.outcomes.classify import Classification
from batchgen.reconciliation.settlement import Reconciliation, Settled
from tests.support import rig
from tests.support.builders import (
    BLOCKED,
    EMPTY,
    FEE,
    FREE,
    LOST,
    OK,
    OVERLOADED,
    PRICE,
    REFUSED,
    THROTTLED,
    enroll,
    planned,
    save,
    start,
)
from tests.support.ledger_steps import record_response, reserve_attempt

CLASSIFICATIONS = st.sampled_from(
    [OK, LOST, FREE, REFUSED, EMPTY, BLOCKED, THROTTLED, OVERLOADED, FEE]
)


class LedgerMachine(RuleBasedStateMachine):
    """Any order of plans, requests, responses, losses, kills, deliveries and retries."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(in_memory())
        self.editions = [0] * 4
        self.batch = enroll(self.ledger, [planned(n) for n in range(4)])
        self.budget = Micros(6 * PRICE)
        self.run = start(self.ledger, self.batch, max_cost=self.budget, waste=PRICE)
        self.open: list[AttemptId] = []

    def teardown(self) -> None:
        self.ledger.conn.close()

    @rule(number=st.integers(0, 3), keep=st.integers(1, 4))
    def edit_the_manifest(self, number: int, keep: int) -> None:
        self.editions[number] += 1
        jobs = [planned(n, edition) for n, edition in enumerate(self.editions)]
        enroll(self.ledger, jobs[:keep])

    @rule(data=st.data())
    def send_a_request(self, data: st.DataObject) -> None:
        pending = pending_jobs(self.ledger, self.batch, after=JobId(0), limit=9)
        if pending:
            attempt = AttemptId(uuid4().hex)
            job = data.draw(st.sampled_from(pending))
            if reserve_attempt(self.ledger, self.run, job, attempt, provider="local") == Reserved():
                self.open.append(attempt)

    @precondition(lambda self: self.open)
    @rule(classification=CLASSIFICATIONS, hold=st.booleans(), count=st.integers(1, 2))
    def end_a_request(self, classification: Classification, hold: bool, count: int) -> None:
        attempt = self.open.pop()
        if classification is OK:
            images = [(ImageRef(index=n, url="https://h/x"), None) for n in range(count)]
            record_response(self.ledger, attempt, classification, images, response="x")
        else:
            settle_attempt(self.ledger, attempt, classification, allowance_of=self.run, hold=hold)

    @rule(ends=st.lists(st.sampled_from(["saved", "spoiled", "lost", "later"]), min_size=1))
    def deliver(self, ends: list[str]) -> None:
        turns = cycle(ends)
        for job in paid_jobs(self.ledger, self.batch):
            for image in due_images(self.ledger, job):
                match next(turns):
                    case "saved":
                        save(self.ledger, image.id)
                        continue
                    case "spoiled":
                        mark_response_spoiled(self.ledger, image.attempt_id, EMPTY, self.run)
                    case "lost" if image.rank:
                        mark_extra_image_lost(self.ledger, image.id, "gone")
                        continue
                    case "lost":
                        mark_image_lost(self.ledger, image.id, job, "gone")
                    case "later":
                        record_download_failure(
                            self.ledger,
                            image.id,
                            job,
                            trouble="x",
                            reason="download: x",
                            not_before=None,
                        )
                break

    @rule(classification=CLASSIFICATIONS.filter(lambda classification: classification is not OK))
    def be_killed_and_start_again(self, classification: Classification) -> None:
        self.run = start(self.ledger, self.batch, max_cost=self.budget, waste=PRICE)
        for opened in open_attempts(self.ledger, self.batch):
            settle_attempt(self.ledger, opened.id, classification, allowance_of=self.run)
        self.open.clear()

    @rule(data=st.data(), drift=st.sampled_from([0, 0, 1_000]))
    def reconcile(self, data: st.DataObject, drift: int) -> None:
        """A log that proves anything at all of attempts that are over."""
        over = [
            sent
            for sent in sent_attempts(
                self.ledger.conn, self.batch, "local", settle=timedelta(minutes=60)
            )
            if sent.outcome is not Outcome.SENDING
        ]
        results = data.draw(
            st.lists(
                st.sampled_from(["billed", "unbilled", "open"]),
                min_size=len(over),
                max_size=len(over),
            )
        )
        settled = list(zip(over, results, strict=True))
        settle_attempts(
            self.ledger.conn,
            Reconciliation(
                billed=tuple(
                    Settled(attempt=sent, amount=Micros(sent.price - drift))
                    for sent, result in settled
                    if result == "billed" and sent.billed is Billed.MAYBE
                ),
                unbilled=tuple(
                    Settled(attempt=sent, amount=Micros(0))
                    for sent, result in settled
                    if result == "unbilled" and sent.billed is Billed.MAYBE
                ),
                corrected=tuple(
                    Settled(attempt=sent, amount=Micros(max(0, sent.cost - drift)))
                    for sent, result in settled
                    if result == "billed" and sent.billed is Billed.YES
                ),
                unproven=(),
                missing=(),
                foreign=(),
                drift=(),
            ),
        )

    @rule(
        state=st.sampled_from(
            [JobState.FAILED, JobState.BLOCKED, JobState.UNCERTAIN, JobState.PAID]
        )
    )
    def retry(self, state: JobState) -> None:
        buy = state is JobState.PAID
        retry_jobs(self.ledger.conn, self.batch, RetrySelection(states=[state], only=None), buy=buy)

    @rule()
    def repair(self) -> None:
        lost = [one.image for one in lost_images(self.ledger.conn, self.batch, utc_now())]
        fetch_again(self.ledger.conn, lost)

    @invariant()
    def money_adds_up(self) -> None:
        rows = self.ledger.conn.execute(
            "SELECT runs.*, (SELECT coalesce(sum(cost), 0) FROM attempts WHERE run_id = runs.id)"
            " AS costs, (SELECT coalesce(sum(price), 0) FROM attempts WHERE run_id = runs.id"
            " AND billed = 'maybe') AS uncertain FROM runs"
        )
        for row in rows:
            assert row["charged"] == row["costs"]
            assert row["maybe"] + row["reserved"] == row["uncertain"]
            assert row["charged"] + row["maybe"] + row["reserved"] <= row["max_cost"]
            assert row["wasted"] <= row["max_waste"]

    @invariant()
    def a_day_spends_what_its_attempts_do(self) -> None:
        (days,) = self.ledger.conn.execute("SELECT coalesce(sum(spent), 0) FROM days").fetchone()
        (spent,) = self.ledger.conn.execute(
            "SELECT coalesce(sum(CASE billed WHEN 'yes' THEN cost WHEN 'maybe' THEN price ELSE 0"
            " END), 0) FROM attempts"
        ).fetchone()
        assert days == spent

    @invariant()
    def the_counts_that_are_kept_are_those_that_are_found(self) -> None:
        assert rig.tallies(self.ledger.conn) == rig.counted(self.ledger.conn)

    @invariant()
    def every_job_is_where_its_attempts_say(self) -> None:
        rows = self.ledger.conn.execute(
            "SELECT state, (SELECT count(*) FROM attempts WHERE job_id = jobs.id AND outcome ="
            " 'sending') AS open, (SELECT count(*) FROM images WHERE job_id = jobs.id AND state ="
            " 'due') AS due, (SELECT count(DISTINCT attempt_id) FROM images WHERE job_id = jobs.id"
            " AND state = 'saved') AS makers FROM jobs"
        )
        for row in rows:
            assert (row["state"] == "sending") == (row["open"] == 1)
            assert (row["state"] == "paid") == (row["due"] > 0)
            if row["state"] == "done":
                assert row["makers"] == 1

    @invariant()
    def no_job_rests_on_what_became_of_an_older_prompt(self) -> None:
        rows = self.ledger.conn.execute(
            "SELECT jobs.fingerprint AS wanted, (SELECT fingerprint FROM attempts WHERE job_id ="
            " jobs.id ORDER BY attempts.rowid DESC LIMIT 1) AS asked FROM jobs"
            " WHERE state IN ('done', 'failed', 'blocked', 'uncertain')"
        )
        for row in rows:
            assert row["wanted"] == row["asked"]


LedgerMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestLedgerMachine = LedgerMachine.TestCase


@pytest.mark.sweep
@pytest.mark.timeout(3600)
def test_ten_thousand_sequences_keep_the_ledger_whole() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    many = settings(max_examples=10_000, stateful_step_count=40, deadline=None)
    run_state_machine_as_test(LedgerMachine, settings=many)
