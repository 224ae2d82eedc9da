"""The comparison page of the review server, in Chromium."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from batchgen.job import JobState
from batchgen.ledger.compared import ComparedImage, JobNote
from batchgen.manifest.field_types import MatrixValue
from batchgen.planning.job_context import Cell
from batchgen.review.compared_batch import contents
from batchgen.review.comparison import arrange, common_text, usual_axes
from tests.review.big import big_batch, big_matrix
from tests.review.browser import (
    Server,
    Watched,
    memory_mb,
    open_page,
    review,
    tile,
    wait_for_decision,
)
from tests.support import canary, rig
from tests.support.terminal import Reply, at_terminal, screen

MODELS = ("gpt-image-2", "nano-banana")
VIEWS = ("front", "side")
TITLES = ("mug", "bag", "sign")
MANIFEST = """\
name: batch
provider: local
rows: t.csv
key: "{{ id }}/{{ model }}/{{ view }}"
matrix: {model: [gpt-image-2, nano-banana], view: [front, side]}
prompt: "A {{ title }}, {{ view }} view, on white"
rules: warn
jobs: [{key: alone, prompt: A window}]
"""
TABLE = "id,title\nmug,mug\nbag,linen bag\nsign,forbidden-word sign\n"
MEMORY_MB = 200


def write_matrix(directory: Path) -> None:
    (directory / "batch.yaml").write_text(MANIFEST, encoding="utf-8")
    (directory / "t.csv").write_text(TABLE, encoding="utf-8")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a batch over two models and two views; one row of jobs is blocked."""
    directory = tmp_path_factory.mktemp("made")
    write_matrix(directory)
    rig.batchgen("run", "batch.yaml", "--yes", cwd=directory, code=1)
    return directory


@pytest.fixture
def models(made: Path, tmp_path: Path) -> Path:
    """A copy of that batch which a test may change."""
    for name, content in rig.content(made).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


def opened(browser: Browser, server: Server, query: str = "", **options: object) -> Watched:
    url = server.url.replace("/#", f"/compare{query}#")
    watched = open_page(browser, url, **options)  # type: ignore[arg-type]
    watched.page.wait_for_selector(".cell .tile img")
    return watched


def cell(page: Page, row: int, column: int) -> str:
    return f"#cell-{row}-{column}"


def is_at(page: Page, row: int, column: int) -> None:
    page.wait_for_selector(f".cell.current{cell(page, row, column)}")
    expect(page.locator(".cell.current")).to_have_count(1)
    assert page.locator("#grid").get_attribute("aria-activedescendant") == f"cell-{row}-{column}"


def change(directory: Path, *statements: str) -> None:
    with closing(sqlite3.connect(directory / "batchgen.db", timeout=60)) as conn, conn:
        for statement in statements:
            conn.execute(statement)


def decisions(directory: Path) -> dict[str, str]:
    rows = rig.query(
        directory / "batchgen.db",
        "SELECT key, decision FROM decisions JOIN jobs ON jobs.id = job_id ORDER BY decisions.id",
    )
    return {row["key"]: row["decision"] for row in rows}


def test_cells_show_cost_seconds_and_decision(browser: Browser, models: Path) -> None:
    with review(models) as server:
        page = opened(browser, server).page
        heads = page.locator(".head").all_inner_texts()
        assert heads == ["gpt-image-2", "nano-banana", "front", "side", "front", "side"]
        assert page.locator(".side .text").all_inner_texts() == [
            "A mug, … view, on white",
            "A linen bag, … view, on white",
            "A forbidden-word sign, … view, on white",
        ]
        label = page.locator(f"{cell(page, 0, 0)} .label")
        assert label.inner_text().startswith("$0.0377 · ")
        expect(page.locator(f"{cell(page, 2, 3)}")).to_contain_text("blocked")
        expect(page.locator("#summary")).to_have_text(
            "all runs: 8 images, 0 decided, 1 other image outside of the matrix"
        )
        page.keyboard.press("x")
        wait_for_decision(page, "mug/gpt-image-2/front", "r")
        page.wait_for_selector(f"{cell(page, 0, 0)} .badge.reject")
        sums = page.locator(".total")
        expect(sums.nth(0)).to_contain_text("1 rejected")
        expect(sums.nth(0)).to_contain_text("mean $0.0377 · median ")
        expect(sums.nth(1)).to_contain_text("2 undecided")
        said = page.locator(cell(page, 0, 0)).get_attribute("aria-label") or ""
        assert said.startswith("gpt-image-2, front: mug/gpt-image-2/front, rejected, $0.0377, ")


def test_arrows_reach_each_cell_and_decide_nothing(browser: Browser, models: Path) -> None:
    with review(models) as server:
        page = opened(browser, server).page
        is_at(page, 0, 0)
        for key, row, column in (
            ("ArrowRight", 0, 1),
            ("ArrowDown", 1, 1),
            ("ArrowDown", 2, 1),
            ("ArrowLeft", 2, 0),
            ("ArrowLeft", 2, 0),
            ("End", 2, 3),
            ("ArrowRight", 2, 3),
            ("ArrowUp", 1, 3),
            ("Home", 0, 0),
            ("PageDown", 2, 0),
        ):
            page.keyboard.press(key)
            is_at(page, row, column)
        for key in "axrsec":
            page.evaluate("document.querySelector('#toasts').replaceChildren()")
            page.keyboard.press(key)
            page.wait_for_selector(".toast >> text=no image here")
        page.keyboard.press("Enter")
        expect(page.locator("#single")).to_be_hidden()
        page.keyboard.press("n")
        is_at(page, 0, 0)
    assert decisions(models) == {}


def test_keys_decide_undo_and_open_the_image(browser: Browser, models: Path) -> None:
    with review(models) as server:
        page = opened(browser, server).page
        page.keyboard.press("a")
        wait_for_decision(page, "mug/gpt-image-2/front", "a")
        is_at(page, 0, 1)
        page.keyboard.press("x")
        wait_for_decision(page, "mug/gpt-image-2/side", "r")
        page.keyboard.press("r")
        page.keyboard.type("too dark")
        page.keyboard.press("Enter")
        wait_for_decision(page, "mug/nano-banana/front", "o")
        page.keyboard.press("u")
        wait_for_decision(page, "mug/nano-banana/front", "-")
        is_at(page, 0, 2)
        page.keyboard.press("Enter")
        expect(page.locator("#single-key")).to_have_text("mug/nano-banana/front")
        page.keyboard.press("ArrowRight")
        expect(page.locator("#single-key")).to_have_text("mug/nano-banana/side")
        page.keyboard.press("Escape")
        is_at(page, 0, 3)
        assert page.evaluate("document.activeElement.id") == "grid"
    assert decisions(models) == {
        "mug/gpt-image-2/front": "accept",
        "mug/gpt-image-2/side": "reject",
        "mug/nano-banana/front": "clear",
    }


def test_axes_are_chosen_and_exchanged(browser: Browser, models: Path) -> None:
    with review(models) as server:
        page = opened(browser, server).page
        heads = page.locator(".head")
        page.keyboard.press("t")
        expect(heads.first).to_have_text("front")
        expect(heads).to_have_text([*VIEWS, *MODELS, *MODELS])
        page.click('[data-axis="view"]')
        expect(heads).to_have_text(list(MODELS))
        expect(page.locator(".side .others").first).to_have_text("view: front")
        expect(page.locator(".side .text").first).to_have_text("A mug, front view, on white")
        expect(page.locator('[data-axis="model"]')).to_be_disabled()
        page.click("#swap")
        expect(heads).to_have_text(list(VIEWS))
        page.reload()
        expect(heads).to_have_text(list(VIEWS))
        page.fill("#text", "linen")
        expect(page.locator(".line")).to_have_count(2)
        expect(page.locator("#banner")).to_be_visible()
        assert "axes=" in page.url


def test_states_of_jobs_are_said_in_words(browser: Browser, models: Path) -> None:
    of = "(SELECT id FROM jobs WHERE key = '{}/gpt-image-2/front')"
    change(
        models,
        f"UPDATE images SET state = 'due' WHERE job_id = {of.format('mug')}",
        "UPDATE jobs SET state = 'paid' WHERE key = 'mug/gpt-image-2/front'",
        f"UPDATE images SET state = 'lost' WHERE job_id = {of.format('bag')}",
        "UPDATE jobs SET state = 'uncertain', reason = 'timed out' WHERE key ="
        " 'bag/gpt-image-2/front'",
        "UPDATE jobs SET state = 'pending' WHERE key = 'sign/gpt-image-2/front'",
        "UPDATE jobs SET state = 'failed', reason = 'no such size' WHERE key ="
        " 'sign/gpt-image-2/side'",
    )
    with review(models) as server:
        page = opened(browser, server).page
        for row, column, text in (
            (0, 0, "paid, image not fetched yet"),
            (1, 0, "uncertain\npossibly charged $0.0377: timed out"),
            (2, 0, "not made yet"),
            (2, 1, "failed\nno such size"),
        ):
            words = page.locator(f"{cell(page, row, column)} .hole").inner_text()
            assert words.replace("\n\n", "\n").startswith(text)
        page.click("#decision-chips >> text=Accepted")
        expect(page.locator("#empty")).to_contain_text("No image passes the filter.")


def test_page_follows_another_reviewer_and_a_run(browser: Browser, models: Path) -> None:
    key = "bag/nano-banana/side"
    image = f"WHERE job_id = (SELECT id FROM jobs WHERE key = '{key}')"
    change(
        models,
        f"UPDATE images SET state = 'due' {image}",
        f"UPDATE jobs SET state = 'sending' WHERE key = '{key}'",
    )
    with review(models) as server:
        page = opened(browser, server).page
        hole = page.locator(f"{cell(page, 1, 3)} .hole")
        expect(hole).to_have_text("request in flight")
        page.click(cell(page, 1, 3))
        is_at(page, 1, 3)
        kept = ("#axis-chips button", ".head button", ".side", cell(page, 0, 1), ".tile img")
        page.evaluate(
            "all => { for (const one of all) document.querySelector(one).was = 1; }", kept
        )
        other = opened(browser, server).page
        other.keyboard.press("Home")
        other.keyboard.press("a")
        wait_for_decision(page, "mug/gpt-image-2/front", "a")
        expect(page.locator(".total").first).to_contain_text("1 accepted")
        change(models, f"UPDATE jobs SET state = 'paid' WHERE key = '{key}'")
        expect(hole).to_have_text("paid, image not fetched yet")
        assert page.evaluate("all => all.every((one) => document.querySelector(one).was)", kept)
        change(
            models,
            f"UPDATE images SET state = 'saved' {image}",
            f"UPDATE jobs SET state = 'done' WHERE key = '{key}'",
        )
        page.wait_for_selector(f'{cell(page, 1, 3)} .tile.current[title="{key}"] img')
        is_at(page, 1, 3)


@pytest.mark.timeout(600)
def test_ten_thousand_images_stay_light(browser: Browser, tmp_path: Path) -> None:
    big_matrix(tmp_path, 5_000)
    with review(tmp_path) as server:
        page = opened(browser, server).page
        expect(page.locator("#summary")).to_contain_text(": 10,000 images")
        assert page.locator("img").count() <= 400
        page.keyboard.press("End")
        page.wait_for_selector('.tile.current[title="k-09999"] img')
        assert page.locator("img").count() <= 400
        expect(page.locator(".side .source").last).to_have_text("t.csv:5001")
        page.keyboard.press("x")
        expect(page.locator(".total").nth(1)).to_contain_text("1 rejected")
        if sys.platform == "linux":  # the only one with /proc
            assert memory_mb(server.process.pid) < MEMORY_MB


def test_shift_and_arrows_select_images_of_a_column(browser: Browser, models: Path) -> None:
    with review(models) as server:
        page = opened(browser, server).page
        page.keyboard.press("Shift+ArrowDown")
        expect(page.locator("#selection-text")).to_have_text("2 images selected")
        page.keyboard.press("x")
        for title in TITLES[:2]:
            wait_for_decision(page, f"{title}/gpt-image-2/front", "r")
    assert len(decisions(models)) == 2


def test_column_is_selected_by_its_head(browser: Browser, models: Path) -> None:
    with review(models) as server:
        page = opened(browser, server, '?axes=["model"]').page
        page.click('.head button >> text="nano-banana"')
        expect(page.locator("#selection-text")).to_have_text("4 images selected")
        page.keyboard.press("x")
        for title in TITLES[:2]:
            for view in VIEWS:
                wait_for_decision(page, f"{title}/nano-banana/{view}", "r")
        expect(page.locator("#selection-bar")).to_be_hidden()
        expect(page.locator(".total").nth(1)).to_contain_text("4 rejected")
    assert len(decisions(models)) == 4


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 1024, 390])
def test_page_is_accessible_and_complete(
    browser: Browser, models: Path, width: int, scheme: str
) -> None:
    with review(models) as server:
        watched = opened(browser, server, width=width, scheme=scheme)
        page = watched.page
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert [one["id"] for one in Axe().run(page).response["violations"]] == []
        page.locator("#grid").evaluate("box => box.scrollTo(100, 150)")
        head, grid = page.locator(".head").last, page.locator("#grid")
        boxes = head.bounding_box(), grid.bounding_box()
        assert boxes[0] is not None
        assert boxes[1] is not None
        assert boxes[0]["y"] - boxes[1]["y"] < 70
        page.click(cell(page, 1, 1))
        is_at(page, 1, 1)
        page.click("#undo")
        page.wait_for_selector(".toast >> text=nothing to undo")
        refused = {"Failed to load resource: the server responded with a status of 409 (Conflict)"}
        assert set(watched.complaints) <= refused
        assert watched.hosts == {"127.0.0.1"}


def test_touch_opens_and_decides(browser: Browser, models: Path) -> None:
    with review(models) as server:
        context = browser.new_context(
            viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
        )
        page = context.new_page()
        page.goto(server.url.replace("/#", "/compare#"))
        page.wait_for_selector(".cell .tile img")
        page.tap(f"{cell(page, 0, 1)} .tile")
        is_at(page, 0, 1)
        page.tap(f"{cell(page, 0, 1)} .tile")
        expect(page.locator("#single-key")).to_have_text("mug/gpt-image-2/side")
        page.tap('.single-bar [data-do="accept"]')
        wait_for_decision(page, "mug/gpt-image-2/side", "a")
        context.close()
    assert decisions(models) == {"mug/gpt-image-2/side": "accept"}


def test_hostile_texts_are_shown_as_texts(browser: Browser, tmp_path: Path) -> None:
    hostile = "<script>document.title='owned'</script><img src=x onerror=document.title='owned'>"
    (tmp_path / "batch.yaml").write_text(
        'name: batch\nprovider: local\nmatrix:\n  style: [plain, "<b>bold</b>"]\n'
        f'prompt: "{hostile} {{{{ style }}}}"\n',
        encoding="utf-8",
    )
    rig.batchgen("run", "batch.yaml", "--yes", cwd=tmp_path)
    with review(tmp_path) as server:
        watched = opened(browser, server)
        page = watched.page
        expect(page.locator(".head").last).to_have_text("<b>bold</b>")
        assert page.locator(".side .text").inner_text().startswith(hostile)
        assert page.title() == "Comparison: batch"
        assert watched.complaints == []


def test_review_page_links_the_comparison(
    browser: Browser, models: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with review(models) as server:
        page = open_page(browser, server.url).page
        page.click(tile(page, "mug/gpt-image-2/side"))
        page.click("#comparison-link")
        is_at(page, 0, 1)
        page.click("text=Review")
        page.wait_for_selector('.tile.current[title="mug/gpt-image-2/side"]')
    directory = tmp_path_factory.mktemp("fifty")
    big_batch(directory, 50)
    with review(directory) as server:
        page = open_page(browser, server.url).page
        page.wait_for_selector(tile(page, "k-00000"))
        expect(page.locator("#comparison-link")).to_be_hidden()
        page.goto(f"{server.origin}/compare")
        expect(page.locator("#empty")).to_contain_text("the manifest has no matrix")


@pytest.mark.timeout(300)
def test_try_opens_the_comparison_of_its_sample(
    browser: Browser, served: rig.Endpoint, tmp_path: Path
) -> None:
    before = len(served.bill())
    provider = f"{{name: local, base_url: {served.base_url!r}, api_key_env: {canary.VARIABLE}}}"
    text = f"name: batch\nprovider: {provider}\nmatrix: {{model: [{', '.join(MODELS)}]}}\n"
    manifest = tmp_path / "batch.yaml"
    manifest.write_text(f"{text}jobs: [a red mug, a ship, a hat]\n", encoding="utf-8")
    env, url = screen(tmp_path)

    def look() -> str:
        opened_url = url.read_text(encoding="utf-8")
        assert "/compare#" in opened_url
        page = open_page(browser, opened_url).page
        expect(page.locator(".cell img")).to_have_count(4)
        assert page.locator(".head").all_inner_texts() == list(MODELS)
        page.keyboard.press("a")
        page.wait_for_selector('.tile[data-decision="a"][data-pending=""]')
        page.context.close()
        return "y\n"

    replies: dict[str, Reply] = {
        "Open the review page of these images? [Y/n]: ": "\n",
        "Make the other 2 images of batch too? [y/N]: ": look,
    }
    code, shown = at_terminal(
        "try", manifest, "--sample", "5", cwd=tmp_path, replies=replies, env=env
    )
    assert code == 0, shown
    assert len(served.bill()) == before + 6


def cells_of(*values: Mapping[str, MatrixValue]) -> dict[str, Cell]:
    return {
        str(number): Cell(source=f"t:{number}", values=one) for number, one in enumerate(values)
    }


def test_usual_axes_keep_the_grid_whole_and_small() -> None:
    both = cells_of(*({"a": a, "b": b} for a in range(3) for b in range(4)))
    assert usual_axes(both, ["a", "b"]) == ["a", "b"]
    large = cells_of(*({"a": a, "b": b} for a in range(3) for b in range(5)))
    assert usual_axes(large, ["a", "b"]) == ["a"]
    apart = cells_of({"a": 1}, {"a": 2}, {"b": 1})
    assert usual_axes(apart, ["a", "b"]) == ["a"]
    assert usual_axes({}, ["a"]) == ["a"]


@pytest.mark.parametrize(
    ("texts", "common"),
    [
        (["a mug"], "a mug"),
        (["a mug, red", "a mug, blue"], "a mug, …"),
        (["red mug", "blue mug"], "… mug"),
        (["a red mug on white", "a blue mug on white"], "a … mug on white"),
        (["mug", "bag"], ""),
        (["a a", "a"], "a …"),
        ([], ""),
    ],
)
def test_common_text_keeps_shared_words(texts: list[str], common: str) -> None:
    assert common_text(texts) == common


def test_contents_sum_up_columns_and_states() -> None:
    cells = {
        "a1": Cell(source="t:1", values={"m": 1}),
        "a2": Cell(source="t:1", values={"m": 2}),
        "b1": Cell(source="t:2", values={"m": 1}),
        "b2": Cell(source="t:2", values={"m": 2}),
    }
    images = [
        ComparedImage(id=n, key=key, letter=letter, cost=cost, seconds=seconds)
        for n, key, letter, cost, seconds in (
            (1, "a1", "a", 100, 1.0),
            (2, "b1", "-", 300, 9.0),
            (3, "b1", "r", 200, 2.0),
            (4, "x", "-", 5, None),
        )
    ]
    notes = {
        "a1": JobNote(state=JobState.DONE, reason="", price=100),
        "a2": JobNote(state=JobState.UNCERTAIN, reason="timed out", price=70),
        "b1": JobNote(state=JobState.DONE, reason="", price=100),
    }
    assert contents(arrange(cells, ["m"]), images, notes) == {
        "images": [[1], [], [2, 3], []],
        "decisions": "a-r",
        "states": ["d", "u", "d", ""],
        "reasons": {1: "timed out"},
        "possible": {1: 70},
        "totals": [
            {"images": 3, "cost": 200, "seconds": 2.0},
            {"images": 0, "cost": None, "seconds": None},
        ],
        "outside": 1,
    }
