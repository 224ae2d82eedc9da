"""Sums of a ledger's money: each attempt where it belongs, once, and in whole micros."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from batchgen.job import BatchId, JobId, JobState
from batchgen.ledger.attempts import settle_attempt
from batchgen.ledger.costs import CostBy, Costs, CostSum, costs
from batchgen.ledger.images import due_images, mark_image_lost
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.retry_selection import RetrySelection, retry_jobs
from batchgen.ledger.runs import end_run
from batchgen.money import Micros
from batchgen.report.costs import WIDTH, cost_text
from tests.support import rig
from tests.support.builders import (
    EMPTY,
    FREE,
    LOST,
    PRICE,
    REFUSED,
    enroll,
    first,
    pay,
    planned,
    save,
    send,
    start,
)
from tests.support.fixtures import Clock
from tests.support.query_plans import plans_of
from tests.support.rig import changed_job

CLOCK = Clock(datetime(2026, 11, 22, 23, 50, tzinfo=UTC))


@pytest.fixture
def two(ledger: Ledger, clock: Clock) -> BatchId:
    """Two batches, and three runs over midnight.

    In ``b``, by its first run: k0 an image, k1 lost and rebought, k2 free, refused, and free after
    midnight; by its second: k2 an image. In ``other``: an image of another model.
    """
    jobs = [planned(0), planned(1), planned(2), planned(3)]
    jobs[0] = changed_job(jobs[0], tags=("winter", "shop"))
    jobs[1] = changed_job(jobs[1], tags=("winter",))
    batch = enroll(ledger, jobs)
    run = start(ledger, batch, waste=PRICE)
    bring(ledger, run, batch)
    settle_attempt(ledger, send(ledger, run, first(ledger, batch)), LOST)
    bring(ledger, run, batch)
    settle_attempt(ledger, send(ledger, run, first(ledger, batch)), FREE)
    clock.now += timedelta(minutes=20)
    settle_attempt(ledger, send(ledger, run, first(ledger, batch)), FREE)
    end_run(ledger, run, stopped=None, exit_code=1)
    second = start(ledger, batch)
    bring(ledger, second, batch)
    end_run(ledger, second, stopped=None, exit_code=0)

    other = enroll(ledger, [changed_job(planned(0), model="nano-banana")], name="other")
    third = start(ledger, other)
    bring(ledger, third, other)
    return batch


def bring(ledger: Ledger, run: Any, batch: BatchId) -> None:
    """Make the first pending job's image."""
    job = first(ledger, batch)
    pay(ledger, run, job)
    save(ledger, due_images(ledger, job.id)[0].id, f"{job.key}.png")


Line = tuple[object, int, int, int, int, int, int]


def lines(found: Costs) -> list[Line]:
    return [(row.group, *figures(row.sums)) for row in found.rows]


def figures(sums: CostSum) -> tuple[int, int, int, int, int, int]:
    """Made, accepted and attempts, and the money in images."""
    return (
        sums.made,
        sums.accepted,
        sums.attempts,
        sums.estimated // PRICE,
        sums.charged // PRICE,
        sums.maybe // PRICE,
    )


@pytest.mark.parametrize(
    ("by", "rows"),
    [
        (["batch"], [(("b",), 3, 3, 6, 3, 3, 1), (("other",), 1, 1, 1, 1, 1, 0)]),
        (
            ["run"],
            [((1,), 2, 2, 5, 3, 2, 1), ((2,), 1, 1, 1, 0, 1, 0), ((3,), 1, 1, 1, 1, 1, 0)],
        ),
        (["day"], [(("2026-11-22",), 2, 2, 4, 3, 2, 1), (("2026-11-23",), 2, 2, 3, 1, 2, 0)]),
        (["model"], [(("gpt-image-2",), 3, 3, 6, 3, 3, 1), (("nano-banana",), 1, 1, 1, 1, 1, 0)]),
        (["provider"], [(("local",), 4, 4, 7, 4, 4, 1)]),
        (
            ["tag"],
            [
                ((None,), 2, 2, 4, 2, 2, 0),
                (("shop",), 1, 1, 1, 1, 1, 0),
                (("winter",), 2, 2, 3, 2, 2, 1),
            ],
        ),
        (
            ["day", "batch"],
            [
                (("2026-11-22", "b"), 2, 2, 4, 3, 2, 1),
                (("2026-11-23", "b"), 1, 1, 2, 0, 1, 0),
                (("2026-11-23", "other"), 1, 1, 1, 1, 1, 0),
            ],
        ),
    ],
)
def test_each_attempt_counts_in_its_group(
    ledger: Ledger, two: BatchId, by: list[str], rows: list[Line]
) -> None:
    found = costs(ledger.conn, [CostBy(word) for word in by])
    assert lines(found) == rows
    assert figures(found.total) == (4, 4, 7, 4, 4, 1), "each attempt once, with any tags"


@pytest.mark.parametrize(
    ("since", "until", "total"),
    [
        (None, "2026-11-22", (2, 2, 4, 3, 2, 1)),
        ("2026-11-23", None, (2, 2, 3, 1, 2, 0)),
        ("2026-11-22", "2026-11-23", (4, 4, 7, 4, 4, 1)),
        ("2026-11-24", None, (0, 0, 0, 0, 0, 0)),
        (None, "2026-11-21", (0, 0, 0, 0, 0, 0)),
        (None, "9999-12-31", (4, 4, 7, 4, 4, 1)),
    ],
)
def test_a_span_of_days_has_both_its_ends_in_it(
    ledger: Ledger,
    two: BatchId,
    since: str | None,
    until: str | None,
    total: tuple[int, ...],
) -> None:
    found = costs(
        ledger.conn,
        [CostBy.RUN],
        since=date.fromisoformat(since) if since else None,
        until=date.fromisoformat(until) if until else None,
    )
    assert figures(found.total) == total


def test_the_sums_of_a_batch_are_its_own(ledger: Ledger, two: BatchId) -> None:
    found = costs(ledger.conn, [CostBy.MODEL], batch=two)
    assert lines(found) == [(("gpt-image-2",), 3, 3, 6, 3, 3, 1)]


def test_replaced_image_is_estimated_and_no_longer_accepted(
    ledger: Ledger,
) -> None:
    batch = enroll(ledger, [planned(0)])
    bring(ledger, start(ledger, batch), batch)
    enroll(ledger, [planned(0, edition=1)])
    bring(ledger, start(ledger, batch), batch)
    assert figures(costs(ledger.conn, [CostBy.BATCH]).total) == (2, 1, 2, 2, 2, 0)


def test_what_is_asked_again_by_hand_is_estimated_once(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(0)])
    run = start(ledger, batch)
    settle_attempt(ledger, send(ledger, run, first(ledger, batch)), REFUSED)
    retry_jobs(ledger.conn, batch, RetrySelection(states=[JobState.FAILED]))
    settle_attempt(ledger, send(ledger, run, first(ledger, batch)), EMPTY)
    retry_jobs(ledger.conn, batch, RetrySelection(states=[JobState.FAILED]))
    send(ledger, run, first(ledger, batch))
    assert figures(costs(ledger.conn, [CostBy.BATCH]).total) == (0, 0, 3, 1, 1, 1)


def test_image_that_is_not_on_disk_is_not_made(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(0)])
    pay(ledger, start(ledger, batch), first(ledger, batch))
    assert figures(costs(ledger.conn, [CostBy.BATCH]).total) == (0, 0, 1, 1, 1, 0)
    mark_image_lost(ledger, due_images(ledger, JobId(1))[0].id, JobId(1), "gone")
    assert figures(costs(ledger.conn, [CostBy.BATCH]).total) == (0, 0, 1, 1, 1, 0)


def sums(charged: int, accepted: int, **more: int) -> CostSum:
    values = {"made": accepted, "attempts": 1, "estimated": charged, "maybe": 0} | more
    return CostSum(charged=Micros(charged), accepted=accepted, **values)  # type: ignore[arg-type]  # micros


@pytest.mark.parametrize(
    ("charged", "accepted", "each"),
    [(10, 4, 3), (9, 4, 2), (11, 4, 3), (1, 3, 0), (2, 3, 1), (0, 5, 0), (5, 0, None)],
)
def test_the_price_of_an_accepted_image_is_whole_micros(
    charged: int, accepted: int, each: int | None
) -> None:
    assert sums(charged, accepted).per_accepted == each


def test_a_wide_table_fits_a_screen_and_cuts_names_only(ledger: Ledger, two: BatchId) -> None:
    found = costs(ledger.conn, [CostBy.BATCH])
    large = sums(37_713_123_400, 999_999, made=1_000_000, attempts=1_000_300, maybe=1_234_500)
    row = replace(found.rows[0], group=("a name that is longer than anybody needs",), sums=large)
    head, line, total, note = cost_text(replace(found, rows=(row,), total=large)).splitlines()
    assert {len(head), len(line), len(total)} == {WIDTH}
    assert line.startswith("a name that …  ")
    assert line.split()[-6:] == [
        *("1,000,000", "1,000,300"),
        *("$37,713.12", "$37,713.12", "$1.23", "$0.037713"),
    ]
    assert note.startswith("1 image replaced since")


QUERIES: dict[str, Sequence[CostBy]] = {"total": [], "run": [CostBy.RUN], "tag": [CostBy.TAG]}


@pytest.mark.parametrize("name", QUERIES)
def test_attempts_are_found_by_an_index(ledger: Ledger, two: BatchId, name: str) -> None:
    plans = plans_of(
        ledger, lambda: costs(ledger.conn, QUERIES[name], batch=two, since=date(2026, 1, 1))
    )
    scans = [plan for plan in plans if plan.startswith("SCAN") and "tags" not in plan]
    assert scans == []
    assert any("attempts_by_run" in plan for plan in plans)
    assert any("attempts_by_job" in plan for plan in plans)


@pytest.fixture(scope="module")
def lossy_run(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Path, list[dict[str, Any]]]]:
    """Return a directory with a run in which some responses were lost, and the endpoint's bill."""
    directory = tmp_path_factory.mktemp("batch")
    with rig.endpoint(directory / "state", "--fast-images", "--bill-drop", "0.2") as endpoint:
        path = rig.manifest(
            directory,
            endpoint.base_url,
            [f"image {number}" for number in range(30)],
            limits='{concurrency: 16, max_waste: "100%"}',
            extra="tags: [night, shop]\n",
        )
        rig.batchgen("run", path, cwd=directory, code=None)
        endpoint.wait_until_idle()
        yield directory, endpoint.bill()


def cost(directory: Path, *arguments: str, code: int = 0) -> str:
    return rig.batchgen("cost", *arguments, cwd=directory, code=code).stdout


@pytest.mark.parametrize("by", CostBy)
def test_charged_and_maybe_add_up_to_the_bill_of_the_endpoint(
    lossy_run: tuple[Path, list[dict[str, Any]]], by: CostBy
) -> None:
    directory, bill = lossy_run
    found = json.loads(cost(directory, "--by", by, "--json"))
    total = found["total"]
    billed = sum(row["micros"] for row in bill)
    assert micros(total["charged"]) + micros(total["maybe"]) == billed
    assert micros(total["maybe"]) == sum(row["micros"] for row in bill if row["status"] != 200) > 0
    assert total["made"] == len(list((directory / "out").rglob("*.png")))
    assert total["attempts"] == len(bill)
    assert total["estimated"] == "1.131000"
    assert len(found["rows"]) == (2 if by is CostBy.TAG else 1)
    assert all(row | total == row for row in found["rows"])


def micros(text: str) -> int:
    whole, decimals = text.split(".")
    return int(whole + decimals)


def test_csv_has_the_rows_and_the_groups_as_requested(
    lossy_run: tuple[Path, list[dict[str, Any]]],
) -> None:
    directory, bill = lossy_run
    rows = list(csv.DictReader(io.StringIO(cost(directory, "--by", "tag, run", "--csv"))))
    assert [(row["tag"], row["run"]) for row in rows] == [("night", "1"), ("shop", "1")]
    assert list(rows[0])[2:] == [
        "made",
        "accepted",
        "attempts",
        "estimated",
        "charged",
        "maybe",
        "per_accepted",
        "unpriced",
    ]
    assert {row["attempts"] for row in rows} == {str(len(bill))}


def test_a_person_sees_a_table_with_a_total(lossy_run: tuple[Path, list[dict[str, Any]]]) -> None:
    directory, _ = lossy_run
    head, *rows, total = cost(directory, "batch", "--by", "model,tag").splitlines()
    assert head.split() == [
        *("model,", "tag", "made", "attempts"),
        *("estimated", "charged", "possible", "each"),
    ]
    assert [row.split("  ")[0] for row in rows] == ["gpt-image-2, night", "gpt-image-2, shop"]
    assert total.split()[0] == "total"
    assert total.split()[1:] == rows[0].split()[2:]


def test_days_without_a_request_say_so(lossy_run: tuple[Path, list[dict[str, Any]]]) -> None:
    directory, _ = lossy_run
    assert cost(directory, "--until", "2020-01-01") == "no request was sent, nothing was paid\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--by", "batch,color"],
            "--by: 'color'; expected one of batch, run, day, month, model, provider, tag",
        ),
        (["--since", "yesterday"], "'yesterday'"),
        (["unknown"], "no batch 'unknown'"),
    ],
)
def test_unknown_argument_of_cost_is_a_usage_error(
    lossy_run: tuple[Path, list[dict[str, Any]]], arguments: list[str], message: str
) -> None:
    done = rig.batchgen("cost", *arguments, cwd=lossy_run[0], code=2)
    assert message in done.stderr
