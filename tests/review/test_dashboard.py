"""The dashboard of a run: checks of its specification, in JSON, in pure curves and in Chromium."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Browser, expect

from batchgen.ledger.clock import timestamp
from batchgen.ledger.dashboard import SeenAttempt, attempts_after
from batchgen.ledger.samples import SAMPLE_EVERY_S
from batchgen.review import dashboard as module
from batchgen.review.batch import ReviewBatch, View
from batchgen.review.dashboard import Dashboard
from batchgen.review.series import MIN_SAMPLES, MOST_POINTS, Series, percentile
from batchgen.session.batch_lock import batch_lock
from batchgen.text import duration
from tests.review.big import PRICE
from tests.review.browser import Server, open_page, review
from tests.support import rig

START = datetime(2026, 11, 28, 2, 0, tzinfo=UTC)


@contextmanager
def asking(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.origin, timeout=60) as client:
        server.begin_session(client)
        yield client


def snapshot(server: Server, **query: int) -> dict[str, Any]:
    with asking(server) as client:
        found = client.get("/api/run", params=query)
        assert found.status_code == 200
        result: dict[str, Any] = found.json()
        return result


def attempts(
    number: int, every_s: float, *, seconds: float = 2.0, outcome: str = "ok"
) -> list[SeenAttempt]:
    """Attempts that end at a constant rate, the first after ``every_s``."""
    found = []
    for place in range(number):
        end = START + timedelta(seconds=every_s * (place + 1))
        begin = end - timedelta(seconds=seconds)
        found.append(SeenAttempt(place + 1, timestamp(begin), timestamp(end), outcome, PRICE, None))
    return found


def followed(found: list[SeenAttempt]) -> Series:
    series = Series(timestamp(START))
    series.follow(lambda last: [one for one in found if one.rowid > last][:5_000], lambda _: [])
    return series


def test_check_01_figures_equal_status_and_cost(served: rig.Endpoint, tmp_path: Path) -> None:
    prompts = ["a", "b", "forbidden-word c"]
    path = rig.manifest(tmp_path, served.base_url, prompts)
    rig.batchgen("run", path, "--max-cost", "1", cwd=tmp_path, code=1)
    with review(tmp_path) as server:
        found = snapshot(server)
    assert found["status"].items() <= rig.status(tmp_path).items()
    cost = json.loads(rig.batchgen("cost", "batch", "--by", "run", "--json", cwd=tmp_path).stdout)
    assert found["run"]["charged"] == cost["total"]["charged"]
    assert found["run"]["max_cost"] == "1.000000"
    assert found["curves"]["cost"][-1] == 2 * rig.PRICE
    assert [one["key"] for one in found["failures"]] == ["job-002"]
    assert len(found["images"]) == 2


def test_check_03_states_are_distinguished_by_the_lock(tuned: rig.Endpoint, tmp_path: Path) -> None:
    tuned.judge("faults", {"latency": 60})
    path = rig.manifest(tmp_path, tuned.base_url, ["a", "b"])
    rig.batchgen("check", path, cwd=tmp_path)
    with rig.start("run", path, cwd=tmp_path) as run:
        rig.wait_for(tmp_path, "SELECT 1 FROM attempts", run)
        with review(tmp_path, "--since", "2020-01-01") as server:
            found = snapshot(server)
            assert found["state"]["name"] == "running"
            assert f"pid {run.pid}" in found["state"]["owner"]
            assert found["left"] is None, "no time left without a rate"
            with closing(sqlite3.connect(tmp_path / "batchgen.db", timeout=rig.TIMEOUT_S)) as conn:
                conn.execute(
                    "INSERT INTO samples VALUES (1, ?, 0, 2, 8, 'cool-down after http_429: 20 s',"
                    " 0)",
                    (timestamp(datetime.now(UTC)),),
                )
                conn.commit()
            assert snapshot(server)["state"]["name"] == "waiting"
            run.send_signal(signal.SIGKILL)
            run.communicate()
            assert snapshot(server)["state"]["name"] == "killed"
            with closing(sqlite3.connect(tmp_path / "batchgen.db")) as conn:
                now = timestamp(datetime.now(UTC))
                conn.execute("UPDATE runs SET ended_at = ?, exit_code = 0", (now,))
                conn.commit()
                assert snapshot(server)["state"]["name"] == "ended"
                conn.execute("UPDATE runs SET stopped = 'budget: $1.00', exit_code = 3")
                conn.commit()
            stopped = snapshot(server)["state"]
            assert (stopped["name"], stopped["text"]) == ("stopped", "budget: $1.00")


@given(st.integers(MIN_SAMPLES, 400), st.floats(0.2, 20.0))
def test_check_04_constant_rate_is_found(number: int, every_s: float) -> None:
    now = timestamp(START + timedelta(seconds=every_s * number))
    rates = followed(attempts(number, every_s)).rates(now)
    assert rates is not None
    recent, lowest, highest = rates
    assert lowest <= recent <= highest
    if every_s * number > 60:
        assert recent == pytest.approx(60 / every_s, rel=0.2, abs=60 / 60)


@given(st.integers(0, MIN_SAMPLES - 1))
def test_check_04_few_images_give_no_rate(number: int) -> None:
    series = followed([*attempts(number, 1.0), *attempts(50, 1.0, outcome="blocked")[number:]])
    assert series.rates(timestamp(START + timedelta(seconds=60))) is None


@pytest.mark.timeout(300)
def test_check_05_a_storm_of_429_narrows_the_width(tuned: rig.Endpoint, tmp_path: Path) -> None:
    tuned.judge("faults", {"throttle": 0.6, "latency": 0.5})
    prompts = [f"mug {n}" for n in range(400)]
    path = rig.manifest(tmp_path, tuned.base_url, prompts, limits="{concurrency: 32}")
    with rig.start("run", path, cwd=tmp_path) as run, review_when_known(tmp_path) as server:
        rig.wait_for(tmp_path, "SELECT 1 FROM samples WHERE width < allowed", run)
        samples = rig.query(tmp_path / "batchgen.db", "SELECT allowed FROM samples")
        found = snapshot(server)
        assert sum(found["curves"]["throttled"]) > 0
        assert found["state"]["name"] in ("running", "waiting")
        assert found["state"]["text"], "it says why"
        assert {row["allowed"] for row in samples} == {32}
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=rig.TIMEOUT_S)


@contextmanager
def review_when_known(directory: Path) -> Iterator[Server]:
    """Start the server as soon as the ledger knows the batch."""
    rig.wait_for(directory, "SELECT 1 FROM batches")
    with review(directory) as server:
        yield server


def test_check_06_budget_is_a_line_with_its_rest(browser: Browser, fifty: Path) -> None:
    with closing(sqlite3.connect(fifty / "batchgen.db")) as conn:
        conn.execute("UPDATE runs SET max_cost = 2000000, charged = 942500, estimate = 1000000")
        conn.commit()
    with review(fifty) as server:
        assert snapshot(server)["budgets"] == [
            {"period": "run", "max_cost": "2.000000", "left": "1.057500"}
        ]
        page = open_page(browser, server.url.replace("/#", "/run#")).page
        expect(page.locator("#money-legend")).to_contain_text("budget of the run")
        expect(page.locator("#figures")).to_contain_text("run budget $1.06 left")


def test_check_07_many_attempts_make_few_points() -> None:
    found = attempts(100_000, 0.6)
    series = followed(found)
    curves = series.curves(found[-1].ended_at or "")
    for values in (curves.ok, curves.throttled, curves.other, curves.cost, curves.p50, curves.p95):
        assert len(values) <= MOST_POINTS
    assert sum(curves.ok) == 100_000
    assert curves.cost[-1] == 100_000 * PRICE
    assert curves.p50 == pytest.approx([2.0] * len(curves.p50))


def test_check_08_it_is_shown_from_a_moved_ledger(fifty: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("batchgen.db", "batch.yaml", "out"):
        shutil.move(fifty / name, moved / name)
    with review(moved) as server:
        found = snapshot(server, run=1)
        assert found["state"]["name"] == "ended"
        assert sum(found["curves"]["ok"]) == 25
        with asking(server) as client:
            image = found["images"][0]["id"]
            assert client.get(f"/thumb/{image}/320").status_code == 200
            assert client.get("/api/run", params={"run": 99}).status_code == 404


def test_check_09_two_runs_share_an_axis(browser: Browser, fifty: Path) -> None:
    with review(fifty) as server:
        page = open_page(browser, server.url.replace("/#", "/run?run=2#")).page
        expect(page.locator("#name")).to_have_text("batch, run 2")
        assert page.locator("#rate .curve.c3").count() == 0
        page.select_option("#compare", "1")
        expect(page.locator("#rate-legend")).to_contain_text("run 1")
        expect(page.locator("#rate .curve.c3")).to_have_count(1)
        expect(page.locator("#money-legend")).to_contain_text("run 1")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_check_12_state_has_a_word_and_contrast(browser: Browser, fifty: Path, scheme: str) -> None:
    with review(fifty) as server:
        for width in (1440, 390):
            watched = open_page(
                browser, server.url.replace("/#", "/run#"), width=width, scheme=scheme
            )
            page = watched.page
            expect(page.locator("#state")).to_have_text("✓ Ended")
            page.wait_for_selector("#images img")
            found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa"]}).response
            assert [one["id"] for one in found["violations"]] == []
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert watched.hosts == {"127.0.0.1"}
            assert watched.complaints == []
            page.context.close()


def test_check_14_it_continues_after_a_lost_connection(browser: Browser, fifty: Path) -> None:
    with review(fifty) as server:
        page = open_page(browser, server.url.replace("/#", "/run#")).page
        expect(page.locator("#state")).to_have_text("✓ Ended")
        page.context.set_offline(True)
        with closing(sqlite3.connect(fifty / "batchgen.db")) as conn:
            conn.execute("UPDATE runs SET stopped = 'budget: $1.00'")
            conn.commit()
        page.context.set_offline(False)
        expect(page.locator("#state")).to_have_text("■ Stopped")


def test_samples_are_recorded_every_ten_seconds(tuned: rig.Endpoint, tmp_path: Path) -> None:
    tuned.judge("faults", {"latency": 600})
    path = rig.manifest(tmp_path, tuned.base_url, ["a", "b", "c"], limits="{concurrency: 2}")
    with rig.start("run", path, cwd=tmp_path) as run:
        rig.wait_for(tmp_path, "SELECT 1 FROM samples LIMIT 1 OFFSET 1", run)
        run.kill()
        run.communicate()
    first, second = _samples(tmp_path)[:2]
    assert (first["in_flight"], first["width"], first["allowed"]) == (2, 2, 2)
    spans = [datetime.fromisoformat(row["at"]) for row in (first, second)]
    assert (spans[1] - spans[0]).total_seconds() >= SAMPLE_EVERY_S * 0.9


def _samples(directory: Path) -> list[sqlite3.Row]:
    db = directory / "batchgen.db"
    if not db.exists():
        return []
    try:
        return rig.query(db, "SELECT * FROM samples ORDER BY at")
    except sqlite3.OperationalError:  # the run is writing
        return []


@given(st.lists(st.floats(0, 1e6), min_size=1), st.integers(1, 99))
def test_percentile_is_the_least_that_covers_the_share(values: list[float], share: int) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) * 100 >= share * len(values)
    assert sum(value < found for value in values) * 100 < share * len(values)


@pytest.fixture
def batch(fifty: Path) -> Iterator[ReviewBatch]:
    opened = ReviewBatch(fifty / "batchgen.db", "batch", View(by="anna"))
    yield opened
    opened.close()


def shown(dashboard: Dashboard, run: int | None = None) -> dict[str, Any]:
    found = dashboard.snapshot(run, None)
    assert found is not None
    return found


def change(batch: ReviewBatch, sql: str) -> None:
    with closing(sqlite3.connect(batch.ledger)) as conn:
        conn.execute(sql)
        conn.commit()


def test_run_that_ends_meanwhile_was_not_killed(
    batch: ReviewBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(batch, "UPDATE runs SET ended_at = NULL WHERE id = 2")

    def end(*_: object) -> None:
        change(batch, f"UPDATE runs SET ended_at = '{timestamp(START)}' WHERE id = 2")

    monkeypatch.setattr(module, "owner_of", end)
    assert shown(Dashboard(batch))["state"]["name"] == "ended"


def test_only_the_newest_run_has_the_owner(batch: ReviewBatch) -> None:
    change(batch, "UPDATE runs SET ended_at = NULL")
    dashboard = Dashboard(batch)
    with batch_lock(batch.ledger, "batch"):
        assert shown(dashboard)["state"]["name"] == "running"
        old = shown(dashboard, 1)["state"]
    assert (old["name"], old["owner"]) == ("killed", None)
    assert old["text"] == "its process is gone; run 2 came after it"


def test_images_of_an_old_run_are_shown(batch: ReviewBatch) -> None:
    change(batch, "UPDATE attempts SET rowid = rowid + 10000 WHERE run_id = 2")
    found = shown(Dashboard(batch), 1)
    assert [one["key"] for one in found["images"]] == [f"k-{n:05d}" for n in range(48, 0, -2)]
    assert sum(found["curves"]["ok"]) == 25


def test_attempts_of_an_ended_run_are_read_once(
    batch: ReviewBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    read = attempts_after

    def counted(*args: Any) -> Any:
        reads.append(args[2:])
        return read(*args)

    monkeypatch.setattr(module, "attempts_after", counted)
    dashboard = Dashboard(batch)
    first = shown(dashboard, 1)
    assert reads == [(0, 49), (49, 49)], "no later run is searched"
    assert shown(dashboard, 1)["curves"] == first["curves"]
    assert len(reads) == 2


def test_time_left_is_about_jobs_without_an_image(
    batch: ReviewBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Series, "rates", lambda *_: (2.0, 1.0, 2.0))
    change(batch, "UPDATE runs SET ended_at = NULL WHERE id = 2")
    for state, key in (("pending", 1), ("pending", 2), ("paid", 3), ("failed", 4)):
        change(batch, f"UPDATE jobs SET state = '{state}' WHERE id = {key}")
    change(batch, "UPDATE jobs SET shares = 4 WHERE id = 2")
    with batch_lock(batch.ledger, "batch"):
        left = shown(Dashboard(batch))["left"]
    assert left == {"jobs": 1, "seconds": 30, "least": 30, "most": 60}


def test_page_writes_durations_as_the_terminal_does(browser: Browser, fifty: Path) -> None:
    seconds = [0.04, 1.7, 9.6, 42.4, 59.7, 60, 128, 3599.7, 3900, 7199.6, 4_000_000]
    with review(fifty) as server:
        page = open_page(browser, server.url.replace("/#", "/run#")).page
        shown = page.evaluate(
            "list => import('/static/js/format.js').then(one => list.map(one.duration))", seconds
        )
    assert shown == [duration(one) for one in seconds]
