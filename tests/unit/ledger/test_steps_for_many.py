"""A step for many orders changes the ledger as the same step for each of them in turn."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from hypothesis import given
from hypothesis import strategies as st

from batchgen.job import AttemptId, Billed, ImageRef, JobId, Outcome, RunId, SavedImage
from batchgen.ledger.attempt_ends import AttemptEnd
from batchgen.ledger.budgets import set_budgets
from batchgen.ledger.database import in_memory
from batchgen.ledger.images import (
    Placement,
    due_images,
    mark_images_saved,
    record_placements,
)
from batchgen.ledger.jobs import pending_jobs
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.paid_responses import PaidResponse, record_responses
from batchgen.ledger.records import DueImage, NotPending, Reserved
from batchgen.ledger.reservations import Reservation, reserve_attempts
from batchgen.money import Micros, PriceTerms
from batchgen.outcomes.classify import Classification
from tests.support.builders import IMAGE, PRICE, enroll, pay, planned, save, start

Order = TypeVar("Order")
Result = TypeVar("Result")
JOBS = 6
MOMENT = datetime(2026, 11, 29, 12, tzinfo=UTC)
TERMS = st.sampled_from(
    [PriceTerms(), PriceTerms(least=Micros(10)), PriceTerms(least=Micros(10**9))]
)
CLASSIFICATIONS = st.sampled_from(
    [
        Classification(outcome=Outcome.OK, billed=Billed.YES),
        Classification(
            outcome=Outcome.OK, billed=Billed.YES, status=200, request_id="r\0", message="m"
        ),
        Classification(outcome=Outcome.OK, billed=Billed.MAYBE, code="late"),
    ]
)
URLS = st.sampled_from(["https://h/x.png", "https://h/x.png?signature=s", "https://h/\0", None])


class Pair:
    """Two ledgers with one content: one takes orders together, the other one by one."""

    def __init__(self, together: Ledger) -> None:
        self.together = together
        copy = sqlite3.connect(":memory:", isolation_level=None)
        copy.row_factory = sqlite3.Row
        together.conn.backup(copy)
        self.alone = Ledger(copy, together.clock)

    def run(
        self, step: Callable[[Ledger, list[Order]], list[Result]], orders: list[Order]
    ) -> list[Result]:
        """Run a step in both ways, and check that results and tables are equal."""
        together = step(self.together, orders)
        alone = [step(self.alone, [order])[0] for order in orders]
        assert together == alone
        assert tables(self.together.conn) == tables(self.alone.conn)
        return together


def tables(conn: sqlite3.Connection) -> dict[str, list[tuple[Any, ...]]]:
    names = [row[0] for row in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {
        name: sorted((tuple(row) for row in conn.execute(f"SELECT * FROM {name}")), key=repr)
        for name in names
    }


def prepared(data: st.DataObject, conn: sqlite3.Connection) -> tuple[Ledger, RunId]:
    """A ledger of jobs, some with an image of an earlier edition, and a run with its budgets."""
    ledger = Ledger(conn, lambda: MOMENT)
    batch = enroll(ledger, [planned(n) for n in range(JOBS)])
    editions = [data.draw(st.integers(0, 1)) for _ in range(JOBS)]
    first = start(ledger, batch)
    for job in pending_jobs(ledger, batch, after=JobId(0), limit=JOBS):
        if editions[job.id - 1]:
            pay(ledger, first, job)
            (due,) = due_images(ledger, job.id)
            waits = ".pending/" if data.draw(st.booleans()) else ""
            save(ledger, due.id, f"{waits}{job.id}.png")
    enroll(ledger, [planned(n, edition) for n, edition in enumerate(editions)])
    limit = st.none() | st.integers(0, 2 * JOBS).map(lambda n: Micros(n * PRICE))
    set_budgets(ledger.conn, {"day": data.draw(limit), "month": data.draw(limit)})
    return ledger, start(ledger, batch, max_cost=data.draw(limit))


def reservations(data: st.DataObject, ledger: Ledger, run: RunId) -> list[Reservation]:
    jobs = pending_jobs(ledger, batch_of(ledger), after=JobId(0), limit=JOBS)
    known = st.sampled_from([True, True, True, False])
    orders = [
        Reservation(
            run=run,
            job=job,
            attempt=AttemptId(f"{job.id:032x}"),
            provider="local",
            terms=PriceTerms(least=data.draw(TERMS).least, is_known=data.draw(known)),
        )
        for job in data.draw(st.permutations(jobs))
    ]
    for order in orders:
        if data.draw(st.sampled_from([False, False, True])):  # edited, or taken by another run
            change = data.draw(st.sampled_from(["fingerprint = 'x'", "state = 'failed'"]))
            ledger.conn.execute(f"UPDATE jobs SET {change} WHERE id = ?", (order.job.id,))
    return orders


def batch_of(ledger: Ledger) -> Any:
    return ledger.conn.execute("SELECT id FROM batches").fetchone()[0]


def response(data: st.DataObject, attempt: AttemptId) -> PaidResponse:
    number = data.draw(st.integers(0, 3))
    end = AttemptEnd(
        attempt=attempt,
        classification=data.draw(CLASSIFICATIONS),
        response=data.draw(st.sampled_from([None, "spooled"])),
        cost=data.draw(st.none() | st.integers(0, 10**6).map(Micros)),
    )
    images = [
        (ImageRef(index=n, url=data.draw(URLS)), data.draw(st.sampled_from([None, "2026-12-01"])))
        for n in range(number)
    ]
    return PaidResponse(end=end, images=images, body=data.draw(st.none() | st.binary(max_size=9)))


def placement(data: st.DataObject, image: DueImage) -> Placement:
    names = st.sampled_from([f"{image.id}.png", "1.png", f".pending/{image.id}.png"])
    saved = SavedImage(
        path=data.draw(names),
        sha256="s",
        bytes=1,
        width=1,
        height=1,
        format="png",
        warnings=data.draw(st.sampled_from([(), ("smaller",)])),
    )
    return Placement(image.id, "out", saved)


@given(st.data())
def test_steps_for_many_equal_steps_one_by_one(data: st.DataObject) -> None:
    with closing(in_memory()) as conn:
        ledger, run = prepared(data, conn)
        orders = reservations(data, ledger, run)
        if not orders:
            return
        pair = Pair(ledger)
        with closing(pair.alone.conn):
            compare(data, pair, orders)


def compare(data: st.DataObject, pair: Pair, orders: list[Reservation]) -> None:
    """Take the orders to their saved images in both ways."""
    replies = pair.run(reserve_attempts, orders)
    sent = [
        order.attempt
        for order, reply in zip(orders, replies, strict=True)
        if isinstance(reply, Reserved)
    ]
    if not sent:
        return
    due = pair.run(record_responses, [response(data, attempt) for attempt in sent])
    images = [image for images in due for image in images]
    if not images:
        return
    placements = [placement(data, image) for image in images]
    if data.draw(st.booleans()):
        pair.run(record_placements, placements)
    order = data.draw(st.permutations(placements))
    first = data.draw(st.integers(1, len(order)))
    pair.run(mark_images_saved, order[:first])
    if order[first:]:
        pair.run(mark_images_saved, order[first:])


def test_one_job_is_not_reserved_twice_in_a_group(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(0)])
    run = start(ledger, batch)
    (job,) = pending_jobs(ledger, batch, after=JobId(0), limit=2)
    orders = [
        Reservation(run=run, job=job, attempt=AttemptId(name), provider="local", terms=PriceTerms())
        for name in ("a", "b")
    ]
    assert reserve_attempts(ledger, orders) == [Reserved(), NotPending()]


def test_group_of_many_images_is_recorded_and_replaced(ledger: Ledger) -> None:
    """More values than SQLite allows in one statement."""
    jobs, images = 60, 100
    ledger.conn.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 32_766)  # as most builds have it
    batch = enroll(ledger, [planned(number) for number in range(jobs)])
    run = start(ledger, batch)
    for edition in ("a", "b"):
        pending = pending_jobs(ledger, batch, after=JobId(0), limit=jobs)
        orders = [
            Reservation(
                run=run,
                job=job,
                attempt=AttemptId(f"{edition}{job.id}"),
                provider="local",
                terms=PriceTerms(),
            )
            for job in pending
        ]
        assert reserve_attempts(ledger, orders) == [Reserved()] * jobs
        refs = [(ImageRef(index=number, url="https://h/x.png"), None) for number in range(images)]
        paid = [
            PaidResponse(
                end=AttemptEnd(
                    attempt=order.attempt,
                    classification=Classification(outcome=Outcome.OK, billed=Billed.YES),
                    response=None,
                ),
                images=refs,
            )
            for order in orders
        ]
        due = [
            Placement(image.id, "out", replace(IMAGE, path=f"{image.id}.png"))
            for found in record_responses(ledger, paid)
            for image in found
        ]
        assert len(due) == jobs * images
        finished = [one for one in mark_images_saved(ledger, due[:3_000]) if one is not None]
        finished += [one for one in mark_images_saved(ledger, due[3_000:]) if one is not None]
        assert len(finished) == jobs
        enroll(ledger, [planned(number, 1) for number in range(jobs)])
    assert sum(len(one.replaced) for one in finished) == jobs * images
