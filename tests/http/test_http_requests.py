"""What a paid request carries, who sees the key, and what its deadline does."""

from __future__ import annotations

import json
import logging
import shutil
import ssl
import time
import traceback
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.lowlevel
import httpx
import pytest

import batchgen.http.client
import batchgen.http.deadlines
from batchgen.http.client import ApiClient
from batchgen.http.deadlines import Deadlines, time_awake_or_asleep
from batchgen.http.dns import CachedLookup
from batchgen.http.network import Network
from batchgen.http.progress import DEADLINE
from batchgen.http.request import BytesBody
from batchgen.http.response_headers import kept_headers
from batchgen.http.session import ssl_context
from batchgen.http.transport import StreamTransport
from batchgen.job import AttemptId
from batchgen.outcomes.classify import Exchange, Failure, Reach
from batchgen.spool.spool import Spool
from tests.support import wire
from tests.support.asker import GOOD, Asker, Clock, asker, silent
from tests.support.canary import CANARY as KEY

pytestmark = pytest.mark.anyio


# What is sent


@pytest.mark.fault("N22")
async def test_keep_alive_off_opens_connections(tmp_path: Path, verify: ssl.SSLContext) -> None:
    async def keep_alive(connection: wire.Connection, server: wire.Server) -> None:
        while True:
            await wire.receive(connection, server)
            await connection.send(wire.response(GOOD, Connection="keep-alive"))

    spool = Spool(tmp_path / "spool")
    spool.prepare()
    network = Network(verify, keep_alive=False)
    async with (
        wire.serve(keep_alive) as server,
        ApiClient(key=KEY, network=network, deadlines=Deadlines(), deadline_s=20) as api,
    ):
        for number in range(4):
            exchange = await Asker(api, spool).ask(server.url, attempt=AttemptId(f"a{number}"))
            assert exchange.reach is Reach.COMPLETE
    assert (server.connections, len(server.requests)) == (4, 4)
    assert server.requests[0].headers["connection"] == "close"


async def test_keep_alive_lets_paid_requests_share_a_connection(
    tmp_path: Path, verify: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchgen.http.client._KEEP_S", 600.0)  # a busy machine may pause
    monkeypatch.setattr("batchgen.http.client.SILENT_S", 0.0)

    async def keep_alive(connection: wire.Connection, server: wire.Server) -> None:
        while True:
            await wire.receive(connection, server)
            await connection.send(wire.response(GOOD))

    spool = Spool(tmp_path / "spool")
    spool.prepare()
    async with (
        wire.serve(keep_alive) as server,
        ApiClient(key=KEY, network=Network(verify), deadlines=Deadlines(), deadline_s=20) as api,
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


async def test_request_without_a_key_has_no_authorization(
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
        shutil.rmtree(client.spool.directory)
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


async def test_deadline_passes_while_the_reader_is_late() -> None:
    """The process was stopped while a response arrived; what the socket holds is not lost."""
    body = bytes(2_000_000)
    clock = Clock()
    deadlines = Deadlines(clock)
    async with (
        wire.serve(wire.answering(wire.response(body))) as server,
        StreamTransport(network=Network(ssl_context()), resolve=CachedLookup()) as client,
    ):
        with deadlines.limit(300) as deadline:
            sent = httpx.Request("GET", server.url, extensions={DEADLINE: deadline})
            response = await client.handle_async_request(sent)
            connection = cast(Any, response.stream)._connection
            while not connection._is_reading_paused:  # noqa: ASYNC110 - it sets no event
                await anyio.sleep(0.001)
            clock.now += 301
            deadlines.expire()
            assert b"".join([one async for one in response.aiter_raw()]) == body
            await response.aclose()


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
