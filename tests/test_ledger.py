"""The steps of the hot path on a real file: states, money, and what must never be written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from batchgen.job import (
    AttemptId,
    BatchId,
    Billed,
    Job,
    JobId,
    JobState,
    Outcome,
    PictureRef,
    PlannedJob,
    RunId,
    SavedPicture,
)
from batchgen.ledger.database import in_memory, open_for_writing
from batchgen.ledger.enrol import BatchIdentity, Staging
from batchgen.ledger.ledger import BudgetReached, Ledger, NotPending, Reserved
from batchgen.ledger.queries import status
from batchgen.ledger.triage import retry_jobs
from batchgen.money import Micros
from batchgen.naming import collision_key
from batchgen.outcome import Verdict

PRICE = Micros(37_700)
OK = Verdict(outcome=Outcome.OK, billed=Billed.YES)
LOST = Verdict(outcome=Outcome.AMBIGUOUS, billed=Billed.MAYBE, code="deadline")
FREE = Verdict(outcome=Outcome.SAFE, billed=Billed.NO, code="unreachable")
REFUSED = Verdict(outcome=Outcome.REFUSED, billed=Billed.NO, code="invalid_value")
EMPTY = Verdict(outcome=Outcome.SPOILED, billed=Billed.YES, code="no_picture")
IDENTITY = BatchIdentity(
    name="b",
    provider="local",
    price_source="test",
    manifest_path="b.yaml",
    manifest_sha256="",
    manifest="",
)


def planned(number: int, edition: int = 0) -> PlannedJob:
    return PlannedJob(
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


def enrol(ledger: Ledger, jobs: list[PlannedJob]) -> BatchId:
    staging = Staging(ledger.conn)
    staging.fill(jobs, price=lambda *_: PRICE, collision_key=collision_key)
    batch = staging.enrol(IDENTITY)
    ledger.conn.execute("DETACH DATABASE staging")
    return batch


def start(ledger: Ledger, batch: BatchId, max_cost: int | None = None, waste: int = 0) -> RunId:
    return ledger.start_run(
        batch,
        estimate=Micros(0),
        max_cost=None if max_cost is None else Micros(max_cost),
        max_waste=Micros(waste),
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(open_for_writing(tmp_path / "batchgen.db")) as conn:
        yield Ledger(conn)


def send(ledger: Ledger, run: RunId, job: Job) -> AttemptId:
    attempt = AttemptId(uuid4().hex)
    assert ledger.reserve(run, job, attempt, provider="local") == Reserved()
    return attempt


def first(ledger: Ledger, batch: BatchId) -> Job:
    return ledger.pending(batch, after=JobId(0), limit=1)[0]


def save(ledger: Ledger, image: int, name: str = "0.png") -> None:
    picture = SavedPicture(path=name, sha256="s", bytes=1, width=1, height=1, format="png")
    ledger.placing(image, picture)
    ledger.picture_saved(image)


def test_a_job_passes_from_pending_to_done_and_its_price_from_reserved_to_charged(
    ledger: Ledger,
) -> None:
    batch = enrol(ledger, [planned(0)])
    run = start(ledger, batch)
    attempt = send(ledger, run, first(ledger, batch))
    assert ledger.run_totals(run).reserved == PRICE
    assert status(ledger.conn, "b").maybe == PRICE, "what is in flight counts as maybe"
    assert ledger.pending(batch, after=JobId(0), limit=9) == []

    pictures = [(PictureRef(index=0, url="https://h/1"), None), (PictureRef(index=1), None)]
    ledger.record_answer(attempt, OK, pictures, answer="a.answer")
    assert ledger.run_totals(run).charged == PRICE
    assert ledger.run_totals(run).reserved == 0
    (job,) = ledger.paid(batch)
    one, two = ledger.due(job)
    save(ledger, one.id)
    assert ledger.job(job).state is JobState.PAID, "the other picture is not on disk"
    save(ledger, two.id, "0-extra.png")
    assert ledger.job(job).state is JobState.DONE
    urls = ledger.conn.execute("SELECT url FROM images").fetchall()
    assert {row["url"] for row in urls} == {None}, "an address that is not needed is kept"


def test_the_budget_counts_what_is_reserved_charged_and_in_doubt(ledger: Ledger) -> None:
    batch = enrol(ledger, [planned(n) for n in range(5)])
    run = start(ledger, batch, max_cost=3 * PRICE + 1)
    jobs = ledger.pending(batch, after=JobId(0), limit=9)
    charged, doubtful, _ = [send(ledger, run, job) for job in jobs[:3]]
    ledger.record_answer(charged, OK, [(PictureRef(index=0), None)], answer="x")
    ledger.settle(doubtful, LOST)
    reached = ledger.reserve(run, jobs[3], AttemptId("x"), provider="local")
    assert reached == BudgetReached(max_cost=Micros(3 * PRICE + 1), used=Micros(3 * PRICE))
    assert ledger.job(jobs[3].id).state is JobState.PENDING
    assert ledger.conn.execute("SELECT count(*) FROM attempts").fetchone()[0] == 3


def test_a_page_that_is_out_of_date_sends_nothing(ledger: Ledger) -> None:
    batch = enrol(ledger, [planned(0)])
    run = start(ledger, batch)
    old = first(ledger, batch)
    enrol(ledger, [planned(0, edition=1)])
    assert ledger.reserve(run, old, AttemptId("x"), provider="local") == NotPending()
    send(ledger, run, first(ledger, batch))
    assert ledger.reserve(run, old, AttemptId("y"), provider="local") == NotPending()


def test_an_attempt_is_closed_once(ledger: Ledger) -> None:
    batch = enrol(ledger, [planned(0)])
    run = start(ledger, batch)
    attempt = send(ledger, run, first(ledger, batch))
    ledger.settle(attempt, FREE)
    with pytest.raises(AssertionError, match="closed already"):
        ledger.settle(attempt, LOST)


def test_a_manifest_that_changes_while_a_picture_is_paid_loses_neither(ledger: Ledger) -> None:
    batch = enrol(ledger, [planned(0)])
    run = start(ledger, batch)
    attempt = send(ledger, run, first(ledger, batch))
    ledger.record_answer(attempt, OK, [(PictureRef(index=0), None)], answer="x")
    enrol(ledger, [planned(0, edition=1)])
    (job,) = ledger.paid(batch)
    save(ledger, ledger.due(job)[0].id)
    assert ledger.job(job).state is JobState.PENDING, "the new prompt has no picture yet"
    assert first(ledger, batch).prompt == "prompt 0, edition 1"


def test_a_spoiled_answer_stays_charged(ledger: Ledger) -> None:
    batch = enrol(ledger, [planned(0)])
    run = start(ledger, batch)
    attempt = send(ledger, run, first(ledger, batch))
    ledger.record_answer(attempt, OK, [(PictureRef(index=0), None)], answer="x")
    assert ledger.spoil(attempt, EMPTY, run).state is JobState.FAILED
    assert ledger.run_totals(run).charged == PRICE


def test_a_retry_forgets_the_doubts_of_the_job_but_not_those_of_the_bill(ledger: Ledger) -> None:
    batch = enrol(ledger, [planned(0)])
    run = start(ledger, batch)
    ledger.settle(send(ledger, run, first(ledger, batch)), LOST)
    moved = retry_jobs(ledger.conn, batch, states=[JobState.UNCERTAIN], only="k*")
    assert (moved.jobs, moved.cost) == (1, PRICE)
    assert first(ledger, batch).doubts == 0
    assert status(ledger.conn, "b").maybe == PRICE


VERDICTS = st.sampled_from([OK, LOST, FREE, REFUSED, EMPTY])


class LedgerMachine(RuleBasedStateMachine):
    """Any order of plans, requests, answers, losses, kills, deliveries and retries."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(in_memory())
        self.editions = [0] * 4
        self.batch = enrol(self.ledger, [planned(n) for n in range(4)])
        self.budget = Micros(6 * PRICE)
        self.run = start(self.ledger, self.batch, max_cost=self.budget, waste=PRICE)
        self.open: list[AttemptId] = []

    def teardown(self) -> None:
        self.ledger.conn.close()

    @rule(number=st.integers(0, 3), keep=st.integers(1, 4))
    def edit_the_manifest(self, number: int, keep: int) -> None:
        self.editions[number] += 1
        jobs = [planned(n, edition) for n, edition in enumerate(self.editions)]
        enrol(self.ledger, jobs[:keep])

    @rule(data=st.data())
    def send_a_request(self, data: st.DataObject) -> None:
        pending = self.ledger.pending(self.batch, after=JobId(0), limit=9)
        if pending:
            attempt = AttemptId(uuid4().hex)
            job = data.draw(st.sampled_from(pending))
            if self.ledger.reserve(self.run, job, attempt, provider="local") == Reserved():
                self.open.append(attempt)

    @precondition(lambda self: self.open)
    @rule(verdict=VERDICTS, hold=st.booleans())
    def end_a_request(self, verdict: Verdict, hold: bool) -> None:
        attempt = self.open.pop()
        if verdict is OK:
            pictures = [(PictureRef(index=0, url="https://h/x"), None)]
            self.ledger.record_answer(attempt, verdict, pictures, answer="x")
        else:
            self.ledger.settle(attempt, verdict, allowance_of=self.run, hold=hold)

    @rule(spoiled=st.booleans())
    def deliver(self, spoiled: bool) -> None:
        for job in self.ledger.paid(self.batch):
            for picture in self.ledger.due(job):
                if spoiled:
                    self.ledger.spoil(picture.attempt_id, EMPTY, self.run)
                else:
                    save(self.ledger, picture.id)

    @rule()
    def be_killed_and_start_again(self) -> None:
        self.run = start(self.ledger, self.batch, max_cost=self.budget, waste=PRICE)
        for opened in self.ledger.open_attempts(self.batch):
            self.ledger.settle(opened.id, LOST, allowance_of=self.run)
        self.open.clear()

    @rule(state=st.sampled_from([JobState.FAILED, JobState.UNCERTAIN]))
    def retry(self, state: JobState) -> None:
        retry_jobs(self.ledger.conn, self.batch, states=[state], only=None)

    @invariant()
    def money_adds_up(self) -> None:
        rows = self.ledger.conn.execute(
            "SELECT runs.*, (SELECT coalesce(sum(cost), 0) FROM attempts WHERE run_id = runs.id)"
            " AS costs, (SELECT coalesce(sum(price), 0) FROM attempts WHERE run_id = runs.id"
            " AND billed = 'maybe') AS doubts FROM runs"
        )
        for row in rows:
            assert row["charged"] == row["costs"]
            assert row["maybe"] + row["reserved"] == row["doubts"]
            assert row["charged"] + row["maybe"] + row["reserved"] <= row["max_cost"]
            assert row["wasted"] <= row["max_waste"]

    @invariant()
    def every_job_is_where_its_attempts_say(self) -> None:
        rows = self.ledger.conn.execute(
            "SELECT state, (SELECT count(*) FROM attempts WHERE job_id = jobs.id AND outcome ="
            " 'sending') AS open, (SELECT count(*) FROM images WHERE job_id = jobs.id AND state ="
            " 'due') AS due, (SELECT count(*) FROM images WHERE job_id = jobs.id AND state ="
            " 'saved') AS saved FROM jobs"
        )
        for row in rows:
            assert (row["state"] == "sending") == (row["open"] == 1)
            assert (row["state"] == "paid") == (row["due"] > 0)
            if row["state"] == "done":
                assert row["saved"] == 1


LedgerMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestLedgerMachine = LedgerMachine.TestCase


@pytest.mark.sweep
@pytest.mark.timeout(3600)
def test_ten_thousand_sequences_keep_the_ledger_whole() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    many = settings(max_examples=10_000, stateful_step_count=40, deadline=None)
    run_state_machine_as_test(LedgerMachine, settings=many)
