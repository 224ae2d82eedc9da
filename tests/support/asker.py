"""Send single requests through the API client to a scripted server."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from batchgen.http.client import ApiClient
from batchgen.http.deadlines import Deadlines
from batchgen.http.network import Network
from batchgen.http.request import ApiRequest, Body, BytesBody
from batchgen.job import AttemptId, Outcome
from batchgen.outcomes.classify import Exchange, classify
from batchgen.spool.response_file import SpooledResponse
from batchgen.spool.spool import Spool
from batchgen.system.atomic_files import PartFile
from tests.support import wire
from tests.support.canary import CANARY as KEY

ATTEMPT = AttemptId("a1")
GOOD = b'{"created":1,"data":[{"url":"https://images.example/1.png"}]}'


Script = Callable[[wire.Connection, wire.Server], Awaitable[None]]


@dataclass
class Asker:
    """A client and a spool, for one request after another."""

    api: ApiClient
    spool: Spool

    async def ask(
        self,
        url: str,
        body: Body | None = None,
        *,
        attempt: AttemptId = ATTEMPT,
        part: PartFile | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Exchange:
        """Send one request."""
        request = ApiRequest(
            method="POST",
            url=f"{url}/v1/images/generations",
            body=body or BytesBody(b'{"prompt":"a mug"}'),
            headers=headers or {},
        )
        return await self.api.exchange(request, part or self.spool.part(attempt))

    def whole(self) -> SpooledResponse:
        """The spooled response, which must be whole."""
        found = self.spool.find(ATTEMPT)
        assert found is not None
        assert self.spool.find_cut(ATTEMPT) is None
        return found

    def cut(self) -> SpooledResponse:
        """The spooled response, which must have broken off."""
        found = self.spool.find_cut(ATTEMPT)
        assert found is not None
        assert self.spool.find(ATTEMPT) is None
        return found


@asynccontextmanager
async def asker(
    directory: Path,
    verify: ssl.SSLContext,
    *,
    deadline_s: float = 20.0,
    key: str | None = KEY,
    deadlines: Deadlines | None = None,
) -> AsyncIterator[Asker]:
    """A client as a worker makes it."""
    spool = Spool(directory / "spool")
    spool.prepare()
    async with ApiClient(
        key=key, network=Network(verify), deadlines=deadlines or Deadlines(), deadline_s=deadline_s
    ) as api:
        yield Asker(api, spool)


async def ask_once(
    directory: Path, verify: ssl.SSLContext, script: Script, *, deadline_s: float = 20.0
) -> tuple[Exchange, Spool]:
    """One request to a server that follows the script."""
    async with (
        wire.serve(script) as server,
        asker(directory, verify, deadline_s=deadline_s) as client,
    ):
        return await client.ask(server.url), client.spool


def outcome(exchange: Exchange) -> Outcome:
    """What the exchange is in money, where no body could be read."""
    return classify(exchange, None).outcome


SHORT_S = 0.3
"""A deadline that passes while a test waits for it."""


class Clock:
    """A clock that advances while nothing runs, as on a machine that sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def silent(connection: wire.Connection, server: wire.Server) -> None:
    """Read the request and send no response."""
    await wire.receive(connection, server)
    await connection.gone()
