"""What people and programs read from the ledger, to the letter, and that none of it is slow."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from batchgen.errors import UnknownBatchError
from batchgen.job import AttemptId, BatchId, JobId, JobState
from batchgen.ledger.attempts import (
    finished_attempts,
    mark_response_spoiled,
    open_attempts,
    settle_attempt,
)
from batchgen.ledger.batch_status import status
from batchgen.ledger.batches import batch_id, batch_names, find_batch
from batchgen.ledger.database import open_for_reading
from batchgen.ledger.exports import export
from batchgen.ledger.history import history
from batchgen.ledger.images import due_images, mark_image_lost
from batchgen.ledger.jobs import paid_jobs, pending_jobs, read_job, set_job_reason
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.open_work import jobs_with_money
from batchgen.ledger.path_owners import path_history
from batchgen.ledger.reference_urls import pending_references
from batchgen.ledger.retry_selection import RetrySelection, retry_jobs
from batchgen.ledger.runs import end_run
from tests.support.builders import (
    BLOCKED,
    EMPTY,
    LOST,
    REFUSED,
    enroll,
    first,
    pay,
    planned,
    save,
    send,
    start,
)
from tests.support.query_plans import plans_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "batchgen.db"


@pytest.fixture
def batch(ledger: Ledger) -> BatchId:
    """A batch with a job in each state, one that left the manifest, and a run that was stopped."""
    batch = enroll(ledger, [planned(n) for n in range(8)])
    run = start(ledger, batch)
    pay(ledger, run, first(ledger, batch))
    save(ledger, due_images(ledger, JobId(1))[0].id)
    pay(ledger, run, first(ledger, batch))
    for classification in (LOST, replace(REFUSED, message="bad size", status=400), BLOCKED):
        settle_attempt(ledger, send(ledger, run, first(ledger, batch)), classification)
    send(ledger, run, first(ledger, batch))
    end_run(ledger, run, stopped="budget: used up", exit_code=3)
    enroll(ledger, [planned(n) for n in range(7)])
    return batch


def test_status_is_the_object_that_other_programs_rely_on(ledger: Ledger, batch: BatchId) -> None:
    found = status(ledger.conn, "b").as_json()
    assert json.loads(json.dumps(found)) == {
        "batch": "b",
        "jobs": {
            "pending": 1,
            "sending": 1,
            "paid": 1,
            "done": 1,
            "failed": 1,
            "blocked": 1,
            "uncertain": 1,
            "acknowledged": 0,
        },
        "retired": 1,
        "images": {
            "saved": 1,
            "unpublished": {"undecided": 0, "accepted": 0, "rejected": 0},
        },
        "attempts": {"total": 6, "billed": 2, "maybe": 2, "not_billed": 2},
        "cost": {
            "currency": "USD",
            "estimated": "0.263900",
            "charged": "0.075400",
            "maybe": "0.075400",
            "unpriced": 0,
        },
        "uncertain_sums": {"charged": "0.000000", "maybe": "0.037700", "again": "0.037700"},
        "waiting": None,
        "stopped": "budget: used up",
    }


def test_status_counts_unfinished_and_troubled_jobs(ledger: Ledger, batch: BatchId) -> None:
    found = status(ledger.conn, "b")
    assert found.unfinished == 3, "pending, sending, paid"
    assert found.troubled == 3, "failed, blocked, uncertain"
    assert found.in_flight == 1
    assert [
        (reason.state, reason.code, reason.jobs, reason.example) for reason in found.reasons
    ] == [
        (JobState.BLOCKED, "moderation_blocked", 1, "moderation_blocked"),
        (JobState.FAILED, "invalid_value", 1, "invalid_value: bad size"),
        (JobState.UNCERTAIN, "deadline", 1, "deadline"),
    ]


def test_the_commonest_reason_comes_first_with_an_example(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(n) for n in range(3)])
    run = start(ledger, batch)
    for classification in (BLOCKED, REFUSED, replace(REFUSED, message="bad size")):
        settle_attempt(ledger, send(ledger, run, first(ledger, batch)), classification)
    failed, blocked = status(ledger.conn, "b").reasons
    assert (failed.code, failed.jobs, failed.example_key) == ("invalid_value", 2, "k1")
    assert blocked.jobs == 1


def test_a_batch_without_a_run_has_a_status(ledger: Ledger) -> None:
    enroll(ledger, [planned(0)])
    found = status(ledger.conn, "b").as_json()
    assert found["stopped"] is None
    assert found["attempts"] == {"total": 0, "billed": 0, "maybe": 0, "not_billed": 0}


def test_a_finished_run_clears_the_reason_of_an_earlier_stop(
    ledger: Ledger, batch: BatchId
) -> None:
    end_run(ledger, start(ledger, batch), stopped=None, exit_code=0)
    assert status(ledger.conn, "b").as_json()["stopped"] is None


def test_a_status_is_of_one_moment(path: Path, ledger: Ledger, batch: BatchId) -> None:
    """A run that writes between two of its queries would make counts and money disagree."""
    refused: list[str] = []

    def write_meanwhile(statement: str) -> None:
        if "sum(maybe + reserved)" not in statement:
            return
        with closing(sqlite3.connect(path, timeout=0)) as other:
            try:
                other.execute("UPDATE jobs SET estimated = 0")
                other.commit()
            except sqlite3.OperationalError as exc:
                refused.append(str(exc))

    with closing(open_for_reading(path)) as conn:
        conn.set_trace_callback(write_meanwhile)
        status(conn, "b")
        conn.set_trace_callback(None)
        assert not conn.in_transaction
    assert refused == ["database is locked"]


def test_an_unknown_batch_is_answered_with_those_there_are(ledger: Ledger, batch: BatchId) -> None:
    enroll(ledger, [planned(0)], name="other")
    with pytest.raises(UnknownBatchError, match="no batch 'x' in this ledger; it holds: "):
        status(ledger.conn, "x")
    assert sorted(batch_names(ledger.conn)) == ["b", "other"]
    assert batch_id(ledger.conn, "b") == batch == find_batch(ledger.conn, "b").id
    assert batch_id(ledger.conn, "x") is None


def test_an_empty_ledger_says_that_it_holds_none(ledger: Ledger) -> None:
    with pytest.raises(UnknownBatchError, match="none yet"):
        find_batch(ledger.conn, "x")


def test_jobs_with_money_are_counted_after_they_left(ledger: Ledger, batch: BatchId) -> None:
    assert jobs_with_money(ledger.conn, batch) == 2
    enroll(ledger, [planned(7)])
    assert jobs_with_money(ledger.conn, batch) == 2, "money is in two that left the manifest"


COLUMNS = {
    "jobs": "key state reason fingerprint model prompt options estimated charged maybe",
    "attempts": "id key run started_at ended_at outcome billed http_status error_code request_id"
    " cost",
    "images": "key path sha256 bytes width height format root run saved_at state url",
}


EXPORTS = ("jobs", "attempts", "images")


@pytest.mark.parametrize("what", EXPORTS)
def test_an_export_has_exactly_the_columns_it_promises(
    what: str, ledger: Ledger, batch: BatchId
) -> None:
    rows = list(export(ledger.conn, batch, what))
    assert {tuple(row) for row in rows} == {tuple(COLUMNS[what].split())}


def test_jobs_are_exported_with_their_money(ledger: Ledger, batch: BatchId) -> None:
    rows = {row["key"]: row for row in export(ledger.conn, batch, "jobs")}
    assert list(rows) == [f"k{n}" for n in range(7)], "in the manifest's order, without retired"
    assert rows["k3"] == {
        "key": "k3",
        "state": "failed",
        "reason": "invalid_value: bad size",
        "fingerprint": "3-0",
        "model": "gpt-image-2",
        "prompt": "prompt 3, edition 0",
        "options": "{}",
        "estimated": "0.037700",
        "charged": "0.000000",
        "maybe": "0.000000",
    }
    assert rows["k0"]["charged"] == "0.037700"
    assert rows["k2"]["maybe"] == "0.037700"


def test_attempts_are_exported_in_the_order_they_were_made(ledger: Ledger, batch: BatchId) -> None:
    rows = list(export(ledger.conn, batch, "attempts"))
    assert [(row["key"], row["outcome"], row["billed"], row["cost"]) for row in rows] == [
        ("k0", "ok", "yes", "0.037700"),
        ("k1", "ok", "yes", "0.037700"),
        ("k2", "ambiguous", "maybe", "0.000000"),
        ("k3", "refused", "no", "0.000000"),
        ("k4", "blocked", "no", "0.000000"),
        ("k5", "sending", "maybe", "0.000000"),
    ]
    assert (rows[3]["http_status"], rows[3]["error_code"]) == (400, "invalid_value")
    assert rows[5]["ended_at"] is None


def test_only_saved_images_are_exported(ledger: Ledger, batch: BatchId) -> None:
    (found,) = export(ledger.conn, batch, "images")
    assert found.pop("saved_at")
    assert [found] == [
        {
            "key": "k0",
            "path": "0.png",
            "sha256": "s",
            "bytes": 1,
            "width": 1,
            "height": 1,
            "format": "png",
            "root": "out",
            "run": 1,
            "state": "saved",
            "url": None,
        }
    ]


def test_a_long_export_is_whole_and_of_one_batch(ledger: Ledger) -> None:
    enroll(ledger, [planned(n) for n in range(1500)])
    other = enroll(ledger, [planned(n) for n in range(1500, 4000)], name="other")
    start(ledger, other)
    ledger.conn.execute(
        "INSERT INTO attempts (id, job_id, run_id, fingerprint, provider, model, started_at,"
        " outcome, billed, price) SELECT 'a' || id, id, 1, '', '', '', '', 'ok', 'yes', 1 FROM jobs"
    )
    ledger.conn.execute(
        "INSERT INTO images (job_id, attempt_id, position, state, root, path)"
        " SELECT id, 'a' || id, 0, 'saved', '', '' FROM jobs"
    )
    for what in EXPORTS:
        keys = [row["key"] for row in export(ledger.conn, other, what)]
        assert keys == [f"k{n}" for n in range(1500, 4000)]


@pytest.mark.fault("Q16")
@pytest.mark.parametrize("what", EXPORTS)
def test_a_paused_reader_does_not_block_writing(
    what: str, path: Path, ledger: Ledger, batch: BatchId
) -> None:
    """As with ``batchgen export | less``."""
    with closing(open_for_reading(path)) as conn:
        rows = export(conn, batch, what)
        next(rows)
        ledger.conn.execute("PRAGMA busy_timeout = 0").fetchall()
        set_job_reason(ledger, JobId(1), "written meanwhile")
        list(rows)


HOT: dict[str, Callable[[Ledger, BatchId], object]] = {
    "pending": lambda ledger, batch: pending_jobs(ledger, batch, after=JobId(0), limit=9),
    "paid": lambda ledger, batch: paid_jobs(ledger, batch),
    "job": lambda ledger, batch: read_job(ledger, JobId(1)),
    "due": lambda ledger, batch: due_images(ledger, JobId(2)),
    "owns": lambda ledger, batch: path_history(ledger, JobId(1), "out", "0.png"),
    "open_attempts": lambda ledger, batch: open_attempts(ledger, batch),
    "finished_attempts": lambda ledger, batch: finished_attempts(ledger, batch, [AttemptId("x")]),
    "reserve": lambda ledger, batch: send(ledger, start(ledger, batch), first(ledger, batch)),
    "record_response": lambda ledger, batch: pay(
        ledger, start(ledger, batch), first(ledger, batch)
    ),
    "settle": lambda ledger, batch: settle_attempt(
        ledger, send(ledger, start(ledger, batch), first(ledger, batch)), LOST
    ),
    "image_saved": lambda ledger, batch: save(ledger, due_images(ledger, JobId(2))[0].id, "1.png"),
    "image_lost": lambda ledger, batch: mark_image_lost(
        ledger, due_images(ledger, JobId(2))[0].id, JobId(2), "gone"
    ),
    "spoil": lambda ledger, batch: mark_response_spoiled(
        ledger, due_images(ledger, JobId(2))[0].attempt_id, EMPTY, start(ledger, batch)
    ),
    "status": lambda ledger, batch: status(ledger.conn, "b"),
    "references": lambda ledger, batch: list(pending_references(ledger.conn, batch)),
    "history": lambda ledger, batch: history(ledger.conn, batch, "local"),
    "money": lambda ledger, batch: jobs_with_money(ledger.conn, batch),
    "retry": lambda ledger, batch: retry_jobs(
        ledger.conn, batch, RetrySelection(states=[JobState.FAILED])
    ),
}


@pytest.mark.fault("Q20")
@pytest.mark.parametrize("name", HOT)
def test_a_hot_query_reads_by_an_index(name: str, ledger: Ledger, batch: BatchId) -> None:
    plans = plans_of(ledger, lambda: HOT[name](ledger, batch))
    assert plans
    harmless = (
        "SCAN attempts USING INDEX attempts_open",
        "SCAN images USING INDEX images_unpublished",
        "SCAN batches",
        "SCAN named VIRTUAL TABLE",
        "SCAN chosen",
        "SCAN one",
        "SCAN json_each",
        "SCAN (subquery",
        "SCAN CONSTANT ROW",
    )
    scans = [plan for plan in plans if plan.startswith("SCAN") and not plan.startswith(harmless)]
    assert scans == []


@pytest.mark.parametrize("name", ["open_attempts", "finished_attempts"])
def test_a_few_attempts_are_found_without_a_look_at_every_job(
    name: str, ledger: Ledger, batch: BatchId
) -> None:
    plans = plans_of(ledger, lambda: HOT[name](ledger, batch))
    assert [plan for plan in plans if "jobs" in plan and "PRIMARY KEY" not in plan] == []


@pytest.mark.parametrize("what", EXPORTS)
def test_an_export_sorts_nothing(what: str, ledger: Ledger, batch: BatchId) -> None:
    plans = plans_of(ledger, lambda: list(export(ledger.conn, batch, what)))
    assert [plan for plan in plans if "TEMP B-TREE" in plan or plan.startswith("SCAN")] == []
