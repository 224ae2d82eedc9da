"""Server-sent events: what changed in the ledger, by this page, another one or a run."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any, Final

import anyio
from anyio.streams.memory import MemoryObjectSendStream
from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import StreamingResponse

from batchgen.ledger.dashboard import change_counter
from batchgen.ledger.decisions import decision_counts
from batchgen.ledger.review import image_rows
from batchgen.ledger.review_summary import Position, decided_since, position
from batchgen.review.batch import ReviewBatch

_EVERY_S: Final = 0.5
_ALIVE_S: Final = 10.0
_QUEUED: Final = 64
"""A page that lags so far is cut off; it connects again and reads everything again."""


class Feed:
    """Follows the ledger once for all open pages."""

    def __init__(self, batch: ReviewBatch) -> None:
        self._batch = batch
        self._pages = set[MemoryObjectSendStream[str]]()
        self._at: Position | None = None
        self._counter = 0

    async def follow(self) -> None:
        """Look at the ledger until cancelled.

        While no page is open, the first look alone is taken: what a page misses between its first
        read and its connection comes after that position.
        """
        while True:
            if self._pages or self._at is None:
                # Locked: the next look sees the same change.
                with suppress(sqlite3.OperationalError):
                    for event in await run_sync(self._changes):
                        self._send(event)
            await anyio.sleep(_EVERY_S)

    def _changes(self) -> list[dict[str, Any]]:
        """Return what changed since the last look that could read everything."""
        batch, before = self._batch, self._at
        counter = batch.read(change_counter)
        if before is not None and counter == self._counter:
            return []
        now = batch.read(position, batch.id)
        events = [] if before is None else self._between(before, now)
        self._counter, self._at = counter, now
        return events

    def _between(self, before: Position, now: Position) -> list[dict[str, Any]]:
        batch = self._batch
        events: list[dict[str, Any]] = [{"type": "changed"}]
        if now.decision != before.decision:
            images = batch.read(decided_since, batch.id, before.decision)
            events.append(
                {
                    "type": "decided",
                    "rows": batch.read(image_rows, batch.id, images),
                    "counts": asdict(batch.read(decision_counts, batch.id)),
                }
            )
        if replace(now, decision=before.decision) != before:
            events.append({"type": "images", "saved": now.saved})
        return events

    def _send(self, event: dict[str, Any]) -> None:
        text = f"data: {json.dumps(event)}\n\n"
        for page in list(self._pages):
            try:
                page.send_nowait(text)
            except (anyio.WouldBlock, anyio.BrokenResourceError):
                self._pages.discard(page)
                page.close()

    async def stream(self, request: Request) -> StreamingResponse:
        """Return the events of one page."""
        return StreamingResponse(
            self._events(), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )

    async def _events(self) -> AsyncIterator[str]:
        send, receive = anyio.create_memory_object_stream[str](_QUEUED)
        self._pages.add(send)
        try:
            yield 'retry: 1000\ndata: {"type": "connected"}\n\n'
            while True:
                text = ": alive\n\n"
                with anyio.move_on_after(_ALIVE_S):
                    text = await receive.receive()
                yield text
        except anyio.EndOfStream:
            return
        finally:
            self._pages.discard(send)
            send.close()
            receive.close()
