"""After lost responses, refunds and rebuys, every view of the money says what the bill says."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from batchgen.ledger.batch_status import status
from batchgen.ledger.batches import find_batch
from batchgen.ledger.budgets import period_budgets
from batchgen.ledger.clock import timestamp, utc_now
from batchgen.ledger.costs import CostBy, costs
from batchgen.ledger.database import open_for_reading
from batchgen.ledger.uncertain import (
    UncertainJob,
    UncertainSums,
    uncertain_jobs,
)
from batchgen.money import decimal_string, rounded_dollars
from batchgen.report.gather import morning_of
from batchgen.report.run import report_record
from tests.support import canary, rig

JOBS = 12


def output(directory: Path, *arguments: str, code: int = 0) -> Any:
    return json.loads(rig.batchgen(*arguments, "--json", cwd=directory, code=code).stdout)


def micros(text: str) -> int:
    return int(text.replace(".", ""))


def views(directory: Path) -> tuple[dict[str, Any], dict[str, Any], list[UncertainJob]]:
    """Compare all views of a batch's money; give status, report and uncertain jobs."""
    ledger = directory / "batchgen.db"
    morning = morning_of(ledger, "batch")
    with closing(open_for_reading(ledger)) as conn:
        found: Any = status(conn, "batch").as_json()
        batch = find_batch(conn, "batch").id
        total = costs(conn, [CostBy.RUN], batch=batch).total.as_record()
        held = list(uncertain_jobs(conn, batch))
        used = {budget.used for budget in period_budgets(conn, timestamp(utc_now()))}
        runs = conn.execute("SELECT sum(charged), sum(maybe + reserved) FROM runs").fetchone()
        days = conn.execute("SELECT sum(spent) FROM days").fetchone()[0]
    report: Any = report_record(morning)
    assert report["uncertain"] == [one.as_json() for one in held]
    sums = UncertainSums.of(held)
    for name, of_held in (("charged", sums.charged), ("maybe", sums.maybe)):
        assert total[name] == report["cost"][name] == found["cost"][name]
        shown = found["uncertain_sums"][name], report["uncertain_sums"][name]
        assert shown == (decimal_string(of_held),) * 2
    charged, maybe = (micros(found["cost"][name]) for name in ("charged", "maybe"))
    assert tuple(runs) == (charged, maybe)
    assert used == {charged + maybe} == {days}
    return found, report, held


def set_budgets(directory: Path) -> None:
    rig.batchgen("budget", "--day", "100", "--month", "100", "--db", "batchgen.db", cwd=directory)


def bill(endpoint: rig.Endpoint) -> int:
    return sum(row["micros"] for row in endpoint.bill())


@pytest.mark.fault("XF5", "XB1")
def test_all_sums_agree_with_the_bill(tmp_path: Path) -> None:
    switches = ("--fast-images", "--bill-drop", "0.4", "--seed", "5")
    with rig.endpoint(tmp_path / "endpoint", *switches) as endpoint:
        path = rig.manifest(
            tmp_path,
            endpoint.base_url,
            [f"image {number}" for number in range(JOBS)],
            limits='{concurrency: 8, max_waste: "0"}',
        )
        set_budgets(tmp_path)
        rig.batchgen("run", path, cwd=tmp_path, code=1)
        endpoint.wait_until_idle()
        found, _, held = views(tmp_path)
        assert micros(found["uncertain_sums"]["maybe"]) == len(held) * rig.PRICE
        assert len(held) >= 2

        output(tmp_path, "reconcile", "batch", "--settle", "0")
        found, report, held = views(tmp_path)
        assert micros(found["cost"]["charged"]) == bill(endpoint) == JOBS * rig.PRICE
        lost = rounded_dollars(len(held) * rig.PRICE)
        text = rig.batchgen("report", "batch", cwd=tmp_path).stdout
        assert f"{len(held)} charged and lost ({lost})" in text
        assert f"batchgen retry batch --uncertain rebuys them for {lost}" in text
        assert report["next"].startswith("batchgen retry batch --uncertain"), "nothing is unsettled"

        answered = [row["request_id"] for row in endpoint.bill() if row["status"] == 200]
        endpoint.judge("refund", {"request_id": answered[0], "dollars": "0.01"})
        endpoint.judge("refund", {"request_id": answered[1]})
        settled = output(tmp_path, "reconcile", "batch", "--settle", "0")
        assert sorted(one["refunded"] for one in settled["corrected"]) == ["0.010000", "0.037700"]
        views(tmp_path)

        endpoint.judge("faults", {})
        rig.batchgen("retry", "batch", "--uncertain", cwd=tmp_path)
        rig.batchgen("resume", "batch", cwd=tmp_path)
        found, _, held = views(tmp_path)
        assert (found["jobs"]["done"], held) == (JOBS, [])
        assert micros(found["cost"]["charged"]) == bill(endpoint)
        again = output(tmp_path, "reconcile", "batch", "--settle", "0")
        assert (again["billed"], again["unbilled"], again["corrected"]) == ([], [], [])
        assert views(tmp_path)[0] == found
        rig.judge(tmp_path, endpoint.bill(), finished=True)


@pytest.mark.fault("XB1")
def test_failed_videos_that_are_refunded_cost_nothing(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "endpoint", "--fast-images", "--task-fail", "1") as endpoint:
        path = rig.manifest(
            tmp_path,
            endpoint.base_url,
            ["a wave", "a cloud"],
            limits='{concurrency: 2, max_waste: "0", poll: 1}',
            options="{duration: 4}",
            extra="model: veo-3.1-fast\n",
        )
        set_budgets(tmp_path)
        rig.batchgen("run", path, cwd=tmp_path, code=1)
        assert bill(endpoint) == 0
        found = output(tmp_path, "reconcile", "batch", "--settle", "0")
        assert (len(found["unbilled"]), found["agrees"]) == (2, True)
        assert {one["refunded"] for one in found["unbilled"]} == {"0.400000"}
        left, _, _ = views(tmp_path)
        assert (left["cost"]["charged"], left["cost"]["maybe"]) == ("0.000000", "0.000000")
        rig.judge(tmp_path, endpoint.bill(), finished=False)


def test_money_of_saved_images_is_not_lost(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "endpoint", "--fast-images") as endpoint:
        path = rig.manifest(
            tmp_path, endpoint.base_url, ["a", "b"], limits='{concurrency: 2, max_waste: "0"}'
        )
        rig.batchgen("run", path, cwd=tmp_path)
        endpoint.judge("faults", {"bill-drop": 1.0})
        rig.batchgen("run", path, "--refresh", "always", cwd=tmp_path, code=1)
        endpoint.wait_until_idle()
        sums = rig.status(tmp_path)["uncertain_sums"]
        assert (sums["charged"], sums["maybe"]) == ("0.000000", "0.075400")

        output(tmp_path, "reconcile", "batch", "--settle", "0")
        sums = rig.status(tmp_path)["uncertain_sums"]
        assert (sums["charged"], sums["maybe"]) == ("0.075400", "0.000000")
        assert micros(rig.status(tmp_path)["cost"]["charged"]) == bill(endpoint) == 4 * rig.PRICE
        text = rig.batchgen("status", "batch", cwd=tmp_path).stdout
        assert "2 charged and lost ($0.08)" in text
        done = output(tmp_path, "acknowledge", "batch")
        assert done["charged"] == "0.075400"


def test_run_without_work_shows_no_money_of_an_earlier_one(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "endpoint", "--fast-images") as endpoint:
        path = rig.manifest(tmp_path, endpoint.base_url, ["a mug", "a forbidden-word"])
        first = rig.batchgen("run", path, cwd=tmp_path, code=1).stdout
        assert "this run: estimated $0.08, charged $0.04" in first
        later = rig.batchgen("run", path, cwd=tmp_path, code=1).stdout
        assert later.startswith(
            "batch: 1 of 2 jobs done; nothing to do, nothing sent, nothing paid"
        )
        assert "this run" not in later
        assert "1  blocked" in later


def test_acknowledged_jobs_let_later_nights_end_with_0(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "endpoint", "--fast-images", "--bill-drop", "1") as endpoint:
        path = rig.manifest(
            tmp_path, endpoint.base_url, ["a", "b"], limits='{concurrency: 2, max_waste: "0"}'
        )
        rig.batchgen("run", path, cwd=tmp_path, code=1)
        wrong = rig.batchgen("acknowledge", "batch", "--only", "job-01", cwd=tmp_path, code=2)
        assert "--only 'job-01' matches no job of batch; the nearest is 'job-00" in wrong.stderr
        dry = output(tmp_path, "acknowledge", "batch", "--only", "job-000", "--dry-run")
        assert dry["acknowledged"] == ["job-000"]
        assert rig.status(tmp_path)["jobs"]["uncertain"] == 2
        done = output(tmp_path, "acknowledge", "batch", "--only", "job-000", "--only", "*1")
        assert sorted(done["acknowledged"]) == ["job-000", "job-001"], "listed by the time sent"
        assert done["maybe"] == "0.075400"
        jobs = rig.status(tmp_path)["jobs"]
        assert (jobs["uncertain"], jobs["acknowledged"]) == (0, 2)
        night = rig.batchgen("run", path, cwd=tmp_path, code=0)
        assert "2  acknowledged" in night.stdout
        assert output(tmp_path, "acknowledge", "batch")["acknowledged"] == []
        assert (
            "acknowledged 20" in rig.batchgen("status", "batch", "--uncertain", cwd=tmp_path).stdout
        )

        rig.batchgen("retry", "batch", "--uncertain", "--only", "job-000", cwd=tmp_path)
        rig.batchgen("resume", "batch", cwd=tmp_path, code=1)
        jobs = rig.status(tmp_path)["jobs"]
        assert (jobs["uncertain"], jobs["acknowledged"]) == (1, 1), "the new attempt is lost too"


def test_a_notice_names_only_what_is_new(tmp_path: Path) -> None:
    extra = (
        "on_finish:\n"
        '  - {command: [sh, -c, "cat >> news.jsonl; echo >> news.jsonl"], only_if: failed}\n'
        '  - {command: [sh, -c, "cat > always.json"]}\n'
    )
    news = tmp_path / "news.jsonl"

    def notices() -> list[dict[str, Any]]:
        return [json.loads(line) for line in news.read_text(encoding="utf-8").splitlines()]

    with rig.endpoint(tmp_path / "endpoint", "--fast-images") as endpoint:
        prompts = ["a mug", "a forbidden-word"]
        path = rig.manifest(tmp_path, endpoint.base_url, prompts, extra=extra)
        rig.batchgen("run", path, cwd=tmp_path, code=1)
        (first,) = notices()
        assert (first["news"]["since_run"], first["news"]["blocked"]) == (None, 1)

        rig.batchgen("run", path, cwd=tmp_path, code=1)
        assert len(notices()) == 1, "the same list again"
        always = json.loads((tmp_path / "always.json").read_bytes())
        assert (always["news"]["since_run"], always["news"]["blocked"]) == (1, 0)
        assert (always["blocked"], always["jobs"]["blocked"]) == ([], 1)

        prompts.append("another forbidden-word")
        path = rig.manifest(tmp_path, endpoint.base_url, prompts, extra=extra)
        rig.batchgen("run", path, cwd=tmp_path, code=1)
        _, second = notices()
        named = [row["key"] for suspect in second["blocked"] for row in suspect["rows"]]
        assert (named, second["news"]["since_run"]) == (["job-002"], 1)

        rig.batchgen("run", path, "--max-cost", "0", cwd=tmp_path, code=None)
    text = rig.batchgen("report", "batch", cwd=tmp_path).stdout
    assert "new since run 1" in text
    assert "2 blocked" in text, "the report has the whole list"


OTHER = "provider: {name: other, base_url: %r, api_key_env: %s}\noptions: {size: 1024x640}\n%s"


def other(directory: Path, base_url: str, more: str = "") -> Path:
    """A manifest for a provider whose prices nothing says."""
    path = directory / "batch.yaml"
    body = OTHER % (base_url, canary.VARIABLE, more)
    path.write_text(f"{body}jobs: [a cup, a mug]\n", encoding="utf-8")
    return path


@pytest.mark.fault("XB3")
@pytest.mark.parametrize(
    ("more", "flags", "bound"),
    [
        ("limits: {max_cost: 5}\n", (), "max_cost"),
        ("", ("--max-cost", "5"), "max_cost"),
        ('limits: {max_waste: "5%"}\n', (), "max_waste"),
        ("", ("--max-waste", "0.50"), "max_waste"),
        ("", (), "the budget of a day"),
    ],
)
def test_unknown_price_is_refused_with_a_budget(
    more: str, flags: tuple[str, ...], bound: str, tmp_path: Path
) -> None:
    path = other(tmp_path, "http://127.0.0.1:9/v1", more)
    if "day" in bound:
        rig.batchgen("budget", "--day", "5", "--db", "batchgen.db", cwd=tmp_path)
    for command in ("plan", "run"):
        waste = flags if command == "run" or "--max-waste" not in flags else ()
        if command == "plan" and waste != flags:
            continue
        done = rig.batchgen(command, path, "--accept-unknown-price", *flags, cwd=tmp_path, code=2)
        assert f"the price of 2 jobs is unknown (gpt-image-2), so {bound} can't be kept" in (
            done.stderr
        )
    db = tmp_path / "batchgen.db"
    assert db.exists() == ("day" in bound)
    if db.exists():
        assert rig.query(db, "SELECT count(*) FROM batches")[0][0] == 0


@pytest.mark.fault("XB3")
def test_an_unknown_price_is_never_shown_as_zero(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "endpoint", "--fast-images") as endpoint:
        path = other(tmp_path, endpoint.base_url)
        flags = ("--accept-unknown-price", "--yes")
        done = rig.batchgen("run", path, *flags, cwd=tmp_path)
        assert "price unknown for 2 requests" in done.stdout
        for view in (["cost", "batch"], ["status", "batch"], ["report", "batch"]):
            text = rig.batchgen(*view, cwd=tmp_path).stdout
            assert "price unknown for 2 requests" in text, view
            assert "charged $0.00" not in text, view
            assert "unknown" in text
        assert rig.status(tmp_path)["cost"]["unpriced"] == 2
        assert output(tmp_path, "cost", "batch")["total"]["unpriced"] == 2

        # A budget that is set later is not broken by a job that was planned before it.
        rig.batchgen("run", other(tmp_path, endpoint.base_url, ""), *flags, cwd=tmp_path)


@pytest.mark.fault("XB3")
@pytest.mark.parametrize("more", ["", 'limits: {max_waste: "0"}\n'])
def test_an_unknown_price_is_sent_at_most_once(more: str, tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "endpoint", "--fast-images", "--bill-drop", "1") as endpoint:
        path = other(tmp_path, endpoint.base_url, more)
        rig.batchgen("run", path, "--accept-unknown-price", "--yes", cwd=tmp_path, code=1)
        assert len(endpoint.bill()) == 2
        assert rig.status(tmp_path)["jobs"]["uncertain"] == 2
