"""Responses for which ASGI has no type: streams, and connections that end too early."""

from __future__ import annotations

from contextlib import ExitStack, aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from batchgen.simulator.connection import hang_up
from batchgen.simulator.orders import EventStream, Hangup


class HangupResponse(Response):
    def __init__(self, hangup: Hangup) -> None:
        super().__init__()
        self._reset = hangup.reset

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await hang_up(scope, receive, reset=self._reset)


class TruncatedResponse(Response):
    """Announces the whole content and closes the connection after half of it."""

    def __init__(self, content: bytes, media_type: str) -> None:
        super().__init__(headers={"content-length": str(len(content))}, media_type=media_type)
        self._sent = content[: len(content) // 2]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(
            {"type": "http.response.start", "status": 200, "headers": self.raw_headers},
        )
        await send({"type": "http.response.body", "body": self._sent, "more_body": True})
        await self._end(scope, receive)

    async def _end(self, scope: Scope, receive: Receive) -> None:
        await hang_up(scope, receive, reset=False)


class StalledResponse(TruncatedResponse):
    """Announces the whole content, sends half of it, and waits until the client disconnects."""

    async def _end(self, scope: Scope, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass


class EventStreamResponse(Response):
    """Sends events as they are made, and makes them all even if the client has disconnected.

    `held` is closed after the last one.
    """

    media_type = "text/event-stream"

    def __init__(self, stream: EventStream, held: ExitStack) -> None:
        super().__init__(headers={"cache-control": "no-cache"})
        del self.headers["content-length"]
        self._stream = stream
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._held:
            await send(
                {"type": "http.response.start", "status": 200, "headers": self.raw_headers},
            )
            async with aclosing(self._stream.events) as events:
                async for event in events:
                    if isinstance(event, Hangup):
                        await hang_up(scope, receive, reset=event.reset)
                        return
                    await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
