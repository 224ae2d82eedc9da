"""The two free documents of an endpoint, from servers that misbehave."""

from __future__ import annotations

import gzip
import json
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

import batchgen.providers.catalog
from batchgen.providers.catalog import (
    OfferedModel,
    Unavailable,
    fetch_account,
    fetch_models,
    fetch_price_list,
)
from tests.support import wire
from tests.support.canary import CANARY as KEY

pytestmark = pytest.mark.anyio

DOCUMENT = b'{"data": []}'
GZIPPED = gzip.compress(DOCUMENT, mtime=0)
BOMB = gzip.compress(bytes(16 * 1024 * 1024))

Script = Callable[[wire.Connection, wire.Server], Awaitable[None]]


async def test_the_price_list_comes_as_it_is_and_no_key_is_sent() -> None:
    body = b'{"data": []}'
    async with wire.serve(wire.answering(wire.response(body))) as server:
        assert await fetch_price_list(f"{server.url}/api/pricing") == body
    assert server.requests[0].line == "GET /api/pricing HTTP/1.1"
    assert "authorization" not in server.requests[0].headers


@pytest.mark.parametrize("coding", ["gzip", "", "br", "deflate"])
@pytest.mark.parametrize("body", [DOCUMENT, GZIPPED], ids=["plain", "compressed"])
async def test_a_document_is_read_with_any_coding_header(body: bytes, coding: str) -> None:
    script = wire.answering(wire.response(body, Content_Encoding=coding))
    async with wire.serve(script) as server:
        assert await fetch_price_list(f"{server.url}/api/pricing") == DOCUMENT
    assert server.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (wire.response(b"", "404 Not Found"), "HTTP 404"),
        (wire.response(b"", "302 Found", Location="http://192.0.2.1/"), "HTTP 302"),
        (wire.response(GZIPPED[:9], Content_Encoding="gzip"), "compressed data is cut off"),
        (wire.response(BOMB, Content_Encoding="gzip"), "expands more than 20-fold"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}", "closed"),
        (b"nonsense\r\n\r\n", "does not start with HTTP/"),
        (b"", "closed the connection without a response"),
    ],
)
async def test_unusable_response_raises_unavailable(response: bytes, message: str) -> None:
    async with wire.serve(wire.answering(response)) as server:
        with pytest.raises(Unavailable, match=f"(?i){server.url}/list: .*{message}"):
            await fetch_price_list(f"{server.url}/list")
    assert server.connections == 1


async def test_an_endpoint_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="cannot connect"):
        await fetch_price_list(f"http://127.0.0.1:{wire.free_port()}/list")


async def test_response_without_an_end_is_cut_off_by_size() -> None:
    async def script(connection: wire.Connection, server: wire.Server) -> None:
        await wire.receive(connection, server)
        await connection.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await connection.send(b" " * 1_000_000)

    async with wire.serve(script) as server:
        with pytest.raises(Unavailable, match="larger than 8 MiB"):
            await fetch_price_list(server.url)


@pytest.mark.parametrize("first", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\n["])
async def test_response_that_drips_is_cut_off_by_time(
    first: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batchgen.providers.catalog, "TIMEOUT_S", 0.3)

    async def script(connection: wire.Connection, server: wire.Server) -> None:
        await wire.receive(connection, server)
        await connection.send(first)
        while first:
            await connection.send(b"x" if first.endswith(b"[") else b"a: b\r\n")
            await anyio.sleep(0.05)
        await connection.gone()

    async with wire.serve(script) as server:
        with pytest.raises(Unavailable, match=r"no complete response within 0\.3 s"):
            await fetch_price_list(server.url)


async def models(document: Any) -> list[OfferedModel]:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    async with wire.serve(wire.answering(wire.response(body))) as server:
        found = await fetch_models(f"{server.url}/v1", KEY)
    assert server.requests[0].line == "GET /v1/models HTTP/1.1"
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    return found


async def test_models_are_listed_once_each_by_name() -> None:
    items = [
        {"id": "b", "object": "model", "shutdown_date": "2026-12-01"},
        {"id": "a", "shutdown_date": None},
        {"id": "a"},
        {"id": "\x1b[2J"},
        {"id": 7},
        "c",
        None,
    ]
    found = await models({"success": True, "object": "list", "data": items})
    assert found == [OfferedModel("a"), OfferedModel("b", "2026-12-01")]


@pytest.mark.parametrize("document", [b"<html>", b"[" * 100_000, [], {"data": {}}, 7])
async def test_document_without_a_list_of_models_raises_unavailable(document: Any) -> None:
    with pytest.raises(Unavailable, match="the response is not"):
        await models(document)


@pytest.mark.parametrize(
    ("response", "status"),
    [
        (wire.response(KEY.encode(), "401 Unauthorized", X_Echo=KEY), 401),
        (KEY.encode() + b"\r\n\r\n", None),
    ],
)
async def test_no_message_shows_the_key(response: bytes, status: int | None) -> None:
    async with wire.serve(wire.answering(response)) as server:
        with pytest.raises(Unavailable) as caught:
            await fetch_models(f"{server.url}/v1", KEY)
    assert caught.value.status == status
    assert KEY not in str(caught.value)


async def test_an_account_is_asked_with_its_token_and_number() -> None:
    async with wire.serve(wire.answering(wire.response(b"{}"))) as server:
        assert await fetch_account(f"{server.url}/api/log/self?p=1", KEY, "7") == b"{}"
    assert server.requests[0].line == "GET /api/log/self?p=1 HTTP/1.1"
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert server.requests[0].headers["new-api-user"] == "7"


async def test_an_account_that_is_asked_too_fast_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batchgen.providers.catalog, "PATIENCE_S", 0.01)

    async def script(connection: wire.Connection, server: wire.Server) -> None:
        await wire.receive(connection, server)
        too_fast = len(server.requests) < 4
        response = wire.response(b"", "429 Too Many Requests") if too_fast else wire.response(b"{}")
        await connection.send(response)

    async with wire.serve(script) as server:
        assert await fetch_account(server.url, KEY, "7") == b"{}"
    assert len(server.requests) == 4


@pytest.mark.parametrize(("status", "asked"), [("429 Too Many Requests", 13), ("401 No", 1)])
async def test_requests_for_an_account_end(
    monkeypatch: pytest.MonkeyPatch, status: str, asked: int
) -> None:
    monkeypatch.setattr(batchgen.providers.catalog, "PATIENCE_S", 0.0)
    async with wire.serve(wire.answering(wire.response(KEY.encode(), status))) as server:
        with pytest.raises(Unavailable, match=status[:3]) as caught:
            await fetch_account(server.url, KEY, "7")
    assert len(server.requests) == asked
    assert KEY not in str(caught.value)
