"""Requests through the transport below httpx, to scripted servers."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx

from batchgen.http.network import Network
from batchgen.http.session import ssl_context
from batchgen.http.transport import Resolve, StreamTransport
from tests.support import wire

Script = Callable[[wire.Connection, wire.Server], Awaitable[None]]


async def loopback(host: str) -> Sequence[str]:
    """Resolve every name to this machine."""
    return ["127.0.0.1"]


@asynccontextmanager
async def transport(
    *,
    verify: ssl.SSLContext | None = None,
    resolve: Resolve = loopback,
    keep_s: float = 0.0,
    silent_s: float = 0.0,
) -> AsyncIterator[StreamTransport]:
    """A transport as the clients make it."""
    network = Network(verify or ssl_context())
    async with StreamTransport(
        network=network, resolve=resolve, keep_s=keep_s, silent_s=silent_s
    ) as made:
        yield made


class Body(httpx.AsyncByteStream):
    """A request body of zeros in pieces."""

    def __init__(self, *sizes: int) -> None:
        self.sizes = sizes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for size in self.sizes:
            yield bytes(size)


def request(url: str, body: Body | None = None, **extensions: Any) -> httpx.Request:
    """A request with a body of known length, or none."""
    if body is None:
        return httpx.Request("GET", url, extensions=extensions)
    headers = {"Content-Length": str(sum(body.sizes))}
    return httpx.Request("POST", url, headers=headers, stream=body, extensions=extensions)


async def ask(client: StreamTransport, sent: httpx.Request) -> tuple[int, bytes]:
    """Send a request and read its response."""
    response = await client.handle_async_request(sent)
    try:
        return response.status_code, b"".join([one async for one in response.stream])  # type: ignore[union-attr]
    finally:
        await response.aclose()


def keep_alive(*responses: bytes) -> Script:
    """Respond to one request after the other on each connection."""

    async def script(connection: wire.Connection, server: wire.Server) -> None:
        for response in responses * 100:
            await wire.receive(connection, server)
            await connection.send(response)

    return script
