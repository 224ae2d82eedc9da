"""Time the review page: ``python -m tests.review.measure``.

Prints the first screen of 10,000 images (cold and warm), the End key, images in the document, the
memory of the server, and the rate that a run loses to open pages: as the ratio of runs with and
without them, one after the other, since a rate alone says more about the machine. The rate is that
of the ledger, from the first request to the last saved image.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from batchgen.review.page_url import page_url
from tests.review.big import big_batch
from tests.review.browser import Server, launch, memory_mb, open_page, review, tile
from tests.support import rig

IMAGES = 10_000


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A run, and the pages that are open next to it."""

    name: str
    rate: int
    """Images a minute that the run may make."""
    images: int = 250
    decides: bool = False
    """Whether somebody decides on the review page all the time."""
    dashboards: int
    waits: list[float] = field(default_factory=list)
    """Seconds from a key to its badge."""


_SECONDS = (
    "SELECT (julianday(max(saved_at)) - julianday(min(attempts.started_at))) * 86400 AS seconds"
    " FROM attempts JOIN images ON images.attempt_id = attempts.id"
    " WHERE run_id = (SELECT max(id) FROM runs)"
)


def _run(directory: Path, base_url: str, scene: Scene) -> rig.Started:
    limits = f"{{concurrency: 32, requests_per_minute: {scene.rate}, burst: 10}}"
    prompts = [f"mug {n}" for n in range(scene.images + 1)]
    path = rig.manifest(directory, base_url, prompts, limits=limits)
    return rig.start("run", path, "--yes", cwd=directory)


def _watch(browser: Browser, server: Server, dashboards: int, *, decides: bool) -> Page | None:
    """Open dashboards, and the review page if somebody decides on it."""
    page = None
    if decides:
        page = open_page(browser, server.url).page
        page.wait_for_selector(".tile img")
    for _ in range(dashboards):
        watched = open_page(browser, page_url(server.url, "run")).page
        watched.wait_for_selector("#state:not(:empty)")
    return page


def _decide(page: Page, waits: list[float]) -> None:
    """Press a key and wait for the badge of its decision."""
    key, letter = ("a", "a") if len(waits) % 2 else ("x", "r")
    pressed = time.perf_counter()
    page.keyboard.press("Home")
    page.keyboard.press(key)
    page.wait_for_selector(f'{tile(page, "job-000")}[data-decision="{letter}"][data-pending=""]')
    waits.append(time.perf_counter() - pressed)


def _rate(browser: Browser, scene: Scene, *, pages: bool) -> float:
    """Run images next to open pages or alone; return the images per minute of the run."""
    with (
        tempfile.TemporaryDirectory() as name,
        rig.endpoint(Path(name) / "endpoint", "--fast-images") as endpoint,
    ):
        directory = Path(name) / "run"
        path = rig.manifest(directory, endpoint.base_url, ["mug 0"])
        rig.batchgen("run", path, cwd=directory)
        if not pages:
            with _run(directory, endpoint.base_url, scene) as process:
                process.wait()
        else:
            with review(directory, "--since", "2020-01-01") as server:
                page = _watch(browser, server, scene.dashboards, decides=scene.decides)
                with _run(directory, endpoint.base_url, scene) as process:
                    while process.poll() is None:
                        if page is not None:
                            _decide(page, scene.waits)
                        else:
                            time.sleep(0.2)
            for context in browser.contexts:
                context.close()
        assert process.returncode == 0, process.returncode
        seconds = rig.query(directory / "batchgen.db", _SECONDS)[0]["seconds"]
        return float(scene.images / seconds * 60)


def lost_rate(browser: Browser, scene: Scene, rounds: int) -> None:
    """Compare runs with and without open pages, one after the other, in alternating order."""
    ratios = []
    for number in range(rounds):
        order = (False, True) if number % 2 else (True, False)
        rates = {pages: _rate(browser, scene, pages=pages) for pages in order}
        ratios.append(rates[True] / rates[False])
        print(
            f"{scene.name}: alone {rates[False]:.0f}, next to pages {rates[True]:.0f} images a"
            f" minute; ratio {ratios[-1]:.3f}",
            flush=True,
        )
    lost = 100 * (1 - statistics.median(ratios))
    print(f"{scene.name}: {lost:.1f} % lost (median; ratios {min(ratios):.3f}-{max(ratios):.3f})")
    if scene.waits:
        worst = sorted(scene.waits)[int(len(scene.waits) * 0.95)]
        middle = statistics.median(scene.waits)
        print(f"  key to badge: {middle:.3f} s, 95 % below {worst:.3f} s")


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="pairs of runs for each lost rate")
    parser.add_argument("--only-rates", action="store_true", help="leave out the large batch")
    given = parser.parse_args()
    with sync_playwright() as playwright:
        browser = launch(playwright)
        if not given.only_rates:
            large(browser)
        for scene in (
            Scene(name="review page and two dashboards", rate=500, decides=True, dashboards=2),
            Scene(name="three dashboards", rate=1_000, dashboards=3, images=500),
        ):
            lost_rate(browser, scene, given.rounds)
        browser.close()


if __name__ == "__main__":
    main()
