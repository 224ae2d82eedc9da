"""Responses as they come: cut, stalled, whole, compressed and cancelled."""

from __future__ import annotations

import asyncio
import base64
import errno
import gzip
import random
import ssl
import threading
import zlib
from collections.abc import Mapping
from pathlib import Path

import anyio
import anyio.lowlevel
import brotli
import pytest
import zstandard

import batchgen.http.client
import batchgen.http.deadlines
from batchgen.http import decompressors
from batchgen.http.deadlines import Deadlines
from batchgen.job import Outcome
from batchgen.outcomes.classify import Failure, Reach, classify
from batchgen.providers.adapters.images import read_response
from batchgen.system.atomic_files import PartFile
from tests.support import wire
from tests.support.asker import (
    ATTEMPT,
    GOOD,
    SHORT_S,
    Clock,
    Script,
    ask_once,
    asker,
    outcome,
    silent,
)
from tests.support.canary import CANARY as KEY

pytestmark = pytest.mark.anyio


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
async def test_response_over_the_cap_is_given_up(
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


async def test_response_just_at_the_cap_is_kept(
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
async def test_response_that_has_no_body_is_whole(tmp_path: Path, verify: ssl.SSLContext) -> None:
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
