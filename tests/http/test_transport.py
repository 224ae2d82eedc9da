"""The transport below httpx, against raw sockets: what is counted, and what ends a request."""

from __future__ import annotations

import gc
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import anyio
import anyio.lowlevel
import httpx
import pytest

import batchgen.http.transport
from batchgen.http.connection import Connection, DeadlinePassed
from batchgen.http.deadlines import Deadlines
from batchgen.http.network import Network
from batchgen.http.progress import ARRIVED, DEADLINE, PROGRESS, TARGET, Progress
from batchgen.http.session import ssl_context
from batchgen.http.transport import StreamTransport
from tests.support import wire
from tests.support.transports import Body, ask, loopback, request, transport

pytestmark = pytest.mark.anyio

LARGE = 64 * 1024 * 1024


async def ask_until(
    client: StreamTransport,
    sent: httpx.Request,
    progress: Progress,
    has_come: Callable[[], bool],
) -> None:
    """Send a request, and let its deadline pass as soon as ``has_come``."""
    now = 0.0
    deadlines = Deadlines(lambda: now)

    async def expire() -> None:
        nonlocal now
        while not has_come():  # noqa: ASYNC110 - counters of the client set no event
            await anyio.sleep(0.001)
        now = 301.0
        deadlines.expire()

    async with anyio.create_task_group() as group:
        with deadlines.limit(300) as deadline:
            sent.extensions.update({DEADLINE: deadline, PROGRESS: progress})
            group.start_soon(expire)
            with pytest.raises(DeadlinePassed):
                await ask(client, sent)


# Requests and responses


async def test_httpx_sends_and_reads_through_it() -> None:
    script = wire.answering(wire.response(b"pong", "201 Created", X_Name="value"))
    async with (
        wire.serve(script) as server,
        httpx.AsyncClient(
            transport=StreamTransport(network=Network(ssl_context()), resolve=loopback)
        ) as client,
    ):
        response = await client.post(f"{server.url}/p/a?q=1", content=b"ping")
    assert (response.status_code, response.content, response.headers["x-name"]) == (
        201,
        b"pong",
        "value",
    )
    assert server.requests[0].line == "POST /p/a?q=1 HTTP/1.1"
    assert server.requests[0].body == b"ping"
    assert server.requests[0].headers["host"] == f"127.0.0.1:{server.port}"


async def test_a_body_without_a_length_goes_in_chunks() -> None:
    received = bytearray()

    async def script(connection: wire.Connection, server: wire.Server) -> None:
        await connection.head()
        received.extend(await connection.reader.readuntil(b"0\r\n\r\n"))
        await connection.send(wire.response(b""))

    async with wire.serve(script) as server, transport() as client:
        sent = httpx.Request("POST", server.url, content=Body(3, 0, 20))
        assert await ask(client, sent) == (200, b"")
    assert received == b"3\r\n%s\r\n14\r\n%s\r\n0\r\n\r\n" % (bytes(3), bytes(20))


async def test_a_raw_target_is_sent_unchanged() -> None:
    async with wire.serve(wire.answering(wire.response(b""))) as server, transport() as client:
        await ask(client, request(server.url, None, **{TARGET: b"/a%2fb?sig='%20+|"}))
    assert server.requests[0].line == "GET /a%2fb?sig='%20+| HTTP/1.1"


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "nonsense", "http://"])
async def test_another_scheme_is_refused(url: str) -> None:
    async with transport() as client:
        with pytest.raises(httpx.UnsupportedProtocol):
            await ask(client, request(url))


async def test_a_large_body_arrives_in_order() -> None:
    body = b"".join(number.to_bytes(4, "big") for number in range(2_000_000))
    async with wire.serve(wire.answering(wire.response(body))) as server, transport() as client:
        assert await ask(client, request(server.url)) == (200, body)


async def test_an_unread_response_stops_its_server() -> None:
    all_sent = anyio.Event()

    async def script(connection: wire.Connection, server: wire.Server) -> None:
        await wire.receive(connection, server)
        await connection.send(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(64):
            await connection.send(bytes(1_000_000))
        all_sent.set()

    async with wire.serve(script) as server, transport() as client:
        response = await client.handle_async_request(request(server.url))
        stream = aiter(response.stream)  # type: ignore[arg-type]
        assert await anext(stream)
        with anyio.move_on_after(0.3):
            await all_sent.wait()
        assert not all_sent.is_set()
        body, is_complete = response.extensions[ARRIVED]()
        assert len(body) < 1_000_000
        assert not is_complete
        await response.aclose()


# What is counted


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_progress_counts_what_the_kernel_took(
    scheme: str, certificate: wire.Certificate
) -> None:
    async def deaf(connection: wire.Connection, server: wire.Server) -> None:
        await connection.head()
        server.seen.set()
        await anyio.sleep_forever()

    progress = Progress()
    context = certificate.server() if scheme == "https" else None
    async with (
        wire.serve(deaf, context) as server,
        transport(verify=certificate.trusting()) as client,
    ):
        await ask_until(client, request(server.url, Body(LARGE)), progress, server.seen.is_set)
    assert progress.is_tracked
    assert 0 < progress.taken < LARGE
    assert (progress.is_sent, progress.received) == (False, 0)


@pytest.mark.parametrize("sizes", [(), (0,), (1,), (300_000,), (10, 5_000_000, 10)])
async def test_a_sent_request_is_counted_whole(sizes: tuple[int, ...]) -> None:
    calls: list[None] = []
    progress = Progress(on_sent=lambda: calls.append(None))
    heads: list[int] = []

    async def script(connection: wire.Connection, server: wire.Server) -> None:
        head = await connection.reader.readuntil(b"\r\n\r\n")
        heads.append(len(head))
        await connection.reader.readexactly(sum(sizes))
        await connection.send(wire.response(b"x"))

    async with wire.serve(script) as server, transport() as client:
        await ask(client, request(server.url, Body(*sizes), **{PROGRESS: progress}))
    assert (progress.is_sent, progress.taken) == (True, heads[0] + sum(sizes))
    assert progress.received == len(wire.response(b"x"))
    assert calls == [None]


async def test_a_refused_connection_took_nothing() -> None:
    progress = Progress()
    async with transport() as client:
        url = f"http://127.0.0.1:{wire.free_port()}"
        with pytest.raises(httpx.ConnectError):
            await ask(client, request(url, Body(9), **{PROGRESS: progress}))
    assert (progress.is_tracked, progress.taken, progress.is_sent) == (True, 0, False)


async def test_an_early_response_ends_the_upload() -> None:
    async def script(connection: wire.Connection, server: wire.Server) -> None:
        await connection.head()
        await connection.send(wire.response(b"too large", "413 Too Large"))
        await anyio.sleep_forever()

    progress = Progress()
    async with wire.serve(script) as server, transport(keep_s=60) as client:
        sent = request(server.url, Body(*[1_000_000] * 64), **{PROGRESS: progress})
        assert await ask(client, sent) == (413, b"too large")
        assert not progress.is_sent
        await ask(client, request(server.url, Body(*[1_000_000] * 64)))
        assert server.connections == 2


async def test_a_failing_request_body_closes_the_connection() -> None:
    class Broken(Body):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"x"
            raise KeyError("the body broke")

    async def script(connection: wire.Connection, server: wire.Server) -> None:
        await connection.gone()
        server.seen.set()

    async with wire.serve(script) as server, transport() as client:
        with pytest.raises(KeyError):
            await ask(client, request(server.url, Broken(9)))
        await server.seen.wait()


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("before", [0, 1000])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_connection_lost_between_two_pieces_is_not_sent(
    scheme: str,
    before: int,
    end: str,
    certificate: wire.Certificate,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also before the first byte, which waits for its time where a rate limit is strict."""

    class Slow(Body):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            if before:
                yield bytes(before)
            leave.set()
            await lost.wait()
            yield bytes(1000)

    async def script(connection: wire.Connection, server: wire.Server) -> None:
        await leave.wait()
        if end == "reset":
            connection.reset()

    leave, lost, progress = anyio.Event(), anyio.Event(), Progress()
    learn = Connection.connection_lost

    def connection_lost(connection: Connection, exc: Exception | None) -> None:
        learn(connection, exc)
        lost.set()

    monkeypatch.setattr(Connection, "connection_lost", connection_lost)
    context = certificate.server() if scheme == "https" else None
    async with (
        wire.serve(script, context) as server,
        transport(verify=certificate.trusting()) as client,
    ):
        sent = request(server.url, Slow(before, 1000), **{PROGRESS: progress})
        with pytest.raises(httpx.TransportError):
            await ask(client, sent)
    assert not progress.is_sent


# Deadlines


@pytest.mark.parametrize("first", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\nx"])
async def test_a_deadline_ends_the_wait(first: bytes) -> None:
    async def script(connection: wire.Connection, server: wire.Server) -> None:
        await wire.receive(connection, server)
        await connection.send(first)
        await connection.gone()

    progress = Progress()
    async with wire.serve(script) as server, transport() as client:
        await ask_until(
            client,
            request(server.url, Body(1)),
            progress,
            lambda: progress.is_sent and progress.received == len(first),
        )
    assert progress.is_sent
    assert progress.received == len(first)


async def test_a_deadline_of_the_past_reads_what_has_arrived() -> None:
    """A process that was stopped for longer finds the whole response in its socket."""
    body = bytes(3_000_000)
    now = 0.0
    deadlines = Deadlines(lambda: now)
    async with wire.serve(wire.answering(wire.response(body))) as server, transport() as client:
        with deadlines.limit(300) as deadline:
            response = await client.handle_async_request(
                request(server.url, Body(1), **{DEADLINE: deadline})
            )
            now = 301.0
            deadlines.expire()
            assert deadline.is_expired
            found = [one async for one in response.stream]  # type: ignore[union-attr]
            await response.aclose()
    assert b"".join(found) == body


# Connecting


async def test_names_are_resolved_by_the_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def resolve(host: str) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.9", "::1", "127.0.0.1"]

    monkeypatch.setattr(socket, "getaddrinfo", None)
    async with (
        wire.serve(wire.answering(wire.response(b"x"))) as server,
        transport(resolve=resolve) as client,
    ):
        assert await ask(client, request(f"http://a.test:{server.port}/")) == (200, b"x")
    assert asked == ["a.test"]
    assert server.requests[0].headers["host"] == f"a.test:{server.port}"


@pytest.mark.parametrize("error", [OSError("no such name"), UnicodeError("label too long")])
async def test_a_failed_lookup_is_a_connect_error(error: Exception) -> None:
    async def resolve(host: str) -> Sequence[str]:
        raise error

    async with transport(resolve=resolve) as client:
        with pytest.raises(httpx.ConnectError, match=str(error)):
            await ask(client, request("http://a.test/"))


async def test_a_lookup_without_end_is_a_connect_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(host: str) -> Sequence[str]:
        await anyio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(batchgen.http.transport, "CONNECT_TIMEOUT_S", 0.1)
    async with transport(resolve=resolve) as client:
        with pytest.raises(httpx.ConnectTimeout, match=r"0\.1 s"):
            await ask(client, request("http://a.test/"))
        with Deadlines().limit(0.05) as deadline, pytest.raises(DeadlinePassed):
            await ask(client, request("http://a.test/", None, **{DEADLINE: deadline}))


# TLS


async def test_tls_carries_bodies_both_ways(certificate: wire.Certificate) -> None:
    body = b"".join(number.to_bytes(4, "big") for number in range(700_000))
    progress = Progress()
    async with (
        wire.serve(wire.answering(wire.response(body)), certificate.server()) as server,
        transport(verify=certificate.trusting()) as client,
    ):
        sent = request(server.url, Body(5, 3_000_000), **{PROGRESS: progress})
        assert await ask(client, sent) == (200, body)
    assert len(server.requests[0].body) == 3_000_005
    assert progress.is_sent


def open_connections() -> list[Connection]:
    return [one for one in gc.get_objects() if isinstance(one, Connection)]


async def test_closed_tls_connection_needs_no_collection(certificate: wire.Certificate) -> None:
    """Each holds 256 KiB of buffers, and a run collects garbage rarely."""
    gc.collect()
    gc.disable()
    earlier = open_connections()  # of other tests, which pytest keeps
    try:
        async with (
            wire.serve(wire.answering(wire.response(b"x")), certificate.server()) as server,
            transport(verify=certificate.trusting()) as client,
        ):
            assert await ask(client, request(server.url)) == (200, b"x")
            for _ in range(100):  # turns of the event loop, in which it learns of the end
                await anyio.lowlevel.checkpoint()
            assert len(open_connections()) == len(earlier)
    finally:
        gc.enable()


@pytest.mark.parametrize("host", ["127.0.0.1", "b.test"])
async def test_a_certificate_is_checked_against_the_host(
    host: str, certificate: wire.Certificate
) -> None:
    trusting = ssl_context() if host == "127.0.0.1" else certificate.trusting()
    async with (
        wire.serve(wire.answering(wire.response(b"x")), certificate.server()) as server,
        transport(verify=trusting) as client,
    ):
        with pytest.raises(httpx.ConnectError, match="certificate") as caught:
            await ask(client, request(f"https://{host}:{server.port}/"))
    assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
    assert server.requests == []


# Many


async def test_cancelled_requests_leave_no_socket_open(tmp_path: Path) -> None:
    async def script(connection: wire.Connection, server: wire.Server) -> None:
        await connection.request()
        await connection.gone()

    async with wire.serve(script) as server, transport(keep_s=60) as client:
        before = wire.open_files()
        for steps in range(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask, client, request(server.url, Body(10)))
                for _ in range(steps):
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
        await anyio.wait_all_tasks_blocked()
        assert wire.open_files() <= before + 2
