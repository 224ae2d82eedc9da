"""No sequence of failed downloads over any time leads to a second paid request."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from batchgen.job import ImageRef, JobId, JobState
from batchgen.ledger.database import in_memory
from batchgen.ledger.images import (
    due_images,
    mark_extra_image_lost,
    mark_image_lost,
    record_download_failure,
)
from batchgen.ledger.jobs import pending_jobs, read_job
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.paid_images import lost_images, waiting_images
from batchgen.ledger.records import DueImage
from batchgen.ledger.retry_selection import RetrySelection, retry_jobs
from batchgen.ledger.saved_images import fetch_again
from batchgen.outcomes.download_policy import (
    FetchAgain,
    FetchLater,
    FetchLost,
    FetchResult,
    after_extra,
    after_fetch,
    keep_until,
)
from tests.support.builders import OK, enroll, first, planned, reason_of, save, send, start
from tests.support.ledger_steps import record_response

RESULTS = st.sampled_from(
    [
        None,
        FetchResult(status=403),
        FetchResult(status=404),
        FetchResult(status=503, retry_after_s=600),
        FetchResult(bad_image="HTML page"),
        FetchResult(detail="reset"),
        FetchResult(forbidden="10.0.0.1"),
    ]
)
BEGAN = datetime(2026, 11, 28, 2, 0, tzinfo=UTC)


class PaidImages(RuleBasedStateMachine):
    """One paid job with an extra image, and an image host that does what it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.now = BEGAN
        self.ledger = Ledger(in_memory(), lambda: self.now)
        self.batch = enroll(self.ledger, [planned(0)])
        self.run = start(self.ledger, self.batch)
        self.job = first(self.ledger, self.batch)
        attempt = send(self.ledger, self.run, self.job)
        refs = [(ImageRef(index=n, url=f"https://h/{n}"), None) for n in range(2)]
        record_response(self.ledger, attempt, OK, refs, response="a.answer")
        self.until = keep_until(answered_at=BEGAN, expires_at=None)
        self.retried = False

    def teardown(self) -> None:
        self.ledger.conn.close()

    @property
    def state(self) -> JobState:
        return read_job(self.ledger, self.job.id).state

    @precondition(lambda self: self.state is JobState.PAID)
    @rule(results=st.lists(RESULTS, min_size=1, max_size=9))
    def run_downloads(self, results: list[FetchResult | None]) -> None:
        """One run: each image is tried until it is saved, left or lost."""
        for image in due_images(self.ledger, self.job.id):
            for tries, result in enumerate(results, 1):
                if result is None:
                    save(self.ledger, image.id, f"{image.rank}.png")
                    break
                if not isinstance(self.fail(image, result, tries), FetchAgain):
                    break
            if image.rank == 0 and self.state is not JobState.PAID:
                break

    def fail(
        self, image: DueImage, result: FetchResult, tries: int
    ) -> FetchAgain | FetchLater | FetchLost:
        record_download_failure(
            self.ledger, image.id, self.job.id, trouble="x", reason="download: x", not_before=None
        )
        decision = (
            after_extra(result, tries=tries)
            if image.rank
            else after_fetch(result, tries=tries, now=self.now, until=self.until)
        )
        if isinstance(decision, FetchLost):
            if image.rank:
                mark_extra_image_lost(self.ledger, image.id, decision.reason)
            else:
                assert self.now >= self.until, "an image is lost before its time is over"
                mark_image_lost(self.ledger, image.id, self.job.id, decision.reason)
        return decision

    @rule(hours=st.floats(0.01, 300))
    def wait(self, hours: float) -> None:
        self.now += timedelta(hours=hours)

    @rule()
    def repair(self) -> None:
        lost = [one.image for one in lost_images(self.ledger.conn, self.batch, self.now)]
        fetch_again(self.ledger.conn, lost, lambda: self.now)

    @precondition(lambda self: not self.retried)
    @rule()
    def retry_once(self) -> None:
        fresh = not self.ledger.conn.execute("SELECT 1 FROM images WHERE refetched = 1").fetchone()
        if self.state is JobState.FAILED and fresh:
            moved = retry_jobs(
                self.ledger.conn, self.batch, RetrySelection(states=[JobState.FAILED])
            )
            assert (moved.jobs, moved.cost, moved.free) == (0, 0, 1)
            self.retried = True

    @invariant()
    def nothing_is_bought(self) -> None:
        assert pending_jobs(self.ledger, self.batch, after=JobId(0), limit=9) == []
        (count,) = self.ledger.conn.execute("SELECT count(*) FROM attempts").fetchone()
        assert count == 1
        assert self.state in (JobState.PAID, JobState.DONE, JobState.FAILED)

    @invariant()
    def a_stored_url_is_kept(self) -> None:
        rows = self.ledger.conn.execute("SELECT state, url FROM images").fetchall()
        assert all(row["url"] for row in rows if row["state"] in ("due", "lost"))

    @invariant()
    def what_is_held_says_why(self) -> None:
        waiting = waiting_images(self.ledger.conn, self.batch)
        if self.state is not JobState.PAID:
            assert waiting is None
        if self.state is JobState.FAILED:
            assert (reason_of(self.ledger, self.job.id) or "").startswith("image_lost: ")


PaidImages.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestPaidImages = pytest.mark.fault("XA1", "XA7")(PaidImages.TestCase)


@pytest.mark.sweep
@pytest.mark.timeout(3600)
def test_ten_thousand_sequences_buy_nothing() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    many = settings(max_examples=10_000, stateful_step_count=30, deadline=None)
    run_state_machine_as_test(PaidImages, settings=many)
