"""A request body in flight, which knows how much of it the connection has taken."""

from __future__ import annotations

import asyncio
from typing import Self

from batchgen.http.request import Body
from batchgen.outcomes.exchange import Reach
from batchgen.system.failpoints import Point, hit


class BodyUnreadable(Exception):
    """A file of the request body cannot be read.

    An OSError would be mistaken for an error of the connection.
    """


class Upload:
    """Iterate over a request body and record how far the connection got."""

    def __init__(self, body: Body) -> None:
        self.reach = Reach.NOTHING
        self._left = int(body.headers["Content-Length"])
        self._stream = body.stream()
        self._turn = asyncio.Lock()
        self._cut_off = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """Return the next chunk; aiohttp requests it after it has handed over the previous one."""
        async with self._turn:
            if self.reach is Reach.PARTIAL and self._left == 0:
                await self._stream.aclose()
                self.reach = Reach.SENT
                hit(Point.BODY_SENT)
            if self.reach is Reach.SENT:
                raise StopAsyncIteration
            try:
                piece = await anext(self._stream, None)
            except OSError as exc:
                raise BodyUnreadable(str(exc)) from exc
            if piece is None or len(piece) > self._left:
                raise BodyUnreadable("a file changed its size while it was sent")
            self._left -= len(piece)
            self.reach = Reach.PARTIAL
            return piece

    def cut_off(self) -> None:
        """Record that we cancelled: a closing connection may still send what it has buffered."""
        self._cut_off = True

    async def aclose(self) -> None:
        """Close the body's files after a pending read has ended."""
        async with self._turn:
            await self._stream.aclose()
            if self._cut_off and self.reach is Reach.PARTIAL and self._left == 0:
                self.reach = Reach.SENT
