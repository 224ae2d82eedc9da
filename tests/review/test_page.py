"""The review page in Chromium: checks 1, 5, 9 to 11 and 13 to 15 of its specification."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Route, expect

from batchgen.ledger.newest_decisions import Decision
from tests.review.big import PRICE, big_batch
from tests.review.browser import Watched, memory_mb, open_page, review, tile, wait_for_decision
from tests.review.decide import decide, saved
from tests.support import rig

ALL = ("--since", "2020-01-01")
MEMORY_MB = 200
HOSTILE = (
    "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">",
    "\u202eright to left\u202c \u05d0\u05d1\u05d2",
    "line\nbreak\t'\"&amp;",
    "long " * 8_000,
)


def opened(browser: Browser, url: str, key: str = "k-00000") -> Watched:
    watched = open_page(browser, url)
    watched.page.wait_for_selector(f"{tile(watched.page, key)} img")
    return watched


@pytest.mark.timeout(600)
def test_check_01_ten_thousand_images_stay_light(browser: Browser, tmp_path: Path) -> None:
    big_batch(tmp_path, 10_000)
    with review(tmp_path) as server:
        watched = opened(browser, server.url)
        page = watched.page
        assert watched.count() == 10_000
        assert page.locator("img").count() <= 400
        page.keyboard.press("End")
        page.wait_for_selector('.tile.current[title="k-09999"] img')
        expect(page.locator(".tile:not(:has(img))")).to_have_count(0)
        assert page.locator("img").count() <= 400
        if sys.platform == "linux":  # the only one with /proc
            assert memory_mb(server.process.pid) < MEMORY_MB


def test_check_05_history_shows_the_right_images(
    browser: Browser, served: rig.Endpoint, tmp_path: Path
) -> None:
    extra = "output: {keep_previous: 2}\n"
    path = rig.manifest(tmp_path, served.base_url, ["a", "b"], extra=extra)
    rig.batchgen("run", path, cwd=tmp_path)
    old = saved(tmp_path, "job-000")
    decide(tmp_path, Decision.REJECT, "job-000", note="too dark")
    rig.batchgen("run", path, "--yes", cwd=tmp_path)
    new = saved(tmp_path, "job-000")
    with review(tmp_path, *ALL) as server:
        page = opened(browser, server.url, "job-000").page
        wait_for_decision(page, "job-000", "-")
        page.keyboard.press("Enter")
        items = page.locator(".history li")
        expect(items).to_have_count(2)
        shown = [one.get_attribute("data-sha256") for one in items.all()]
        assert shown == [new[1], old[1]]
        assert "Rejected by anna" in items.nth(1).inner_text()
        assert "too dark" in items.nth(1).inner_text()
        page.click("text=Side by side")
        images = page.locator("#stage img")
        expect(images).to_have_count(2)
        assert [one.get_attribute("data-image") for one in images.all()] == [
            str(old[0]),
            str(new[0]),
        ]
        for image in images.all():
            expect(image).to_have_js_property("complete", True)
            expect(image).not_to_have_js_property("naturalWidth", 0)
        page.click("text=Slider")
        page.locator(".slider").press("ArrowRight")
        assert page.locator(".slider").input_value() == "50.5"
        assert "50.5%" in (page.locator(".pane.over").get_attribute("style") or "")


def test_check_09_filters_combine_and_bulk_stays_inside(browser: Browser, tmp_path: Path) -> None:
    big_batch(tmp_path, 120, runs=3)
    decide(tmp_path, Decision.REJECT, *(f"k-{n:05d}" for n in range(30)))
    decide(tmp_path, Decision.ACCEPT, *(f"k-{n:05d}" for n in range(30, 40)))
    with review(tmp_path, *ALL) as server:
        page = opened(browser, server.url).page
        summary = page.locator("#summary")
        page.click("#decision-chips >> text=Rejected")
        expect(summary).to_contain_text(": 30 images")
        page.click("#decision-chips >> text=Accepted")
        expect(summary).to_contain_text(": 40 images")
        page.click("#more summary")
        page.check('input[data-kind="tags"][data-value="spring"]')
        expected = len([n for n in range(40) if n % 3 == 1])
        expect(summary).to_contain_text(f": {expected} images")
        page.check('input[data-kind="runs"][data-value="2"]')
        expect(summary).to_contain_text(f"run 2: {expected} images")
        page.check('input[data-kind="models"][data-value="nano-banana"]')
        expected = len([n for n in range(40) if n % 3 == 1 and n % 2 == 1])
        expect(summary).to_contain_text(f": {expected} images")
        page.keyboard.press("Escape")
        page.fill("#text", "photo 1")
        expected = len([n for n in (1, *range(10, 20)) if n % 3 == 1 and n % 2 == 1])
        expect(summary).to_contain_text(f": {expected} images")
        assert page.locator("#banner").is_visible()

        page.click("#clear-filter")
        page.fill("#text", "photo 5")
        expect(summary).to_contain_text("run 2: 3 images")  # 52, 55 and 58
        shown = {one.get_attribute("title") for one in page.locator(".tile").all()}
        page.click("#reject-shown")
        dialog = page.locator("#confirm-dialog")
        expect(dialog).to_contain_text("Reject 3 images?")
        expect(dialog).to_contain_text(f"${3 * PRICE / 1e6:.4f}")
        page.click("#confirm-yes")
        expect(page.locator('.tile[data-decision="r"]')).to_have_count(3)
    after = rig.query(
        tmp_path / "batchgen.db",
        "SELECT key FROM decisions JOIN jobs ON jobs.id = job_id WHERE session <> 'test'",
    )
    assert {row["key"] for row in after} == shown


def test_check_10_a_run_adds_images_without_a_jump(
    browser: Browser, served: rig.Endpoint, tmp_path: Path
) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["first"])
    rig.batchgen("run", path, cwd=tmp_path)
    rig.manifest(tmp_path, served.base_url, ["first", *(f"mug {n}" for n in range(150))])
    with review(tmp_path, *ALL) as server:
        watched = opened(browser, server.url, "job-000")
        page = watched.page
        with rig.start("run", path, "--json", cwd=tmp_path) as run:
            expect(page.locator("#summary")).not_to_contain_text(": 1 image,")
            place = page.locator(tile(page, "job-000")).bounding_box()
            page.keyboard.press("a")
            wait_for_decision(page, "job-000", "a")
            page.locator(tile(page, "job-000")).evaluate("tile => { tile.isTheSame = true; }")
            for number in (40, 80, 149):
                expect(page.locator("#summary")).to_contain_text(at_least(number))
                assert page.locator(tile(page, "job-000")).bounding_box() == place
            _, errors = run.communicate(timeout=rig.TIMEOUT_S)
        assert run.returncode == 0, errors
        assert "locked" not in errors
        expect(page.locator("#summary")).to_contain_text(": 151 images")
        assert page.locator(tile(page, "job-000")).bounding_box() == place
        assert page.locator(tile(page, "job-000")).evaluate("tile => tile.isTheSame")
        assert page.locator("#alarm").is_hidden()
        assert watched.complaints == []
    own = [row for row in served.bill() if row["idempotency_key"] in _attempts(tmp_path)]
    rig.judge(tmp_path, own, finished=True)


def at_least(images: int) -> re.Pattern[str]:
    """Match a summary of this many images or more, below 200."""
    numbers = "|".join(str(number) for number in range(images, 200))
    return re.compile(f": ({numbers}) images")


def _attempts(directory: Path) -> set[str]:
    return {row["id"] for row in rig.query(directory / "batchgen.db", "SELECT id FROM attempts")}


def test_check_11_the_last_of_two_reviewers_counts(browser: Browser, fifty: Path) -> None:
    with (
        review(fifty, *ALL, "--by", "anna") as first,
        review(fifty, *ALL, "--by", "bob") as second,
    ):
        anna = opened(browser, first.url).page
        bob = opened(browser, second.url).page
        anna.keyboard.press("a")
        wait_for_decision(bob, "k-00000", "a")
        bob.keyboard.press("x")
        wait_for_decision(anna, "k-00000", "r")
        assert anna.locator(f"{tile(anna, 'k-00000')} .by").inner_text() == "bob"
        anna.wait_for_selector(".toast >> text=k-00000: rejected by bob")
        anna.keyboard.press("u")
        anna.wait_for_selector(".toast >> text=bob has decided about this image since")
        wait_for_decision(anna, "k-00000", "r")


def test_late_event_does_not_restore_an_older_decision(browser: Browser, fifty: Path) -> None:
    with review(fifty, *ALL) as server:
        page = opened(browser, server.url).page
        (old,) = page.evaluate("fetch('/api/images?ids=1').then(found => found.json())")
        page.keyboard.press("a")
        wait_for_decision(page, "k-00000", "a")
        counts = {"accepted": 7, "rejected": 0, "undecided": 43}
        event = {"type": "decided", "rows": [old], "counts": counts}
        page.route(
            "**/api/events",
            lambda route: route.fulfill(
                content_type="text/event-stream", body=f"data: {json.dumps(event)}\n\n"
            ),
        )
        page.reload()
        expect(page.locator("#decision-chips")).to_contain_text("Accepted 7")
        wait_for_decision(page, "k-00000", "a")


def test_late_index_does_not_restore_an_older_decision(browser: Browser, fifty: Path) -> None:
    """A run adds images, and the list of them was read before a decision and arrives after it."""
    with review(fifty, *ALL) as server:
        page = opened(browser, server.url).page
        asked: list[Route] = []
        found: list[Any] = []

        def hold_the_second(route: Route) -> None:
            asked.append(route)
            if len(asked) == 2:
                found.append(route.fetch().json())
            else:
                route.continue_()

        page.route("**/api/index*", hold_the_second)
        event = json.dumps({"type": "images"})
        page.route(
            "**/api/events",
            lambda route: route.fulfill(
                content_type="text/event-stream", body=f"data: {event}\n\n"
            ),
            times=1,
        )
        page.reload()
        while not found:
            page.wait_for_timeout(20)
        page.keyboard.press("a")
        wait_for_decision(page, "k-00000", "a")
        found[0]["ids"].append(9_999)
        found[0]["decisions"] += "-"
        asked[1].fulfill(json=found[0])
        expect(page.locator("#summary")).to_contain_text("51 images")
        assert page.locator(tile(page, "k-00000")).get_attribute("data-decision") == "a"


def test_check_13_hostile_texts_are_shown_as_text(browser: Browser, fifty: Path) -> None:
    with closing(sqlite3.connect(fifty / "batchgen.db")) as conn:
        for number, text in enumerate(HOSTILE, 1):
            conn.execute("UPDATE jobs SET prompt = ? WHERE id = ?", (text, number))
            conn.execute("UPDATE jobs SET key = ? WHERE id = ?", (f"{number}{text}", number))
        conn.commit()
    for number, text in enumerate(HOSTILE, 1):
        decide(fifty, Decision.REDO, f"{number}{text}", note=text, prompt=f"{text} again")
    with review(fifty, *ALL) as server:
        watched = open_page(browser, server.url)
        page = watched.page
        page.wait_for_selector(".tile img")
        for text in HOSTILE:
            page.keyboard.press("Enter")
            assert text.split()[0] in page.locator("#single-key").inner_text()
            expect(page.locator("#info")).to_contain_text(text.strip()[:200])
            page.keyboard.press("r")
            expect(page.locator("#redo-prompt")).not_to_have_value("")
            page.keyboard.press("Escape")
            page.keyboard.press("Escape")
            page.keyboard.press("ArrowRight")
        assert page.title() == "Review: batch"
        assert watched.complaints == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_check_14_damaged_images_are_said_on_their_tiles(browser: Browser, fifty: Path) -> None:
    out = fifty / "out" / "batch"
    (out / "k-00000.png").unlink()
    cut = (out / "k-00001.png").read_bytes()[:60]
    large = io.BytesIO()
    Image.effect_noise((2_600, 1_800), 100).convert("RGB").save(large, "PNG", compress_level=0)
    dot = io.BytesIO()
    Image.new("RGB", (1, 1), "red").save(dot, "PNG")
    _replace(fifty, 1, cut, "png")
    _replace(fifty, 2, large.getvalue(), "png")
    _replace(fifty, 3, dot.getvalue(), "png")
    _replace(fifty, 4, b"\x00\x00\x00\x18ftypmp42", "mp4")
    (out / "k-00005.png").write_bytes(b"edited by a person")
    with review(fifty, *ALL) as server:
        page = opened(browser, server.url, "k-00006").page
        expect(page.locator(f"{tile(page, 'k-00000')} .note")).to_contain_text("missing")
        expect(page.locator(f"{tile(page, 'k-00001')} .note")).to_contain_text("cannot be shown")
        expect(page.locator(f"{tile(page, 'k-00004')} .note")).to_contain_text("video")
        expect(page.locator(f"{tile(page, 'k-00005')} .note")).to_contain_text("was changed")
        for key, width in (("k-00002", 320), ("k-00003", 1)):
            image = page.locator(f"{tile(page, key)} img")
            assert image.evaluate("one => one.decode().then(() => one.naturalWidth)") == width
        (fifty / "batchgen.db.thumbs").rename(fifty / "gone")
        shutil.rmtree(fifty / "gone", ignore_errors=True)
        page.context.close()
        page = open_page(browser, server.url).page  # without the first one's cache
        image = page.locator(f"{tile(page, 'k-00006')} img")
        assert image.evaluate("one => one.decode().then(() => one.naturalWidth)") == 64
        page.keyboard.press("x")
        wait_for_decision(page, "k-00000", "r")
    assert list((fifty / "batchgen.db.thumbs").rglob("*.webp"))
    assert not list((fifty / "batchgen.db.thumbs").rglob("*.part"))


def _replace(directory: Path, number: int, content: bytes, file_format: str) -> None:
    import hashlib

    path = directory / "out" / "batch" / f"k-{number:05d}.png"
    path.write_bytes(content)
    with closing(sqlite3.connect(directory / "batchgen.db")) as conn:
        conn.execute(
            "UPDATE images SET sha256 = ?, bytes = ?, format = ? WHERE path = ?",
            (hashlib.sha256(content).hexdigest(), len(content), file_format, path.name),
        )
        conn.commit()


def test_check_15_decisions_round_trip(fifty: Path, tmp_path: Path) -> None:
    decide(fifty, Decision.ACCEPT, "k-00000", "k-00001")
    decide(fifty, Decision.REJECT, "k-00002", note='x,\n"y"')
    decide(fifty, Decision.REDO, "k-00003", note="=n", prompt="- other")
    command = ("export", "batch", "--what", "decisions", "--format", "csv")
    first = rig.batchgen(*command, cwd=fifty).stdout
    assert [row["decision"] for row in csv.DictReader(io.StringIO(first))] == [
        *("accept", "accept", "reject", "redo")
    ]
    other = tmp_path / "other"
    big_batch(other, 50, runs=2)
    picks = other / "picks.csv"
    picks.write_text(first + "k-99999,x.png,,accept,,,,\n", encoding="utf-8", newline="")
    done = rig.batchgen("review", "batch", "--import", picks, "--by", "eve", cwd=other, code=1)
    assert "4 decisions of eve recorded" in done.stdout
    assert "k-99999: the batch has no such image" in done.stderr
    again = rig.batchgen("review", "batch", "--import", picks, "--by", "eve", cwd=other, code=1)
    assert "0 decisions of eve recorded, 4 recorded before" in again.stdout
    second = rig.batchgen(*command, cwd=other).stdout
    columns = ("key", "path", "sha256", "decision", "note", "prompt")
    tables = [
        [{name: row[name] for name in columns} for row in csv.DictReader(io.StringIO(text))]
        for text in (first, second)
    ]
    assert tables[0] == tables[1]
    lines = other / "decisions.jsonl"
    exported = ("export", "batch", "--what", "decisions", "-o", lines)
    rig.batchgen(*exported, cwd=other)
    done = rig.batchgen("review", "batch", "--import", lines, "--by", "eve", cwd=other)
    assert "0 decisions of eve recorded, 4 recorded before" in done.stdout


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_check_15_page_is_accessible_at_every_width(
    browser: Browser, fifty: Path, scheme: str
) -> None:
    decide(fifty, Decision.ACCEPT, "k-00000")
    decide(fifty, Decision.REJECT, "k-00001")
    decide(fifty, Decision.REDO, "k-00002", note="n")
    with review(fifty, *ALL) as server:
        for width in (1440, 1024, 390):
            watched = open_page(browser, server.url, width=width, scheme=scheme)
            page = watched.page
            page.wait_for_selector(".tile img")
            assert _faults(watched) == []
            page.keyboard.press("Enter")
            page.wait_for_selector("#info h3")
            assert _faults(watched) == []
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert watched.hosts == {"127.0.0.1"}
            assert watched.complaints == []
            page.context.close()


def _faults(watched: Watched) -> list[str]:
    """Return the violations of WCAG 2 AA that axe-core finds."""
    rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21aa"]}
    found = Axe().run(watched.page, options=rules).response
    return [
        f"{one['id']}: {json.dumps(one['nodes'][0]['html'])[:200]}" for one in found["violations"]
    ]
