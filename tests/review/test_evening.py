"""A whole evening of a designer with a list of fifty prompts, in five commands."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.review.browser import open_page, review
from tests.support import canary, rig
from tests.support.terminal import Reply, at_terminal, screen

THINGS = ("mug", "tote bag", "oak chair", "desk lamp", "wool scarf")
PLACES = ("on white", "on slate", "by a window", "in a garden", "at night")
STYLES = ("studio photo", "watercolor")


def write_list(directory: Path, base_url: str) -> list[str]:
    """Write the list, and return its prompts."""
    prompts = [
        f"{style} of a {thing} {place}" for style in STYLES for thing in THINGS for place in PLACES
    ]
    provider = f"{{name: local, base_url: {base_url!r}, api_key_env: {canary.VARIABLE}}}"
    jobs = "".join(f"  - {prompt}\n" for prompt in prompts)
    (directory / "tonight.yaml").write_text(
        f"provider: {provider}\njobs:\n{jobs}", encoding="utf-8"
    )
    return prompts


def ready(browser: Browser, url: str, images: int) -> Page:
    page = open_page(browser, url).page
    expect(page.locator("#summary")).to_contain_text(f": {counted(images)}, ")
    page.wait_for_selector(".tile[title] img")
    return page


def counted(images: int) -> str:
    return "1 image" if images == 1 else f"{images} images"


def decided(page: Page, images: int) -> None:
    expect(page.locator("#summary")).to_contain_text(f", {images} decided")
    expect(page.locator('.tile[data-pending="yes"]')).to_have_count(0)


@pytest.mark.timeout(600)
def test_whole_evening_takes_five_commands(
    browser: Browser, served: rig.Endpoint, tmp_path: Path
) -> None:
    before = len(served.bill())
    prompts = write_list(tmp_path, served.base_url)
    assert len(prompts) == 50
    env, url = screen(tmp_path)

    def look_at_the_sample() -> str:
        page = ready(browser, url.read_text(encoding="utf-8"), 3)
        for key in ("a", "a", "x"):
            page.keyboard.press(key)
        decided(page, 3)
        page.context.close()
        return "y\n"

    # 1. Try three images, reject one of them, and go on.
    replies: dict[str, Reply] = {
        "Open the review page of these images? [Y/n]: ": "\n",
        "Make the other 47 images of tonight too? [y/N]: ": look_at_the_sample,
    }
    code, shown = at_terminal("try", "tonight.yaml", cwd=tmp_path, replies=replies, env=env)
    assert code == 0, shown
    assert "1  rejected in review, to be regenerated" in shown
    assert "50 of 50 jobs done" in shown, shown
    assert len(served.bill()) == before + 3 + 48

    # 2. Look at what was made: five are rejected, two get another prompt, the others are fine.
    with review(tmp_path, name="tonight") as server:
        page = ready(browser, server.url, 48)
        for _ in range(5):
            page.keyboard.press("x")
        for words in ("seen from above", "with a red ribbon"):
            page.keyboard.press("r")
            prompt = page.locator("#redo-prompt")
            expect(prompt).not_to_have_value("")
            prompt.fill(f"{prompt.input_value()}, {words}")
            prompt.press("Enter")
            expect(page.locator("#redo-dialog")).to_be_hidden()
        decided(page, 7)
        expect(page.locator("#basket-text")).to_contain_text("7")
        page.click("#decision-chips >> text=Undecided")
        page.click("#accept-shown")
        page.click("#confirm-yes")
        page.click("#clear-filter")
        decided(page, 48)
        page.context.close()

    # 3. Make the seven again.
    done = rig.batchgen("run", "tonight.yaml", cwd=tmp_path)
    assert "5  rejected in review, to be regenerated" in done.stderr
    assert "2  redo requested with another prompt" in done.stderr
    bill = served.bill()[before + 51 :]
    assert len(bill) == 7
    assert sum("seen from above" in row["prompt"] for row in bill) == 1
    assert sum("with a red ribbon" in row["prompt"] for row in bill) == 1

    # 4. All seven are fine now.
    with review(tmp_path, name="tonight") as server:
        page = ready(browser, server.url, 7)
        for _ in range(7):
            page.keyboard.press("a")
        decided(page, 7)
        page.context.close()

    # 5. A page for the client.
    done = rig.batchgen("gallery", "tonight", "--decision", "accept", cwd=tmp_path)
    assert done.stdout == "gallery-tonight/index.html: 50 images\n"
    assert len(list((tmp_path / "gallery-tonight/thumbs").iterdir())) == 50
    assert "nothing to send" in rig.batchgen("plan", "tonight.yaml", cwd=tmp_path).stdout
