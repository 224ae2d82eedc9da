"""A real Chromium on the review server of a real ledger."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Page, Playwright

from tests.support import rig

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
HINT = "needs Chromium: apt-get install chromium"
TIMEOUT_MS = 60_000


def launch(playwright: Playwright) -> Browser:
    """Start the installed Chromium, or skip with a hint how to get it."""
    if CHROMIUM is None:
        pytest.skip(HINT)
    return playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@dataclass
class Server:
    """A running `batchgen review`."""

    url: str
    process: rig.Started

    @property
    def origin(self) -> str:
        return self.url.partition("/#")[0]

    @property
    def host(self) -> str:
        return self.origin.removeprefix("http://")

    def begin_session(self, client: httpx.Client) -> httpx.Response:
        """Exchange the token of the link for the cookie, as the page does."""
        made = client.post(
            "/api/session", json={"token": self.token}, headers={"Origin": self.origin}
        )
        assert made.status_code == 200
        return made

    @property
    def token(self) -> str:
        return self.url.partition("#")[2]

    def kill(self) -> None:
        """Kill it as the system would."""
        self.process.kill()
        self.process.wait(20)


@contextmanager
def review(
    directory: Path, *flags: str, name: str = "batch", env: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Start `batchgen review` in a directory; it is interrupted at the end."""
    command = ["review", name, "--no-open", *flags]
    if "--by" not in flags:
        command += ["--by", "anna"]
    with rig.start(*command, cwd=directory, env=env, inherits_stderr=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "http://127.0.0.1:" in line, line
        server = Server(line.strip().rpartition(" ")[2], process)
        try:
            yield server
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(20)


@dataclass
class Watched:
    """A page with everything that it requested and complained about."""

    page: Page
    hosts: set[str] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)

    def count(self) -> int:
        """Return the number of images of the view."""
        text = self.page.locator("#summary").inner_text()
        return int(text.partition(": ")[2].partition(" ")[0].replace(",", ""))


def open_page(
    browser: Browser,
    url: str,
    *,
    width: int = 1280,
    height: int = 800,
    scheme: str = "light",
) -> Watched:
    """Open a URL in a context of its own."""
    watched = empty_page(browser, width=width, height=height, scheme=scheme)
    watched.page.goto(url)
    return watched


def empty_page(
    browser: Browser, *, width: int = 1280, height: int = 800, scheme: str = "light"
) -> Watched:
    """Open a tab in a context of its own."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()
    watched = Watched(page)
    page.on("request", lambda request: watched.hosts.add(urlsplit(request.url).hostname or ""))
    page.on("pageerror", lambda error: watched.complaints.append(str(error)))
    page.on(
        "console",
        lambda message: (
            watched.complaints.append(message.text) if message.type == "error" else None
        ),
    )
    return watched


def tile(page: Page, key: str) -> str:
    """Return the selector of the tile of a job."""
    return f'.tile[title="{key}"]'


def wait_for_decision(page: Page, key: str, letter: str) -> None:
    """Wait until a tile shows a decision that the server has confirmed."""
    page.wait_for_selector(f'{tile(page, key)}[data-decision="{letter}"][data-pending=""]')


def memory_mb(pid: int) -> float:
    """Return the resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
