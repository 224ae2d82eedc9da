"""Time the review page: ``python -m tests.review.measure``.

Prints the first screen of 10,000 images (cold and warm), the End key, images in the document, the
memory of the server, the time from a key to its badge next to a run, and the rate that a run loses
to open pages.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from tests.review.big import big_batch
from tests.review.browser import launch, memory_mb, open_page, review, tile
from tests.support import rig

IMAGES = 10_000
RATE_PER_MINUTE = 500
RUN_IMAGES = 250


def _first_screen(browser: Browser, url: str) -> tuple[Page, float]:
    began = time.perf_counter()
    page = open_page(browser, url).page
    page.wait_for_selector(".tile img")
    filled = (
        "() => { const box = document.querySelector('#grid').getBoundingClientRect();"
        " return [...document.querySelectorAll('.tile')].every(one => {"
        " const at = one.getBoundingClientRect();"
        " return at.bottom < box.top || at.top > box.bottom"
        " || one.querySelector('img')?.naturalWidth > 0; }); }"
    )
    while not page.evaluate(filled):
        pass
    return page, time.perf_counter() - began


def large(browser: Browser) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        big_batch(directory, IMAGES)
        began = time.perf_counter()
        with review(directory) as server:
            print(f"server is ready after {time.perf_counter() - began:.2f} s")
            page, seconds = _first_screen(browser, server.url)
            print(f"first screen, cold: {seconds:.2f} s")
            page.context.close()
            page, seconds = _first_screen(browser, server.url)
            print(f"first screen, warm: {seconds:.2f} s; {page.locator('img').count()} images")
            began = time.perf_counter()
            page.keyboard.press("End")
            page.wait_for_selector(f"{tile(page, f'k-{IMAGES - 1:05d}')} img")
            print(f"End key: {time.perf_counter() - began:.2f} s")
            print(f"server: {memory_mb(server.process.pid):.0f} MB")


def _run(directory: Path, base_url: str) -> rig.Started:
    limits = f"{{concurrency: 32, requests_per_minute: {RATE_PER_MINUTE}, burst: 10}}"
    prompts = [f"mug {n}" for n in range(RUN_IMAGES)]
    path = rig.manifest(directory, base_url, prompts, limits=limits)
    return rig.start("run", path, "--yes", cwd=directory)


def beside_a_run(browser: Browser, pages: int) -> None:
    with (
        tempfile.TemporaryDirectory() as name,
        rig.endpoint(Path(name) / "endpoint", "--fast-images") as endpoint,
    ):
        directory = Path(name) / "run"
        path = rig.manifest(directory, endpoint.base_url, ["mug 0"])
        rig.batchgen("run", path, cwd=directory)
        began = time.perf_counter()
        waits = list[float]()
        if pages:
            with review(directory, "--since", "2020-01-01") as server:
                page = open_page(browser, server.url).page
                page.wait_for_selector(".tile img")
                for _ in range(pages - 1):
                    open_page(browser, server.url.replace("/#", "/run#"))
                began = time.perf_counter()
                with _run(directory, endpoint.base_url) as process:
                    while process.poll() is None:
                        key = "a" if len(waits) % 2 else "x"
                        pressed = time.perf_counter()
                        page.keyboard.press("Home")
                        page.keyboard.press(key)
                        letter = "a" if key == "a" else "r"
                        page.wait_for_selector(
                            f'{tile(page, "job-000")}[data-decision="{letter}"][data-pending=""]'
                        )
                        waits.append(time.perf_counter() - pressed)
        else:
            with _run(directory, endpoint.base_url) as process:
                process.wait()
        took = time.perf_counter() - began
        assert process.returncode == 0, process.returncode
        print(f"{pages} pages: {RUN_IMAGES / took * 60:.0f} images a minute")
        if waits:
            worst = sorted(waits)[int(len(waits) * 0.95)]
            print(f"  key to badge: {statistics.median(waits):.3f} s, 95 % below {worst:.3f} s")


def main() -> None:
    """Print all figures."""
    with sync_playwright() as playwright:
        browser = launch(playwright)
        large(browser)
        for pages in (0, 1, 3):
            beside_a_run(browser, pages)
        browser.close()


if __name__ == "__main__":
    main()
