"""Download from a server that serves a table of paths."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from batchgen.http.download import Downloader
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
