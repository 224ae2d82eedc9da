"""A request body on its way, and how far it got."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import TypeAlias

import httpx

from batchgen.http.progress import Progress
from batchgen.http.request import Body
from batchgen.outcomes.exchange import Reach
from batchgen.system.failpoints import Point, hit

Wait: TypeAlias = Callable[[], Awaitable[object]]
"""Waits for the time to send."""


class BodyUnreadable(Exception):
    """A file of the request body cannot be read.

    An OSError would be mistaken for an error of the connection.
    """


class Upload(httpx.AsyncByteStream):
    """A request body that is never sent whole if its size has changed since it was built.

    Its first byte waits for ``wait``, after the connection is open; the head waits with it.
    """

    def __init__(self, body: Body, wait: Wait | None = None) -> None:
        self.progress = Progress(on_sent=partial(hit, Point.BODY_SENT))
        """For the transport to fill in."""
        self._body = body
        self._wait = wait
        self._has_begun = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self._has_begun = True
        if self._wait is not None:
            await self._wait()
        left = int(self._body.headers["Content-Length"])
        async with aclosing(self._body.stream()) as stream:
            while left:
                try:
                    piece = await anext(stream, None)
                except OSError as exc:
                    raise BodyUnreadable(str(exc)) from exc
                left -= len(piece or b"")
                if piece is None or left < 0:
                    raise BodyUnreadable("a file changed its size while it was sent")
                yield piece

    @property
    def reach(self) -> Reach:
        """How far the request got, with what is known now.

        Of a transport that reports nothing, only a request that was never read is known not to be
        sent.
        """
        progress = self.progress
        if not progress.is_tracked:
            return Reach.SENT if self._has_begun else Reach.NOTHING
        if progress.is_sent:
            return Reach.SENT
        return Reach.PARTIAL if progress.taken else Reach.NOTHING
