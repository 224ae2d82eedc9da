"""Provide the browser of the review tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.review.big import big_batch
from tests.review.browser import CHROMIUM, HINT, TIMEOUT_MS, Server, launch, review

expect.set_options(timeout=TIMEOUT_MS)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start Chromium for a module: Playwright's event loop would block those of later tests."""
    if CHROMIUM is None:
        pytest.skip(HINT)
    with sync_playwright() as playwright:
        opened = launch(playwright)
        yield opened
        opened.close()


@pytest.fixture
def fifty(tmp_path: Path) -> Path:
    """A directory with a batch of fifty saved images of two runs."""
    big_batch(tmp_path, 50, runs=2)
    return tmp_path


@pytest.fixture
def served_fifty(fifty: Path) -> Iterator[Server]:
    """A review server of all fifty images."""
    with review(fifty, "--since", "2020-01-01") as server:
        yield server
