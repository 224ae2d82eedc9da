"""The events of the review page: none is lost while the ledger is locked."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from starlette.requests import Request

from batchgen.ledger.newest_decisions import Decision
from batchgen.review import feed as module
from batchgen.review.batch import ReviewBatch, View
from batchgen.review.feed import Feed
from tests.review.big import big_batch
from tests.review.decide import decide


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def batch(tmp_path: Path) -> Iterator[ReviewBatch]:
    opened = ReviewBatch(big_batch(tmp_path, 3), "batch", View(by="anna"))
    yield opened
    opened.close()


def locked_once(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let one read of the feed find the ledger locked, once."""
    whole = getattr(module, name)

    def locked(*args: Any) -> Any:
        monkeypatch.setattr(module, name, whole)
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(module, name, locked)


async def first_look(feed: Feed) -> None:
    while feed._at is None:  # noqa: ASYNC110  # only a look at the ledger changes it
        await anyio.sleep(0.01)


async def decided(events: AsyncIterator[str | bytes | memoryview]) -> str:
    """Return the next event about a decision."""
    with anyio.fail_after(20):
        async for event in events:
            if "decided" in str(event):
                return str(event)
    raise AssertionError("the stream ended")


@pytest.mark.anyio
@pytest.mark.parametrize(
    "name", ["change_counter", "position", "decided_since", "image_rows", "decision_counts"]
)
async def test_event_of_a_locked_ledger_comes_later(
    batch: ReviewBatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    feed = Feed(batch)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(feed.follow)
        events = aiter((await feed.stream(Request({"type": "http"}))).body_iterator)
        assert "connected" in str(await anext(events))
        await first_look(feed)
        locked_once(monkeypatch, name)
        decide(tmp_path, Decision.ACCEPT, "k-00001")
        assert "k-00001" in await decided(events)
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_event_before_the_first_look_comes_later(batch: ReviewBatch, tmp_path: Path) -> None:
    feed = Feed(batch)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(feed.follow)
        await first_look(feed)
        decide(tmp_path, Decision.ACCEPT, "k-00001")
        events = aiter((await feed.stream(Request({"type": "http"}))).body_iterator)
        assert "k-00001" in await decided(events)
        tasks.cancel_scope.cancel()
