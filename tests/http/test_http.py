"""How far a request got, judged from real connections that are broken in every way."""

from __future__ import annotations

import asyncio
import base64
import errno
import gzip
import json
import logging
import random
import ssl
import threading
import time
import traceback
import zlib
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path

import anyio
import anyio.lowlevel
import brotli
import httpx
import pytest
import zstandard

import batchgen.http.client
import batchgen.http.deadlines
from batchgen.http import decompressors
from batchgen.http.client import ApiClient
from batchgen.http.deadlines import Deadlines, time_awake_or_asleep
from batchgen.http.network import Network
from batchgen.http.request import BytesBody
from batchgen.http.response_headers import kept_headers
from batchgen.http.session import ssl_context
from batchgen.job import AttemptId, Outcome
from batchgen.outcomes.classify import Exchange, Failure, Reach, classify
from batchgen.providers.adapters.images import read_response
from batchgen.providers.adapters.multipart import multipart
from batchgen.spool.spool import Spool
from batchgen.system.atomic_files import PartFile
from tests.support import wire
from tests.support.asker import ATTEMPT, GOOD, Asker, Script, ask_once, asker, outcome
from tests.support.canary import CANARY as KEY

pytestmark = pytest.mark.anyio

SHORT_S = 0.3


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


async def silent(connection: wire.Connection, server: wire.Server) -> None:
    """Read the request and send no response."""
    await wire.receive(connection, server)
    await connection.gone()


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


@pytest.mark.parametrize("url", ["http://exa mple", "http://[::", "ftp://127.0.0.1", "nonsense"])
async def test_an_unusable_address_is_an_exchange_too(
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


async def test_a_reference_that_vanishes_is_no_trouble_of_the_spool(
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


async def test_an_response_that_comes_before_the_body_is_read(
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
async def test_no_readable_response_to_a_whole_request_is_a_doubt(
    fault: str, tmp_path: Path, verify: ssl.SSLContext
) -> None:
    exchange, spool = await ask_once(tmp_path, verify, BROKEN[fault])
    assert (exchange.reach, exchange.failure) == (Reach.SENT, Failure.NETWORK)
    assert exchange.status is None
    assert exchange.detail
    assert outcome(exchange) is Outcome.AMBIGUOUS
    assert spool.attempts() == []


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


# While the response comes


HEAD = b"HTTP/1.1 200 OK\r\nX-Request-Id: req-7\r\nContent-Type: application/json\r\n"

CUT: Mapping[str, Script] = {
    "shorter than its length": wire.answering(HEAD + b"Content-Length: 1000\r\n\r\n" + GOOD),
    "chunks without an end": wire.answering(
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(GOOD), GOOD)
    ),
    "half a chunk": wire.answering(
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s" % (1000, GOOD)
    ),
}


@pytest.mark.fault("N13", "N14")
@pytest.mark.parametrize("fault", CUT)
async def test_a_cut_response_leaves_its_head_and_what_came(
    fault: str, tmp_path: Path, verify: ssl.SSLContext
) -> None:
    exchange, spool = await ask_once(tmp_path, verify, CUT[fault])
    assert (exchange.reach, exchange.failure) == (Reach.HEADERS, Failure.NETWORK)
    assert exchange.status == 200
    assert exchange.headers is not None
    assert exchange.headers["x-request-id"] == "req-7"
    assert outcome(exchange) is Outcome.AMBIGUOUS
    assert spool.find(ATTEMPT) is None
    cut = spool.find_cut(ATTEMPT)
    assert cut is not None
    assert (cut.status, cut.headers["x-request-id"], cut.body()) == (200, "req-7", GOOD)


async def test_a_reset_in_the_response_leaves_what_came(
    tmp_path: Path, verify: ssl.SSLContext
) -> None:
    started = anyio.Event()

    async def script(connection: wire.Connection, server: wire.Server) -> None:
        await wire.receive(connection, server)
        await connection.send(HEAD + b"Content-Length: 5000000\r\n\r\n" + bytes(2_000_000))
        await started.wait()
        connection.reset()

    async with wire.serve(script) as server, asker(tmp_path, verify) as client:
        part = client.spool.part(ATTEMPT)
        async with anyio.create_task_group() as tasks:

            async def reset_once_spooled() -> None:
                while not _holds(part.part, 1_000_000):  # noqa: ASYNC110  # a file sends no event
                    await anyio.sleep(0.001)
                started.set()

            tasks.start_soon(reset_once_spooled)
            exchange = await client.ask(server.url, part=part)
    assert (exchange.reach, exchange.failure) == (Reach.HEADERS, Failure.NETWORK)
    body = client.cut().body()
    assert len(body) >= 1_000_000
    assert not any(body)


def _holds(path: Path, size: int) -> bool:
    return path.exists() and path.stat().st_size >= size


@pytest.mark.fault("N11")
async def test_headers_and_then_a_stall(tmp_path: Path, verify: ssl.SSLContext) -> None:
    async def script(connection: wire.Connection, server: wire.Server) -> None:
        await wire.receive(connection, server)
        await connection.send(HEAD + b"Content-Length: 1000\r\n\r\n{")
        await connection.gone()

    exchange, spool = await ask_once(tmp_path, verify, script, deadline_s=SHORT_S)
    assert (exchange.reach, exchange.failure) == (Reach.HEADERS, Failure.DEADLINE)
    assert classify(exchange, None).request_id == "req-7"
    cut = spool.find_cut(ATTEMPT)
    assert cut is not None
    assert cut.body() == b"{"


@pytest.mark.fault("N12")
async def test_a_drip_feed_is_ended_by_the_deadline(tmp_path: Path, verify: ssl.SSLContext) -> None:
    async def script(connection: wire.Connection, server: wire.Server) -> None:
        await wire.receive(connection, server)
        await connection.send(HEAD + b"\r\n")
        while True:
            await connection.send(b" ")
            await anyio.sleep(0.02)

    exchange, _ = await ask_once(tmp_path, verify, script, deadline_s=SHORT_S)
    assert (exchange.reach, exchange.failure) == (Reach.HEADERS, Failure.DEADLINE)


@pytest.mark.fault("B18")
async def test_an_response_over_the_cap_is_given_up(
    tmp_path: Path, verify: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batchgen.http.client, "MAX_RESPONSE_BYTES", 1000)

    async def endless(connection: wire.Connection, server: wire.Server) -> None:
        await wire.receive(connection, server)
        await connection.send(HEAD + b"\r\n")
        while True:
            await connection.send(b"x" * 400)
            await anyio.lowlevel.checkpoint()

    exchange, _ = await ask_once(tmp_path, verify, endless)
    assert (exchange.reach, exchange.failure) == (Reach.HEADERS, Failure.TOO_LARGE)
    assert outcome(exchange) is Outcome.AMBIGUOUS


async def test_an_response_just_at_the_cap_is_kept(
    tmp_path: Path, verify: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batchgen.http.client, "MAX_RESPONSE_BYTES", len(GOOD))
    exchange, _ = await ask_once(tmp_path, verify, wire.answering(wire.response(GOOD)))
    assert exchange.reach is Reach.COMPLETE


# Whole responses


@pytest.mark.parametrize(
    "response",
    [
        wire.response(GOOD),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"
        % (len(GOOD), GOOD),
        b"HTTP/1.0 200 OK\r\n\r\n" + GOOD,
        b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + wire.response(GOOD),
        wire.response(GOOD) + b"surplus",
    ],
    ids=["length", "chunks", "until closed", "after an interim response", "before more bytes"],
)
async def test_response_is_in_the_spool_when_the_exchange_returns(
    response: bytes, tmp_path: Path, verify: ssl.SSLContext
) -> None:
    async with wire.serve(wire.answering(response)) as server, asker(tmp_path, verify) as client:
        exchange = await client.ask(server.url)
        assert exchange.reach is Reach.COMPLETE
        assert (exchange.failure, exchange.detail, exchange.status) == (Failure.NONE, "", 200)
        assert client.whole().body() == GOOD


@pytest.mark.fault("H31")
async def test_an_response_that_has_no_body_is_whole(
    tmp_path: Path, verify: ssl.SSLContext
) -> None:
    script = wire.answering(b"HTTP/1.1 204 No Content\r\n\r\n")
    async with wire.serve(script) as server, asker(tmp_path, verify) as client:
        exchange = await client.ask(server.url)
        assert (exchange.reach, exchange.status) == (Reach.COMPLETE, 204)
        assert client.whole().body() == b""


async def test_response_of_many_megabytes_arrives_unchanged(
    tmp_path: Path, verify: ssl.SSLContext
) -> None:
    body = b"".join(i.to_bytes(4, "big") for i in range(1_300_000))
    exchange, spool = await ask_once(tmp_path, verify, wire.answering(wire.response(body)))
    assert exchange.reach is Reach.COMPLETE
    found = spool.find(ATTEMPT)
    assert found is not None
    assert found.body() == body


@pytest.mark.fault("P13")
async def test_cancelled_with_the_whole_response_here_it_is_kept(
    tmp_path: Path, verify: ssl.SSLContext
) -> None:
    with anyio.CancelScope() as scope:

        class CancelledWhenOpened(PartFile):
            """The operator's second Ctrl-C comes as the file is opened."""

            async def __aenter__(self) -> CancelledWhenOpened:
                await super().__aenter__()
                scope.cancel()
                return self

        async with (
            wire.serve(wire.answering(wire.response(GOOD))) as server,
            asker(tmp_path, verify) as client,
        ):
            part = client.spool.part(ATTEMPT)
            await client.ask(server.url, part=CancelledWhenOpened(part.final, keep=True))
    assert client.whole().body() == GOOD


@pytest.mark.fault("P13")
@pytest.mark.parametrize("full", [False, True], ids=["", "full"])
async def test_deadline_during_the_sync_of_a_response_has_no_effect(
    full: bool, tmp_path: Path, verify: ssl.SSLContext
) -> None:
    clock = Clock()
    deadlines = Deadlines(clock)
    loop = asyncio.get_running_loop()
    expired = threading.Event()

    def pass_by() -> None:
        clock.now += 301
        deadlines.expire()
        loop.call_soon(expired.set)

    class CommittedLate(PartFile):
        """Its disk is slow, and may be full in the end."""

        def commit_blocking(self) -> None:
            loop.call_soon_threadsafe(pass_by)
            assert expired.wait(20)
            if full:
                raise OSError(errno.ENOSPC, "no room")
            super().commit_blocking()

    async with (
        wire.serve(wire.answering(wire.response(GOOD))) as server,
        asker(tmp_path, verify, deadline_s=300.0, deadlines=deadlines) as client,
    ):
        part = CommittedLate(client.spool.part(ATTEMPT).final, keep=True)
        if full:
            with pytest.raises(OSError, match="no room"):
                await client.ask(server.url, part=part)
            return
        exchange = await client.ask(server.url, part=part)
    assert (exchange.reach, exchange.failure) == (Reach.COMPLETE, Failure.NONE)
    assert client.whole().body() == GOOD


async def test_cancelled_by_the_caller_it_leaves_what_came(
    tmp_path: Path, verify: ssl.SSLContext
) -> None:
    async def script(connection: wire.Connection, server: wire.Server) -> None:
        await wire.receive(connection, server)
        await connection.send(HEAD + b"Content-Length: 5000000\r\n\r\n" + bytes(2_000_000))
        await connection.gone()

    async with wire.serve(script) as server, asker(tmp_path, verify) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.ask, server.url)
            path = client.spool.part(ATTEMPT).part
            while not _holds(path, 1_000_000):  # noqa: ASYNC110  # a file sends no event
                await anyio.sleep(0.001)
            tasks.cancel_scope.cancel()
        cut = client.cut()
        assert cut.headers["x-request-id"] == "req-7"
        assert len(cut.body()) >= 1_000_000
        assert not any(cut.body())


def raw_deflate(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-15)
    return deflater.compress(data) + deflater.flush()


COMPRESSED = {
    "gzip": ("gzip", gzip.compress(GOOD)),
    "gzip without a header": ("", gzip.compress(GOOD)),
    "gzip without its checksum": ("gzip", gzip.compress(GOOD)[:-8]),
    "deflate": ("deflate", zlib.compress(GOOD)),
    "raw deflate": ("deflate", raw_deflate(GOOD)),
    "only a header": ("gzip", GOOD),
    "only another header": ("deflate", GOOD),
    "br, which it is not": ("br", GOOD),
    "br": ("br", brotli.compress(GOOD)),
    "br among others": ("identity, BR", brotli.compress(GOOD)),
    "zstd": ("zstd", zstandard.compress(GOOD)),
    "zstd without a header": ("", zstandard.compress(GOOD)),
    "zstd in two frames": ("zstd", zstandard.compress(GOOD[:9]) + zstandard.compress(GOOD[9:])),
    "zstd, which it is not": ("zstd", GOOD),
}


@pytest.mark.fault("N16")
@pytest.mark.parametrize("framing", ["length", "chunks"])
@pytest.mark.parametrize(("coding", "body"), COMPRESSED.values(), ids=COMPRESSED)
async def test_a_compressed_response_is_spooled_as_text(
    coding: str, body: bytes, framing: str, tmp_path: Path, verify: ssl.SSLContext
) -> None:
    script = wire.answering(wire.response(body, Content_Encoding=coding))
    if framing == "chunks":
        pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
        head = (
            f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        script = wire.answering(head.encode(), pieces + b"0\r\n\r\n")
    async with wire.serve(script) as server, asker(tmp_path, verify) as client:
        exchange = await client.ask(server.url)
    assert server.requests[0].headers["accept-encoding"] == "identity"
    assert exchange.reach is Reach.COMPLETE
    response = client.whole()
    assert response.body() == GOOD
    classification = classify(exchange, read_response(response.body(), response.headers))
    assert classification.outcome is Outcome.OK


async def test_a_compressed_error_keeps_its_code(tmp_path: Path, verify: ssl.SSLContext) -> None:
    error = gzip.compress(b'{"error":{"code":"invalid_size","message":"no such size"}}')
    response = wire.response(error, "400 Bad Request", Content_Encoding="gzip")
    async with wire.serve(wire.answering(response)) as server, asker(tmp_path, verify) as client:
        exchange = await client.ask(server.url)
    found = client.whole()
    classification = classify(exchange, read_response(found.body(), found.headers))
    assert (classification.outcome, classification.code) == (Outcome.REFUSED, "invalid_size")


@pytest.mark.fault("N16")
async def test_a_broken_compression_is_kept_and_uncertain(
    tmp_path: Path, verify: ssl.SSLContext
) -> None:
    packed = gzip.compress(GOOD)
    broken = packed[:14] + b"\xff" * 40
    script = wire.answering(wire.response(broken, Content_Encoding="gzip"))
    async with wire.serve(script) as server, asker(tmp_path, verify) as client:
        exchange = await client.ask(server.url)
    response = client.whole()
    classification = classify(exchange, read_response(response.body(), response.headers))
    assert classification.outcome is Outcome.AMBIGUOUS


async def test_a_key_in_a_compressed_response_is_redacted(
    tmp_path: Path, verify: ssl.SSLContext
) -> None:
    body = gzip.compress(b'{"error":{"message":"wrong key %s"}}' % KEY.encode())
    script = wire.answering(wire.response(body, "401 No", Content_Encoding="gzip"))
    async with wire.serve(script) as server, asker(tmp_path, verify) as client:
        await client.ask(server.url)
    assert client.whole().body() == b'{"error":{"message":"wrong key ***"}}'


@pytest.mark.parametrize("size", ["small", "large"])
async def test_response_of_a_missing_library_is_spooled_as_it_is(
    size: str, tmp_path: Path, verify: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decompressors, "_brotli", lambda: None)
    noise = base64.b64encode(random.Random(1).randbytes(400_000 if size == "large" else 40))
    body = b'{"data": [{"b64_json": "%s"}]}' % noise
    packed = brotli.compress(body)
    assert (len(packed) > 256 * 1024) == (size == "large")
    script = wire.answering(wire.response(packed, Content_Encoding="br"))
    async with wire.serve(script) as server, asker(tmp_path, verify) as client:
        exchange = await client.ask(server.url)
    response = client.whole()
    assert (response.coding, response.text(), exchange.scanned) == ("br", packed, None)
    assert exchange.reach is Reach.COMPLETE
    assert list((tmp_path / "spool").glob("*.0")) == []


async def test_plain_response_of_a_missing_library_is_read(
    tmp_path: Path, verify: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The header alone does not make a response unreadable."""
    monkeypatch.setattr(decompressors, "_brotli", lambda: None)
    body = b'{"error":{"message":"wrong key %s"}}' % KEY.encode()
    script = wire.answering(wire.response(body, "401 No", Content_Encoding="br"))
    async with wire.serve(script) as server, asker(tmp_path, verify) as client:
        await client.ask(server.url)
    assert client.whole().body() == b'{"error":{"message":"wrong key ***"}}'


@pytest.mark.fault("N24", "N25")
@pytest.mark.fault("S08")
@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See", "307 Keep", "308 Keep"])
async def test_a_redirect_is_not_followed(
    status: str, tmp_path: Path, verify: ssl.SSLContext
) -> None:
    async with wire.serve(silent) as other:
        script = wire.answering(wire.response(b"", status, Location=f"{other.url}/v1"))
        async with wire.serve(script) as server, asker(tmp_path, verify) as client:
            exchange = await client.ask(server.url)
    assert (exchange.reach, exchange.status) == (Reach.COMPLETE, int(status[:3]))
    assert other.connections == 0
    classification = classify(exchange, read_response(b"", {}))
    assert classification.outcome is Outcome.STOP
    assert other.url in classification.message


# What is sent


@pytest.mark.fault("N22")
async def test_every_paid_request_has_a_connection_of_its_own(
    tmp_path: Path, verify: ssl.SSLContext
) -> None:
    async def keep_alive(connection: wire.Connection, server: wire.Server) -> None:
        while True:
            await wire.receive(connection, server)
            await connection.send(wire.response(GOOD, Connection="keep-alive"))

    async with wire.serve(keep_alive) as server, asker(tmp_path, verify) as client:
        for number in range(4):
            exchange = await client.ask(server.url, attempt=AttemptId(f"a{number}"))
            assert exchange.reach is Reach.COMPLETE
    assert (server.connections, len(server.requests)) == (4, 4)


async def test_keep_alive_lets_paid_requests_share_a_connection(
    tmp_path: Path, verify: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchgen.http.client._KEEP_S", 600.0)  # a busy machine may pause

    async def keep_alive(connection: wire.Connection, server: wire.Server) -> None:
        while True:
            await wire.receive(connection, server)
            await connection.send(wire.response(GOOD))

    spool = Spool(tmp_path / "spool")
    spool.prepare()
    network = Network(verify, keep_alive=True)
    async with (
        wire.serve(keep_alive) as server,
        ApiClient(key=KEY, network=network, deadlines=Deadlines(), deadline_s=20) as api,
    ):
        client = Asker(api, spool)
        for number in range(4):
            exchange = await client.ask(server.url, attempt=AttemptId(f"a{number}"))
            assert exchange.reach is Reach.COMPLETE
    assert len(server.requests) == 4
    assert server.connections == 1
    assert "connection" not in server.requests[0].headers


async def test_the_request_carries_key_and_attempt(tmp_path: Path, verify: ssl.SSLContext) -> None:
    headers = {"Idempotency-Key": "a1", "X-Client-Request-Id": "a1"}
    script = wire.answering(wire.response(GOOD))
    async with wire.serve(script) as server, asker(tmp_path, verify) as client:
        await client.ask(server.url, BytesBody(b'{"n":1}'), headers=headers)
    request = server.requests[0]
    assert request.line == "POST /v1/images/generations HTTP/1.1"
    assert request.body == b'{"n":1}'
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["idempotency-key"] == "a1"
    assert request.headers["x-client-request-id"] == "a1"
    assert request.headers["content-type"] == "application/json"
    assert "transfer-encoding" not in request.headers


async def test_without_a_key_there_is_no_authorization(
    tmp_path: Path, verify: ssl.SSLContext
) -> None:
    script = wire.answering(wire.response(GOOD))
    async with wire.serve(script) as server, asker(tmp_path, verify, key=None) as client:
        await client.ask(server.url)
    assert "authorization" not in server.requests[0].headers


async def test_no_cookie_comes_back(tmp_path: Path, verify: ssl.SSLContext) -> None:
    script = wire.answering(wire.response(GOOD, Set_Cookie="visitor=1; Path=/"))
    async with wire.serve(script) as server, asker(tmp_path, verify) as client:
        for number in range(2):
            await client.ask(server.url, attempt=AttemptId(f"a{number}"))
    assert ["cookie" in request.headers for request in server.requests] == [False, False]


@pytest.mark.fault("N07")
@pytest.mark.fault("S11")
async def test_proxies_and_netrc_of_the_environment_are_ignored(
    tmp_path: Path, verify: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login someone password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    async with wire.serve(silent) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        script = wire.answering(wire.response(GOOD))
        async with wire.serve(script) as server, asker(tmp_path, verify, key=None) as client:
            exchange = await client.ask(server.url)
    assert exchange.reach is Reach.COMPLETE
    assert proxy.connections == 0
    assert "authorization" not in server.requests[0].headers


@pytest.mark.fault("S11")
async def test_the_secrets_of_a_tls_session_are_written_nowhere(
    tmp_path: Path, certificate: wire.Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "keys.log"
    monkeypatch.setenv("SSLKEYLOGFILE", str(log))
    verify = ssl_context()
    verify.load_verify_locations(certificate.file)
    script = wire.answering(wire.response(GOOD))
    async with (
        wire.serve(script, certificate.server()) as server,
        asker(tmp_path, verify) as client,
    ):
        assert (await client.ask(server.url)).reach is Reach.COMPLETE
    assert not log.exists() or "CLIENT" not in log.read_text()


# The key


@pytest.mark.fault("B28")
@pytest.mark.fault("S02", "S12")
async def test_the_key_is_in_no_log_no_text_and_no_file(
    tmp_path: Path, verify: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that repeats the key wherever it can, with every logger at DEBUG."""
    caplog.set_level(logging.DEBUG)
    error = json.dumps({"error": {"message": f"wrong key {KEY}", "code": "invalid_api_key"}})
    response = wire.response(
        error.encode(), "401 Unauthorized", X_Request_Id=f"for-{KEY}", X_Echo=f"Bearer {KEY}"
    )
    redirect = wire.response(b"", "302 Found", Location=f"https://gateway.invalid/?key={KEY}")
    texts: list[str] = []
    for number, sent in enumerate([response, redirect, response[:-5], b"HTTP/9 " + KEY.encode()]):
        attempt = AttemptId(f"a{number}")
        async with (
            wire.serve(wire.answering(sent)) as server,
            asker(tmp_path, verify) as client,
        ):
            exchange = await client.ask(server.url, attempt=attempt)
            texts += [repr(exchange), repr(client.api), str(vars(client.api).keys())]
            texts.append(repr(client.api._transport))
    files = [path.read_text() for path in sorted(client.spool.directory.glob("a*"))]
    assert len(files) == 3
    assert any("wrong key ***" in text for text in files)
    for text in (*texts, *files, caplog.text):
        assert KEY not in text
        assert KEY[3:] not in text


@pytest.mark.fault("S14")
@pytest.mark.parametrize("key", [f"{KEY}\r\nX-Injected: 1", f"{KEY}\n", f"{KEY}\u00e9"])
async def test_a_key_that_would_break_the_header_is_refused_unseen(
    key: str, verify: ssl.SSLContext
) -> None:
    with pytest.raises(ValueError, match="header") as caught:
        ApiClient(key=key, network=Network(verify), deadlines=Deadlines(), deadline_s=1)
    assert KEY not in str(caught.value)


@pytest.mark.fault("S01")
async def test_a_spool_that_cannot_be_written_raises_without_the_key(
    tmp_path: Path, verify: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    script = wire.answering(wire.response(GOOD))
    async with wire.serve(script) as server, asker(tmp_path, verify) as client:
        client.spool.directory.rmdir()
        client.spool.directory.touch()  # a directory would be made again
        with pytest.raises((FileExistsError, NotADirectoryError)) as caught:
            await client.ask(server.url)
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    ours = [frame for frame in shown.stack if "tests" not in frame.filename]
    assert any("http" in Path(frame.filename).parts for frame in ours)
    assert KEY not in "".join(traceback.StackSummary.from_list(ours).format())
    assert KEY not in str([frame.locals for frame in ours])
    assert KEY not in caplog.text


async def test_what_others_log_of_httpx_is_left_alone(
    tmp_path: Path, verify: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    script = wire.answering(wire.response(GOOD))
    async with wire.serve(script) as server, asker(tmp_path, verify) as client:
        await client.ask(server.url)
        assert "HTTP Request" not in caplog.text
        async with httpx.AsyncClient(verify=verify) as other:
            await other.get(server.url)
    assert "HTTP Request" in caplog.text


# Deadlines


class Clock:
    """A clock that advances while nothing runs, as on a machine that sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_a_request_that_the_machine_slept_through_is_over(
    tmp_path: Path, verify: ssl.SSLContext
) -> None:
    clock = Clock()
    deadlines = Deadlines(clock)
    got: list[Exchange] = []

    async with (
        wire.serve(silent) as server,
        asker(tmp_path, verify, deadline_s=300, deadlines=deadlines) as client,
        anyio.create_task_group() as tasks,
    ):

        async def ask() -> None:
            got.append(await client.ask(server.url))

        tasks.start_soon(ask)
        await server.seen.wait()
        clock.now += 299
        deadlines.expire()
        await anyio.wait_all_tasks_blocked()
        assert got == []
        clock.now += 2
        deadlines.expire()
    assert (got[0].reach, got[0].failure) == (Reach.SENT, Failure.DEADLINE)


async def test_only_passed_deadlines_expire() -> None:
    clock = Clock()
    deadlines = Deadlines(clock)
    with deadlines.limit(10) as short, deadlines.limit(20) as long:
        clock.now += 15
        deadlines.expire()
        assert (short.is_expired, long.is_expired) == (True, False)
    with deadlines.limit(10) as ended:
        pass
    clock.now += 100
    deadlines.expire()
    assert not ended.is_expired


async def test_a_deadline_calls_its_last_listener_once() -> None:
    calls: list[str] = []
    clock = Clock()
    deadlines = Deadlines(clock)
    with deadlines.limit(10) as deadline:
        deadline.listen(lambda: calls.append("first"))
        deadline.listen(lambda: calls.append("second"))
        clock.now += 10
        deadlines.expire()
        deadlines.expire()
        assert calls == ["second"]
        deadline.listen(lambda: calls.append("late"))
    assert calls == ["second", "late"]


async def test_the_watch_expires_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batchgen.http.deadlines, "_WATCH_EVERY_S", 0.001)
    clock = Clock()
    deadlines = Deadlines(clock)
    expired = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(deadlines.watch)
        with deadlines.limit(300) as deadline:
            deadline.listen(expired.set)
            clock.now += 301
            await expired.wait()
        tasks.cancel_scope.cancel()


def test_the_clock_counts_seconds() -> None:
    start = time_awake_or_asleep()
    time.sleep(0.02)
    assert 0.01 < time_awake_or_asleep() - start < 60


# Many


@pytest.mark.fault("N34")
@pytest.mark.fault("R11")
@pytest.mark.parametrize("requests", [2000, pytest.param(10_000, marks=pytest.mark.sweep)])
@pytest.mark.timeout(600)
async def test_cancelled_requests_leave_a_client_that_serves(
    requests: int, tmp_path: Path, verify: ssl.SSLContext
) -> None:
    """Cancelled after each number of steps, so at every point of connecting, sending, waiting."""
    response = False

    async def script(connection: wire.Connection, server: wire.Server) -> None:
        await connection.request()
        if response:
            await connection.send(wire.response(GOOD))
        else:
            await connection.gone()

    async with wire.serve(script) as server, asker(tmp_path, verify) as client:

        async def cancel_after(steps: int) -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.ask, server.url)
                for _ in range(steps):
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()

        async def round_of(count: int) -> None:
            for _ in range(count // 40):
                async with anyio.create_task_group() as tasks:
                    for steps in range(40):
                        tasks.start_soon(cancel_after, steps)

        await round_of(40)
        before = wire.open_files()
        await round_of(requests)
        response = True
        for number in range(20):
            exchange = await client.ask(server.url, attempt=AttemptId(f"a{number}"))
            assert exchange.reach is Reach.COMPLETE
        assert wire.open_files() <= before + 5


def test_kept_headers_say_how_long_to_wait_and_from_when() -> None:
    raw = [
        (b"X-RateLimit-Reset-Requests", b"7h59m12s"),
        (b"X-RateLimit-Remaining-Requests", b"0"),
        (b"RateLimit", b"limit=9, remaining=0, reset=50"),
        (b"X-Secret", b"no"),
    ]
    kept = kept_headers(raw)
    assert parsedate_to_datetime(kept.pop("date")).tzinfo is UTC
    assert kept == {name.decode().lower(): value.decode() for name, value in raw[:3]}
    server = (b"Date", b"Sun, 22 Nov 2026 10:00:00 GMT")
    assert kept_headers([server]) == {"date": server[1].decode()}
