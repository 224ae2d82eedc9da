"""Keys of the review page: checks 2, 6, 7, 8 of its specification, in Chromium."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.review.big import big_batch
from tests.review.browser import Server, open_page, review, tile, wait_for_decision
from tests.support import rig

NEWEST = (
    "SELECT key, decision FROM decisions JOIN jobs ON jobs.id = job_id"
    " WHERE decisions.id IN (SELECT max(id) FROM decisions GROUP BY image_id)"
)


def rows(directory: Path) -> list[tuple[str, str]]:
    """Return every decision in the ledger: key and decision."""
    found = rig.query(
        directory / "batchgen.db",
        "SELECT key, decision FROM decisions JOIN jobs ON jobs.id = job_id ORDER BY decisions.id",
    )
    return [(row["key"], row["decision"]) for row in found]


def counting(directory: Path) -> dict[str, str]:
    """Return the decisions that count, without those taken back."""
    found = {row["key"]: row["decision"] for row in rig.query(directory / "batchgen.db", NEWEST)}
    return {key: decision for key, decision in found.items() if decision != "clear"}


def ready(browser: Browser, url: str) -> Page:
    page = open_page(browser, url).page
    page.wait_for_selector(tile(page, "k-00000"))
    return page


def test_check_02_decision_is_durable_at_its_badge(browser: Browser, fifty: Path) -> None:
    with review(fifty, "--since", "2020-01-01") as server:
        page = ready(browser, server.url)
        page.keyboard.press("x")
        wait_for_decision(page, "k-00000", "r")
        server.kill()
        assert rows(fifty) == [("k-00000", "reject")]
        page.keyboard.press("a")
        page.wait_for_selector("#alarm:not([hidden])")
        assert "1 decision" in page.locator("#alarm").inner_text()
    with review(fifty, "--since", "2020-01-01") as server:
        page = ready(browser, server.url)
        wait_for_decision(page, "k-00000", "r")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("images", [250, pytest.param(1_000, marks=pytest.mark.sweep)])
def test_check_02_held_key_loses_and_doubles_none(
    images: int, browser: Browser, tmp_path: Path
) -> None:
    big_batch(tmp_path, images)
    with review(tmp_path) as server:
        page = ready(browser, server.url)
        summary = page.locator("#summary")
        while f"{images:,} decided" not in summary.inner_text():
            for _ in range(50):
                page.keyboard.down("a")
        page.keyboard.up("a")
    found = rows(tmp_path)
    assert len(found) == images
    assert dict(found) == {f"k-{number:05d}": "accept" for number in range(images)}


def test_check_06_undo_takes_back_each_kind(
    browser: Browser, served_fifty: Server, fifty: Path
) -> None:
    page = ready(browser, served_fifty.url)
    page.keyboard.press("a")
    wait_for_decision(page, "k-00000", "a")
    page.keyboard.press("x")
    wait_for_decision(page, "k-00001", "r")
    page.keyboard.press("r")
    page.keyboard.type("too dark")
    page.keyboard.press("Enter")
    wait_for_decision(page, "k-00002", "o")
    page.keyboard.press("Home")
    page.keyboard.press("x")
    wait_for_decision(page, "k-00000", "r")
    for _ in range(6):
        page.keyboard.press("a")
    expect(page.locator("#summary")).to_contain_text(", 9 decided")
    assert len(counting(fifty)) == 9

    for _ in range(6):
        page.keyboard.press("u")
    expect(page.locator("#summary")).to_contain_text(", 3 decided")
    assert counting(fifty) == {"k-00000": "reject", "k-00001": "reject", "k-00002": "redo"}
    page.reload()
    page.wait_for_selector(tile(page, "k-00000"))
    for key, letter in (("k-00000", "a"), ("k-00002", "-"), ("k-00001", "-"), ("k-00000", "-")):
        page.keyboard.press("u")
        wait_for_decision(page, key, letter)
    assert counting(fifty) == {}
    page.keyboard.press("u")
    page.wait_for_selector(".toast >> text=nothing to undo")


def test_check_07_keys_are_silent_while_one_types(
    browser: Browser, served_fifty: Server, fifty: Path
) -> None:
    page = ready(browser, served_fifty.url)
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "text"
    page.keyboard.type("axru", delay=1)
    assert page.locator("#text").input_value() == "axru"
    page.locator("#text").fill("")
    page.locator("#grid").focus()
    page.keyboard.press("?")
    page.keyboard.press("a")
    page.keyboard.press("x")
    page.keyboard.press("Escape")
    page.keyboard.press("r")
    page.keyboard.type("ax")
    page.keyboard.press("Escape")
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp", "End", "Home", "PageDown"):
        page.keyboard.press(key)
    page.keyboard.press("a")
    page.wait_for_selector('.tile[data-decision="a"]')
    assert [decision for _, decision in rows(fifty)] == ["accept"]


def cursor(page: Page) -> str:
    return page.locator(".tile.current").get_attribute("title") or ""


Check = Callable[[Page], None]


def shows(selector: str) -> Check:
    def check(page: Page) -> None:
        page.wait_for_selector(selector)

    return check


def is_at(key: str) -> Check:
    def check(page: Page) -> None:
        page.wait_for_selector(f'.tile.current[title="{key}"]')

    return check


def hides(selector: str) -> Check:
    def check(page: Page) -> None:
        expect(page.locator(selector)).to_be_hidden()

    return check


def fills_the_screen(page: Page) -> None:
    expect(page.locator("html:fullscreen")).to_have_count(1)


EFFECTS: dict[str, tuple[list[str], Check]] = {
    "left": (["ArrowRight", "ArrowRight", "ArrowLeft"], is_at("k-00001")),
    "right": (["ArrowRight"], is_at("k-00001")),
    "up": (["ArrowDown", "ArrowRight", "ArrowUp"], is_at("k-00001")),
    "down": (["ArrowDown"], is_at("k-00006")),
    "left-2": (["l", "l", "h"], is_at("k-00001")),
    "right-2": (["l"], is_at("k-00001")),
    "up-2": (["j", "l", "k"], is_at("k-00001")),
    "down-2": (["j"], is_at("k-00006")),
    "home": (["End", "Home"], is_at("k-00000")),
    "end": (["End"], is_at("k-00049")),
    "page-up": (["End", "PageUp"], is_at("k-00037")),
    "page-down": (["PageDown"], is_at("k-00012")),
    "open": (["Enter"], shows("#single:not([hidden])")),
    "grid": (["Enter", "g"], hides("#single")),
    "leave": (["Enter", "Escape"], hides("#single")),
    "accept": (["a"], shows('.tile[title="k-00000"][data-decision="a"]')),
    "reject": (["x"], shows('.tile[title="k-00000"][data-decision="r"]')),
    "redo": (["r"], shows("#redo-dialog[open]")),
    "undo": (["u"], shows(".toast >> text=nothing to undo")),
    "flip": (["Enter", " "], shows('#modes [data-mode="after"][aria-pressed="true"]')),
    "compare": (["Shift+ArrowRight", "c"], shows(".compare-cell >> nth=1")),
    "zoom": (["Enter", "z"], shows('.pane[data-size="64x64"]')),
    "full": (["f"], fills_the_screen),
    "next": (["a", "Home", "n"], is_at("k-00001")),
    "filter": (["/"], shows("#text:focus")),
    "select": (["s"], shows('.tile[title="k-00000"][aria-selected="true"]')),
    "line": (["e"], shows(".toast >> text=t.csv:2")),
    "help": (["?"], shows("#keys-dialog[open]")),
}


@pytest.mark.timeout(900)
def test_check_07_each_listed_key_has_its_effect(browser: Browser, served_fifty: Server) -> None:
    page = ready(browser, served_fifty.url)
    page.keyboard.press("?")
    listed = page.locator("#keys-body [data-command]").all()
    assert {one.get_attribute("data-command") for one in listed} == EFFECTS.keys()
    for command, (pressed, check) in EFFECTS.items():
        fresh = ready(browser, served_fifty.url)
        for key in pressed:
            fresh.keyboard.press(key if key != " " else "Space")
            if key == "Enter":
                fresh.wait_for_selector("#info h3")
        try:
            check(fresh)
        except Exception as exc:
            raise AssertionError(f"{command}: {pressed} had no effect") from exc
        if command in ("accept", "reject", "next"):
            fresh.keyboard.press("u")
            fresh.wait_for_selector('.tile[title="k-00000"][data-decision="-"][data-pending=""]')
        fresh.context.close()


def test_check_07_keys_are_changed_and_kept(
    browser: Browser, served_fifty: Server, fifty: Path
) -> None:
    page = ready(browser, served_fifty.url)
    page.keyboard.press("?")
    page.click('[data-command="accept"]')
    page.keyboard.press("y")
    page.keyboard.press("Escape")
    page.reload()
    page.wait_for_selector(tile(page, "k-00000"))
    page.keyboard.press("a")
    page.keyboard.press("y")
    wait_for_decision(page, "k-00000", "a")
    assert rows(fifty) == [("k-00000", "accept")]


def test_check_08_leaving_returns_to_the_same_place(browser: Browser, tmp_path: Path) -> None:
    big_batch(tmp_path, 600)
    with review(tmp_path) as server:
        page = ready(browser, server.url)
        page.locator("#grid").evaluate("box => { box.scrollTop = 900; }")
        for _ in range(30):
            page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        page.wait_for_selector("#info h3")
        for _ in range(100):
            page.keyboard.press("ArrowRight")
        for _ in range(100):
            page.keyboard.press("ArrowLeft")
        before = page.evaluate("document.querySelector('#grid').scrollTop")
        page.keyboard.press("Escape")
        assert cursor(page) == "k-00030"
        assert page.evaluate("document.querySelector('#grid').scrollTop") == before
        assert page.evaluate("document.activeElement.id") == "grid"
        box = page.locator(".tile.current").bounding_box()
        assert box is not None
        assert 0 < box["y"] < 800

        page.click("text=Undecided")
        page.wait_for_selector("#banner:not([hidden])")
        page.keyboard.press("Enter")
        page.keyboard.press("Escape")
        assert page.locator("#banner").is_visible()
        page.reload()
        page.wait_for_selector('.tile.current[title="k-00030"]')
        assert page.locator("#banner").is_visible()


@pytest.mark.parametrize("key", ["a", "x"])
def test_advance_is_turned_off(browser: Browser, served_fifty: Server, key: str) -> None:
    page = ready(browser, served_fifty.url)
    page.locator("#advance").uncheck()
    page.locator("#grid").focus()
    page.keyboard.press(key)
    wait_for_decision(page, "k-00000", "a" if key == "a" else "r")
    assert cursor(page) == "k-00000"


def test_a_key_right_after_a_redo_opens_a_dialog_that_works(
    browser: Browser, tmp_path: Path
) -> None:
    """A busy browser handles it before the close event of the first dialog."""
    big_batch(tmp_path, 3)
    with review(tmp_path) as server:
        page = ready(browser, server.url)
        page.keyboard.press("r")
        page.fill("#redo-note", "darker")
        page.evaluate(
            """async () => {
                const press = (element, key) => element.dispatchEvent(
                    new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
                press(document.getElementById("redo-note"), "Enter");
                press(document.body, "r");
            }"""
        )
        expect(page.locator("#redo-dialog")).to_be_visible()
        page.fill("#redo-note", "brighter")
        page.press("#redo-note", "Enter")
        expect(page.locator("#redo-dialog")).to_be_hidden()
        wait_for_decision(page, "k-00000", "o")
    assert rows(tmp_path) == [("k-00000", "redo")] * 2, "a decision was lost"


def test_a_prompt_that_comes_late_is_not_that_of_the_next(browser: Browser, tmp_path: Path) -> None:
    big_batch(tmp_path, 3)
    with review(tmp_path) as server:
        page = ready(browser, server.url)
        held: list[Route] = []
        page.route("**/api/images/*", lambda route: held.append(route), times=1)
        page.keyboard.press("r")
        expect(page.locator("#redo-dialog")).to_be_visible()
        page.keyboard.press("Escape")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("r")
        prompt = page.locator("#redo-prompt")
        expect(prompt).not_to_have_value("")
        own = prompt.input_value()
        with page.expect_response("**/api/images/*"):
            held[0].fulfill(json={"own": {"prompt": "of another image"}})
        page.fill("#redo-note", "darker")  # after the page has the late prompt
        expect(prompt).to_have_value(own)
