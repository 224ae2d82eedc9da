"""Connections that the transport below httpx keeps, and requests on kept ones."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import httpx
import pytest

from batchgen.http.progress import PROGRESS, Progress
from tests.support import wire
from tests.support.transports import Body, ask, keep_alive, request, transport

pytestmark = pytest.mark.anyio


async def test_connections_are_kept_for_their_origin() -> None:
    script = keep_alive(wire.response(b"x"))
    async with wire.serve(script) as server, transport(keep_s=60) as client:
        for host in ("a.test", "b.test", "a.test", "b.test", "a.test"):
            assert await ask(client, request(f"http://{host}:{server.port}/")) == (200, b"x")
    assert server.connections == 2


@pytest.mark.parametrize("keep_s", [0.0, 1e-9])
async def test_connections_are_not_kept_too_long(keep_s: float) -> None:
    script = keep_alive(wire.response(b"x"))
    async with wire.serve(script) as server, transport(keep_s=keep_s) as client:
        for _ in range(3):
            assert await ask(client, request(server.url)) == (200, b"x")
    assert server.connections == 3


NOT_KEPT = {
    "close": wire.response(b"x", Connection="close"),
    "surplus": wire.response(b"x") + b"surplus",
    "until closed": b"HTTP/1.0 200 OK\r\n\r\nx",
}


@pytest.mark.parametrize("response", NOT_KEPT.values(), ids=NOT_KEPT)
async def test_connections_without_a_clear_end_are_not_kept(response: bytes) -> None:
    async def script(connection: wire.Connection, server: wire.Server) -> None:
        await wire.receive(connection, server)
        await connection.send(response)
        if not response.startswith(b"HTTP/1.0"):
            await connection.gone()

    async with wire.serve(script) as server, transport(keep_s=60) as client:
        for _ in range(2):
            assert await ask(client, request(server.url)) == (200, b"x")
    assert server.connections == 2


async def test_a_response_that_was_not_read_ends_its_connection() -> None:
    script = keep_alive(wire.response(bytes(10_000_000)))
    async with wire.serve(script) as server, transport(keep_s=60) as client:
        for _ in range(2):
            response = await client.handle_async_request(request(server.url))
            await response.aclose()
    assert server.connections == 2


async def test_a_closed_idle_connection_is_not_used_again() -> None:
    script = wire.answering(wire.response(b"x"))
    async with wire.serve(script) as server, transport(keep_s=60) as client:
        for _ in range(3):
            assert await ask(client, request(server.url, Body(2))) == (200, b"x")
    assert (server.connections, len(server.requests)) == (3, 3)


async def test_only_a_free_request_is_repeated_on_a_new_connection() -> None:
    async def script(connection: wire.Connection, server: wire.Server) -> None:
        await wire.receive(connection, server)
        await connection.send(wire.response(b"x"))
        await wire.receive(connection, server)

    async with wire.serve(script) as server, transport(keep_s=60) as client:
        for _ in range(3):
            assert await ask(client, request(server.url)) == (200, b"x")
    assert (server.connections, len(server.requests)) == (3, 5)
    async with wire.serve(script) as server, transport(keep_s=60) as client:
        await ask(client, request(server.url, Body(2)))
        progress = Progress()
        with pytest.raises(httpx.TransportError):
            await ask(client, request(server.url, Body(2), **{PROGRESS: progress}))
        assert progress.is_sent
    assert (server.connections, len(server.requests)) == (1, 2)


async def test_a_lost_request_ends_reuse_for_its_origin() -> None:
    """The server reads the second request on a connection and closes it without a response."""

    async def script(connection: wire.Connection, server: wire.Server) -> None:
        await wire.receive(connection, server)
        await connection.send(wire.response(b"x"))
        await wire.receive(connection, server)

    async with wire.serve(script) as server, transport(keep_s=60) as client:
        await ask(client, request(server.url, Body(2)))
        with pytest.raises(httpx.TransportError):
            await ask(client, request(server.url, Body(2)))
        for _ in range(3):
            assert await ask(client, request(server.url, Body(2))) == (200, b"x")
    assert (server.connections, len(server.requests)) == (4, 5)


async def test_one_request_tries_a_kept_connection() -> None:
    """A server that closes a moment after each response may take several requests with it."""
    may_respond = anyio.Event()

    async def script(connection: wire.Connection, server: wire.Server) -> None:
        for number in range(100):
            await wire.receive(connection, server)
            if number == 1:
                await may_respond.wait()
            await connection.send(wire.response(b"x"))

    async with wire.serve(script) as server, transport(keep_s=60) as client:

        async def pay() -> None:
            assert await ask(client, request(server.url, Body(2))) == (200, b"x")

        await pay()
        async with anyio.create_task_group() as group:
            group.start_soon(pay)  # on the kept connection
            while len(server.requests) < 2:  # noqa: ASYNC110 - the server's list sets no event
                await anyio.sleep(0.001)
            for _ in range(2):
                await pay()
            assert server.connections == 3  # one for the trial, and a new one for each other
            may_respond.set()
        for _ in range(3):
            await pay()
    assert server.connections == 3


async def test_a_loss_ends_the_use_of_all_kept_connections() -> None:
    is_cutting = False
    both = anyio.Event()

    async def script(connection: wire.Connection, server: wire.Server) -> None:
        for number in range(100):
            await wire.receive(connection, server)
            if is_cutting:
                return
            if number == 0 and server.connections <= 2:
                if len(server.requests) == 2:
                    both.set()
                await both.wait()
            await connection.send(wire.response(b"x"))

    async with wire.serve(script) as server, transport(keep_s=60) as client:
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(ask, client, request(server.url, Body(2)))
        await ask(client, request(server.url, Body(2)))
        assert server.connections == 2
        is_cutting = True
        with pytest.raises(httpx.TransportError):
            await ask(client, request(server.url, Body(2)))
        is_cutting = False
        await ask(client, request(server.url, Body(2)))
    assert server.connections == 3


async def test_a_young_connection_is_not_used() -> None:
    script = keep_alive(wire.response(b"x"))
    async with (
        wire.serve(script) as server,
        transport(keep_s=600, silent_s=500) as client,
    ):
        for _ in range(3):
            assert await ask(client, request(server.url, Body(2))) == (200, b"x")
            assert await ask(client, request(server.url)) == (200, b"x")
    assert server.connections == 6


async def test_a_connection_that_closes_unused_costs_nothing() -> None:
    """The body waits for its time to leave; meanwhile the server closes the kept connection."""
    closed, left = anyio.Event(), anyio.Event()

    async def script(connection: wire.Connection, server: wire.Server) -> None:
        await wire.receive(connection, server)
        await connection.send(wire.response(b"x"))
        if server.connections == 1:
            await closed.wait()
            return
        await wire.receive(connection, server)
        await connection.send(wire.response(b"x"))

    class Late(Body):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            closed.set()
            await left.wait()
            async for piece in super().__aiter__():
                yield piece

    async with wire.serve(script) as server, transport(keep_s=60) as client:
        await ask(client, request(server.url, Body(2)))

        async def leave() -> None:
            await closed.wait()
            await anyio.wait_all_tasks_blocked()
            left.set()

        async with anyio.create_task_group() as group:
            group.start_soon(leave)
            assert await ask(client, request(server.url, Late(2))) == (200, b"x")
        # It proves nothing against the server, so connections are still kept.
        assert await ask(client, request(server.url, Body(2))) == (200, b"x")
    assert (server.connections, len(server.requests)) == (2, 3)


async def test_a_kept_connection_that_received_bytes_is_not_paid_on() -> None:
    async def script(connection: wire.Connection, server: wire.Server) -> None:
        await wire.receive(connection, server)
        await connection.send(wire.response(b"x"))
        await connection.send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        await connection.gone()

    async with wire.serve(script) as server, transport(keep_s=60) as client:
        for _ in range(3):
            assert await ask(client, request(server.url, Body(2))) == (200, b"x")
            await anyio.wait_all_tasks_blocked()
    assert server.connections == 3


async def _respond(connection: wire.Connection, server: wire.Server) -> bytes:
    """Respond to a request with its number; return the response."""
    await wire.receive(connection, server)
    response = wire.response(b"%d" % len(server.requests))
    await connection.send(response)
    return response


@pytest.mark.parametrize("body", [Body(2), None], ids=["paid", "free"])
async def test_a_second_response_is_not_that_of_a_request(body: Body | None) -> None:
    """A gateway may send a response, and a moment later the same again."""

    async def script(connection: wire.Connection, server: wire.Server) -> None:
        for _ in range(100):
            response = await _respond(connection, server)
            if len(server.requests) == 3:
                await anyio.sleep(0.02)
                await connection.send(response)

    async with wire.serve(script) as server, transport(keep_s=60, silent_s=0.2) as client:

        async def pay() -> bytes:
            return (await ask(client, request(server.url, body)))[1]

        assert await pay() == b"1"
        await anyio.sleep(0.25)
        assert await pay() == b"2"
        await anyio.sleep(0.25)
        assert server.connections == 1
        assert [await pay(), await pay()] == [b"3", b"4"]


async def test_bytes_before_a_request_are_not_its_response() -> None:
    """A kept connection is silent when it is taken; the request waits for its time to leave."""
    taken, left = anyio.Event(), anyio.Event()

    async def script(connection: wire.Connection, server: wire.Server) -> None:
        while True:
            response = await _respond(connection, server)
            if len(server.requests) == 1:
                await taken.wait()
                await connection.send(response)

    class Late(Body):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            taken.set()
            await left.wait()
            async for piece in super().__aiter__():
                yield piece

    async with wire.serve(script) as server, transport(keep_s=60) as client:
        await ask(client, request(server.url, Body(2)))

        async def leave() -> None:
            await taken.wait()
            await anyio.wait_all_tasks_blocked()
            await anyio.sleep(0.05)
            left.set()

        async with anyio.create_task_group() as group:
            group.start_soon(leave)
            assert await ask(client, request(server.url, Late(2))) == (200, b"2")
    assert (server.connections, len(server.requests)) == (2, 2)


@pytest.mark.parametrize("wait_s", [0.0, 0.05], ids=["at once", "while idle"])
async def test_unrequested_bytes_end_reuse_for_their_origin(wait_s: float) -> None:
    async def script(connection: wire.Connection, server: wire.Server) -> None:
        for _ in range(100):
            response = await _respond(connection, server)
            if len(server.requests) == 1:
                await anyio.sleep(wait_s)
                await connection.send(response)

    async with wire.serve(script) as server, transport(keep_s=60) as client:
        for number in range(1, 4):
            assert await ask(client, request(server.url, Body(2))) == (200, b"%d" % number)
            await anyio.sleep(0.1)
    assert server.connections == 3


async def test_closing_it_closes_idle_connections() -> None:
    closed = anyio.Event()

    async def script(connection: wire.Connection, server: wire.Server) -> None:
        await wire.receive(connection, server)
        await connection.send(wire.response(b"x"))
        await connection.gone()
        closed.set()

    async with wire.serve(script) as server:
        async with transport(keep_s=60) as client:
            await ask(client, request(server.url))
            assert not closed.is_set()
        await closed.wait()
