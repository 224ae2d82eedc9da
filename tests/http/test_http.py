"""How far a request got, judged from real connections that are broken in every way."""

from __future__ import annotations

import ssl
import threading
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from batchgen.http.request import ApiRequest, Body, BytesBody
from batchgen.job import Outcome
from batchgen.outcomes.classify import Failure, Reach
from batchgen.providers.adapters.multipart import multipart
from tests.support import wire
from tests.support.asker import ATTEMPT, GOOD, SHORT_S, Script, ask_once, asker, outcome, silent

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Pieces:
    """A large body in many pieces, as an upload is."""

    count: int
    size: int = 64 * 1024

    @property
    def headers(self) -> Mapping[str, str]:
        """Length and type."""
        return {"Content-Length": str(self.count * self.size), "Content-Type": "image/png"}

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The bytes."""
        for _ in range(self.count):
            yield bytes(self.size)


LARGE = Pieces(512)


async def deaf(connection: wire.Connection, server: wire.Server) -> None:
    """Read the head and then nothing, for as long as the test lasts."""
    await connection.head()
    server.seen.set()
    await anyio.sleep_forever()


# Before the request


@pytest.mark.fault("N03")
async def test_a_refused_connection_is_safe(tmp_path: Path, verify: ssl.SSLContext) -> None:
    async with asker(tmp_path, verify) as client:
        exchange = await client.ask(f"http://127.0.0.1:{wire.free_port()}")
    assert (exchange.reach, exchange.failure) == (Reach.NOTHING, Failure.CONNECT)
    assert outcome(exchange) is Outcome.SAFE
    assert client.spool.attempts() == []


@pytest.mark.fault("N01")
async def test_an_unknown_host_is_safe(tmp_path: Path, verify: ssl.SSLContext) -> None:
    async with asker(tmp_path, verify) as client:
        exchange = await client.ask("http://gateway.invalid")
    assert (exchange.reach, exchange.failure) == (Reach.NOTHING, Failure.CONNECT)
    assert outcome(exchange) is Outcome.SAFE


async def test_lookup_without_a_thread_is_safe(
    tmp_path: Path, verify: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with asker(tmp_path, verify) as client:
        monkeypatch.setattr(threading.Thread, "start", start)
        exchange = await client.ask("http://localhost:1")
        monkeypatch.undo()
    assert (exchange.reach, exchange.failure) == (Reach.NOTHING, Failure.CONNECT)
    assert "can't start new thread" in exchange.detail
    assert outcome(exchange) is Outcome.SAFE


@pytest.mark.parametrize("url", ["http://exa mple", "http://[::", "ftp://127.0.0.1", "nonsense"])
async def test_unusable_url_gives_an_exchange_too(
    url: str, tmp_path: Path, verify: ssl.SSLContext
) -> None:
    async with asker(tmp_path, verify) as client:
        exchange = await client.ask(url)
    assert exchange.reach is Reach.NOTHING
    assert exchange.failure is not Failure.NONE
    assert exchange.detail


@pytest.mark.fault("N05")
async def test_an_unknown_certificate_stops_before_a_byte_is_sent(
    tmp_path: Path, verify: ssl.SSLContext, certificate: wire.Certificate
) -> None:
    async with (
        wire.serve(wire.answering(wire.response(GOOD)), certificate.server()) as server,
        asker(tmp_path, verify) as client,
    ):
        exchange = await client.ask(server.url)
    assert (exchange.reach, exchange.failure) == (Reach.NOTHING, Failure.TLS)
    assert outcome(exchange) is Outcome.STOP
    assert "certificate" in exchange.detail.lower()
    assert server.requests == []


async def test_a_known_certificate_is_accepted(
    tmp_path: Path, certificate: wire.Certificate
) -> None:
    async with (
        wire.serve(wire.answering(wire.response(GOOD)), certificate.server()) as server,
        asker(tmp_path, certificate.trusting()) as client,
    ):
        exchange = await client.ask(server.url)
    assert exchange.reach is Reach.COMPLETE


@pytest.mark.fault("N06")
async def test_a_dropped_handshake_is_safe(tmp_path: Path, verify: ssl.SSLContext) -> None:
    async def drop(connection: wire.Connection, server: wire.Server) -> None:
        await connection.reader.read(1)

    async with wire.serve(drop) as server, asker(tmp_path, verify) as client:
        exchange = await client.ask(server.url.replace("http:", "https:"))
    assert exchange.reach is Reach.NOTHING
    assert outcome(exchange) is Outcome.SAFE


@pytest.mark.fault("N06")
async def test_stalled_handshake_ends_at_the_deadline_for_free(
    tmp_path: Path, verify: ssl.SSLContext
) -> None:
    async def stall(connection: wire.Connection, server: wire.Server) -> None:
        await connection.gone()

    async with wire.serve(stall) as server, asker(tmp_path, verify, deadline_s=SHORT_S) as client:
        exchange = await client.ask(server.url.replace("http:", "https:"))
    assert (exchange.reach, exchange.failure) == (Reach.NOTHING, Failure.DEADLINE)
    assert outcome(exchange) is Outcome.SAFE


# While the request is sent


@pytest.mark.fault("N08")
async def test_a_reset_in_the_middle_of_the_body_is_safe(
    tmp_path: Path, verify: ssl.SSLContext
) -> None:
    async def script(connection: wire.Connection, server: wire.Server) -> None:
        await connection.head()
        await connection.reader.readexactly(100_000)
        connection.reset()

    async with wire.serve(script) as server, asker(tmp_path, verify) as client:
        exchange = await client.ask(server.url, LARGE)
    assert (exchange.reach, exchange.failure) == (Reach.PARTIAL, Failure.NETWORK)
    assert outcome(exchange) is Outcome.SAFE


@pytest.mark.fault("N08")
async def test_an_upload_that_stalls_until_the_deadline_is_safe(
    tmp_path: Path, verify: ssl.SSLContext
) -> None:
    async with wire.serve(deaf) as server, asker(tmp_path, verify, deadline_s=SHORT_S) as client:
        exchange = await client.ask(server.url, LARGE)
    assert (exchange.reach, exchange.failure) == (Reach.PARTIAL, Failure.DEADLINE)
    assert outcome(exchange) is Outcome.SAFE


async def test_a_deadline_before_the_kernel_took_the_last_byte_is_safe(
    tmp_path: Path, verify: ssl.SSLContext
) -> None:
    """The connection is aborted, so the rest of the only piece is never sent."""
    body = BytesBody(bytes(32 * 1024 * 1024))
    async with wire.serve(deaf) as server, asker(tmp_path, verify, deadline_s=SHORT_S) as client:
        exchange = await client.ask(server.url, body)
    assert (exchange.reach, exchange.failure) == (Reach.PARTIAL, Failure.DEADLINE)
    assert outcome(exchange) is Outcome.SAFE


async def test_an_upload_that_breaks_off_leaves_no_reference_open(
    tmp_path: Path, verify: ssl.SSLContext
) -> None:
    reference = tmp_path / "reference.png"
    reference.write_bytes(bytes(32 * 1024 * 1024))
    body = multipart(ATTEMPT, {"model": "m"}, [("image", reference)])
    async with wire.serve(deaf) as server, asker(tmp_path, verify, deadline_s=SHORT_S) as client:
        before = _open_under(tmp_path)
        assert (await client.ask(server.url, body)).reach is Reach.PARTIAL
        assert _open_under(tmp_path) == before


def _open_under(directory: Path) -> set[str]:
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("this platform does not list which files are open")
    links = (path for path in descriptors.iterdir() if path.is_symlink())
    return {target for target in map(str, map(Path.readlink, links)) if str(directory) in target}


async def test_vanished_reference_is_not_a_failure_of_the_spool(
    tmp_path: Path, verify: ssl.SSLContext
) -> None:
    reference = tmp_path / "reference.png"
    reference.write_bytes(b"x" * 100)
    body = multipart(ATTEMPT, {"model": "m"}, [("image", reference)])
    reference.unlink()
    async with wire.serve(silent) as server, asker(tmp_path, verify) as client:
        exchange = await client.ask(server.url, body)
    assert (exchange.reach, exchange.failure) == (Reach.PARTIAL, Failure.NETWORK)
    assert "reference.png" in exchange.detail


@pytest.mark.parametrize("size", [10, 200])
async def test_a_reference_that_changes_its_size_is_never_sent_whole(
    size: int, tmp_path: Path, verify: ssl.SSLContext
) -> None:
    reference = tmp_path / "reference.png"
    reference.write_bytes(b"x" * 100)
    body = multipart(ATTEMPT, {"model": "m"}, [("image", reference)])
    reference.write_bytes(b"y" * size)
    async with wire.serve(silent) as server, asker(tmp_path, verify) as client:
        exchange = await client.ask(server.url, body)
    assert exchange.reach is Reach.PARTIAL
    assert server.requests == []


async def test_response_that_comes_before_the_body_is_read(
    tmp_path: Path, verify: ssl.SSLContext
) -> None:
    async def script(connection: wire.Connection, server: wire.Server) -> None:
        await connection.head()
        await connection.send(wire.response(b"{}", "413 Too Large"))
        await connection.gone()

    async with wire.serve(script) as server, asker(tmp_path, verify) as client:
        exchange = await client.ask(server.url, LARGE)
    assert (exchange.reach, exchange.status) == (Reach.COMPLETE, 413)


# After the request, before a response


async def _reset(connection: wire.Connection, server: wire.Server) -> None:
    await wire.receive(connection, server)
    connection.reset()


async def _close(connection: wire.Connection, server: wire.Server) -> None:
    await wire.receive(connection, server)


BROKEN: Mapping[str, Script] = {
    "reset after the body": _reset,
    "closed after the body": _close,
    "banner of another protocol": wire.answering(b"220 mail.example ESMTP ready\r\n"),
    "garbage": wire.answering(bytes(range(256)) * 20),
    "half a status line": wire.answering(b"HTTP/1.1 20"),
    "two lengths that differ": wire.answering(
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"
    ),
    "negative length": wire.answering(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello"),
    "length in words": wire.answering(b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello"),
    "300 KB of headers": wire.answering(
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: %s\r\n" % (i, b"v" * 1000) for i in range(300)),
        b"\r\n{}",
    ),
}


@pytest.mark.fault("N09", "N19", "N20", "N37")
@pytest.mark.parametrize("fault", BROKEN)
async def test_whole_request_without_readable_response_is_uncertain(
    fault: str, tmp_path: Path, verify: ssl.SSLContext
) -> None:
    exchange, spool = await ask_once(tmp_path, verify, BROKEN[fault])
    assert (exchange.reach, exchange.failure) == (Reach.SENT, Failure.NETWORK)
    assert exchange.status is None
    assert exchange.detail
    assert outcome(exchange) is Outcome.AMBIGUOUS
    assert spool.attempts() == []


@pytest.mark.parametrize(
    ("script", "body", "reach"),
    [
        pytest.param(deaf, LARGE, Reach.PARTIAL, id="upload"),
        pytest.param(silent, BytesBody(b"{}"), Reach.SENT, id="sent"),
    ],
)
async def test_cancelled_exchange_says_how_far_it_got(
    script: Script, body: Body, reach: Reach, tmp_path: Path, verify: ssl.SSLContext
) -> None:
    found: list[Reach] = []
    async with wire.serve(script) as server, asker(tmp_path, verify) as client:
        request = ApiRequest(method="POST", url=f"{server.url}/v1", body=body)
        async with anyio.create_task_group() as group:
            part = client.spool.part(ATTEMPT)
            group.start_soon(partial(client.api.exchange, request, part, on_cancel=found.append))
            await server.seen.wait()
            await anyio.sleep(0.1)
            group.cancel_scope.cancel()
    assert found == [reach]


@pytest.mark.fault("N10")
async def test_silence_is_ended_by_the_deadline(tmp_path: Path, verify: ssl.SSLContext) -> None:
    exchange, _ = await ask_once(tmp_path, verify, silent, deadline_s=SHORT_S)
    assert (exchange.reach, exchange.failure) == (Reach.SENT, Failure.DEADLINE)
    assert exchange.detail == "0.3 s"
    assert outcome(exchange) is Outcome.AMBIGUOUS


@pytest.mark.fault("N21")
async def test_endless_interim_responses_are_ended_by_the_deadline(
    tmp_path: Path, verify: ssl.SSLContext
) -> None:
    async def script(connection: wire.Connection, server: wire.Server) -> None:
        await wire.receive(connection, server)
        while True:
            await connection.send(b"HTTP/1.1 102 Processing\r\n\r\n")
            await anyio.sleep(0.001)

    exchange, _ = await ask_once(tmp_path, verify, script, deadline_s=SHORT_S)
    assert (exchange.reach, exchange.failure) == (Reach.SENT, Failure.DEADLINE)
