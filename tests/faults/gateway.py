"""A provider of raw bytes: each request is answered with exactly what is given."""

from __future__ import annotations

import json
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread

from tests.support import rig, wire

NO_CATALOGUE = wire.response(b"no", "404 Not Found")


@dataclass
class Gateway:
    """Its scripted responses, and what it has received."""

    server: wire.Server
    reply: Callable[[int], bytes] = lambda _: b""
    """The raw response to the paid request of this number, from 0."""
    files: dict[str, list[bytes]] = field(default_factory=dict)
    """Raw responses by path, in turn; the last one is repeated."""
    posts: list[wire.Received] = field(default_factory=list)
    gets: list[wire.Received] = field(default_factory=list)

    def url(self, name: str) -> str:
        """Return the URL of a file."""
        return f"{self.server.url}/{name}"

    async def run(
        self, directory: Path, *, jobs: int = 1, code: int | None = 0, limits: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a batch of this many jobs against it, one at a time and without max_waste."""
        path = rig.manifest(
            directory,
            f"{self.server.url}/v1",
            [f"image {number}" for number in range(jobs)],
            limits=limits or '{concurrency: 1, max_waste: "0"}',
            options="{}",
        )
        run = partial(rig.batchgen, "run", path, cwd=directory, code=code)
        return await anyio.to_thread.run_sync(run)


def response(*items: dict[str, Any], status: str = "200 OK", **fields: Any) -> bytes:
    """A response with these items as ``data``."""
    body = json.dumps({"created": 1, "data": items, **fields}).encode()
    return wire.response(body, status, Content_Type="application/json")


@asynccontextmanager
async def gateway(context: ssl.SSLContext | None = None) -> AsyncIterator[Gateway]:
    """Run one on loopback."""
    made: Gateway

    async def script(connection: wire.Connection, server: wire.Server) -> None:
        request = await connection.request()
        method, path, _ = request.line.split(" ")
        if path in ("/api/pricing", "/v1/models"):
            await connection.send(NO_CATALOGUE)
        elif method == "POST":
            made.posts.append(request)
            await connection.send(made.reply(len(made.posts) - 1))
        else:
            made.gets.append(request)
            responses = made.files[path.lstrip("/")]
            await connection.send(responses.pop(0) if len(responses) > 1 else responses[0])

    async with wire.serve(script, context) as server:
        made = Gateway(server)
        yield made
