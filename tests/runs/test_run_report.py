"""The report of a run: its content and its format."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from batchgen.errors import UnknownBatchError
from batchgen.ledger.attempts import settle_attempt
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.run_report import run_report
from batchgen.ledger.runs import end_run
from batchgen.money import Micros
from batchgen.report.run import Morning, report_markdown, report_record, report_text
from tests.support import rig
from tests.support.builders import LOST, PRICE, REFUSED, enroll, first, planned, send, start
from tests.support.pages import block_after


def morning_of(ledger: Ledger, run: int | None = None) -> Morning:
    name = ledger.conn.execute("SELECT name FROM batches").fetchone()["name"]
    return Morning(report=run_report(ledger.conn, name, run), suspects=(), next_step="look")


def test_failures_are_reported_by_reason_with_the_lines_to_fix(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(number) for number in range(3)])
    run = start(ledger, batch)
    for _ in range(3):
        settle_attempt(ledger, send(ledger, run, first(ledger, batch)), REFUSED)
    end_run(ledger, run, stopped=None, exit_code=1)

    (reason,) = morning_of(ledger).report.failed

    assert (reason.code, reason.jobs) == (REFUSED.code, 3)
    assert [row.key for row in reason.rows] == [planned(number).key for number in range(3)]
    assert [row.source for row in reason.rows] == [planned(number).source for number in range(3)]


def test_older_run_reports_its_own_jobs_newest_run_all(
    ledger: Ledger,
) -> None:
    batch = enroll(ledger, [planned(0), planned(1)])
    runs = []
    for _ in range(2):
        runs.append(run := start(ledger, batch))
        settle_attempt(ledger, send(ledger, run, first(ledger, batch)), REFUSED)
        end_run(ledger, run, stopped=None, exit_code=1)

    assert morning_of(ledger, runs[0]).report.failed[0].jobs == 1
    assert morning_of(ledger).report.failed[0].jobs == 2


def test_uncertain_job_is_reported_with_its_price_and_attempt(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(0)])
    run = start(ledger, batch, waste=Micros(0))
    attempt = send(ledger, run, first(ledger, batch))
    settle_attempt(ledger, attempt, LOST)
    morning = morning_of(ledger)

    assert [job.attempt for job in morning.report.uncertain] == [attempt]
    assert "1 uncertain (charged $0.00, possible $0.04)" in report_text(morning)
    assert attempt in report_text(morning)
    assert morning.report.run.maybe == PRICE


def test_run_is_compared_with_the_one_before(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(0)])
    before = start(ledger, batch)
    newest = start(ledger, batch)
    found = morning_of(ledger).report
    assert found.before is not None
    assert (found.before.id, found.run.id) == (before, newest)
    assert "has not ended or was killed" in report_text(morning_of(ledger))
    assert morning_of(ledger, before).report.before is None


def test_missing_run_of_a_batch_is_an_error(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(0)])
    with pytest.raises(UnknownBatchError, match="no run yet"):
        morning_of(ledger)
    start(ledger, batch)
    with pytest.raises(UnknownBatchError, match="no run 7"):
        morning_of(ledger, 7)


def test_many_failures_stay_within_a_screen(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(number) for number in range(60)])
    run = start(ledger, batch)
    for number in range(60):
        classification = replace(REFUSED, code=f"code_{number % 12}", message="no " * 200)
        settle_attempt(ledger, send(ledger, run, first(ledger, batch)), classification)

    text = report_text(morning_of(ledger))
    assert len(text.splitlines()) <= 40
    assert max(map(len, text.splitlines())) < 150
    assert "and 7 more reasons" in text
    assert len(json.loads(json.dumps(report_record(morning_of(ledger))))["failed"]) == 12


def test_what_a_provider_says_makes_no_markdown(ledger: Ledger) -> None:
    batch = enroll(ledger, [planned(0)])
    run = start(ledger, batch)
    classification = replace(REFUSED, message="<b> [click](http://x) `rm`")
    settle_attempt(ledger, send(ledger, run, first(ledger, batch)), classification)
    assert "\\<b\\> \\[click\\](http://x) \\`rm\\`" in report_markdown(morning_of(ledger))


def test_report_of_the_guide_example_in_other_forms(tmp_path: Path) -> None:
    for name in ("catalog.yaml", "products.csv"):
        text = block_after(f"file: shop/{name}", "reports")
        (tmp_path / name).write_text(text, encoding="utf-8")
    rig.batchgen("run", "catalog.yaml", cwd=tmp_path, code=1)

    record = json.loads(rig.batchgen("report", "catalog", "--format", "json", cwd=tmp_path).stdout)
    assert record["made"] == {"new": 2, "changed": 0}
    assert {row["key"] for row in record["blocked"][0]["rows"]} == {"sign", "poster"}

    table = tmp_path / "products.csv"
    text = table.read_text(encoding="utf-8").replace("white clay", "black clay")
    table.write_text(text, encoding="utf-8")
    rig.batchgen("run", "catalog.yaml", cwd=tmp_path, code=1)
    second = rig.batchgen("report", "catalog", cwd=tmp_path).stdout
    assert "run 2: 0 made, 1 replaced" in second
    assert "the previous run charged $0.08" in second
    table.unlink()
    assert "all with the word 'forbidden-word'" in (
        rig.batchgen("report", "catalog", "--format", "markdown", cwd=tmp_path).stdout
    )
