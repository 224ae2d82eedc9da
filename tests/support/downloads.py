"""Download from a server that serves a table of paths."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from batchgen.http.deadlines import Deadlines
from batchgen.http.download import Downloader, Validators
from batchgen.http.network import Access, Network
from batchgen.outcomes.download_policy import FetchResult
from batchgen.system.atomic_files import PartFile
from tests.support import wire

IMAGE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 5000

Script = Callable[[wire.Connection, wire.Server], Awaitable[None]]
Routes = Mapping[str, bytes]


async def fetch(client: Downloader, url: str, file: Path) -> FetchResult | None:
    """Download into the part of a file, and keep what came."""
    async with PartFile(file, keep=True) as part:
        result = await client.fetch(url, part)
        if result is None:
            await part.commit()
        return result


def routes(responses: Routes) -> Script:
    """A server that knows some paths, and keeps its connections open."""

    async def script(connection: wire.Connection, server: wire.Server) -> None:
        while True:
            request = await wire.receive(connection, server)
            path = request.line.split()[1]
            await connection.send(responses.get(path, wire.response(b"no", "404 Not Found")))

    return script


@asynccontextmanager
async def downloader(
    verify: ssl.SSLContext, *, allow_loopback: bool = True, deadlines: Deadlines | None = None
) -> AsyncIterator[Downloader]:
    """A downloader as a run makes it."""
    async with Downloader(
        network=Network(verify),
        deadlines=deadlines or Deadlines(),
        access=Access(allow_loopback=allow_loopback),
    ) as made:
        yield made


async def fetch_once(
    script: Script, verify: ssl.SSLContext, file: Path, path: str = "/1.png"
) -> tuple[FetchResult | None, wire.Server]:
    """One download from a server that follows the script."""
    async with wire.serve(script) as server, downloader(verify) as client:
        return await fetch(client, server.url + path, file), server


def resolving(monkeypatch: pytest.MonkeyPatch, names: Mapping[str, list[str]]) -> list[str]:
    """Resolve names to IP addresses, as no real name service does here; record the requests."""
    asked: list[str] = []

    def getaddrinfo(name: str, port: object, **_: object) -> list[object]:
        asked.append(name)
        if name not in names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(0, 0, 0, "", (ip, 0)) for ip in names[name]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def conditional(etag: str, **headers: str) -> Script:
    """A server that returns 304 to a client that knows the tag."""

    async def script(connection: wire.Connection, server: wire.Server) -> None:
        while True:
            request = await wire.receive(connection, server)
            if request.headers.get("if-none-match") == etag:
                await connection.send(b"HTTP/1.1 304 Not Modified\r\n\r\n")
            else:
                await connection.send(wire.response(IMAGE, ETag=etag, **headers))

    return script


async def fetch_changed(
    client: Downloader, url: str, file: Path, known: Validators
) -> Validators | FetchResult:
    async with PartFile(file, keep=True) as part:
        return await client.fetch_changed(url, part, known)
