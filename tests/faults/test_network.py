"""Faults below HTTP: names, connections, certificates, proxies, bytes that break off."""

from __future__ import annotations

import gzip
import queue
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import pytest
import trustme

import batchgen.http.session
import batchgen.http.transport
from batchgen.http.deadlines import Deadlines
from batchgen.http.download import Downloader
from batchgen.http.network import Access, Network
from batchgen.job import AttemptId, Outcome
from batchgen.outcomes.classify import Failure, Reach, classify
from batchgen.outcomes.download_policy import FetchResult
from batchgen.providers.adapters.images import read_response
from tests.faults.gateway import gateway, response
from tests.faults.proxy import Proxy, Weather, proxy
from tests.support import rig, wire
from tests.support.asker import ATTEMPT, GOOD, ask_once, asker, outcome
from tests.support.downloads import IMAGE, fetch, routes
from tests.support.responses import RED, encoded, image, saved

pytestmark = pytest.mark.anyio

INLINE = response({"b64_json": encoded(RED)})
SOON_S = 0.3


# Names and connections


@pytest.mark.fault("N01")
def test_unknown_host_pauses_and_then_stops_the_run_for_free(
    tmp_path: Path,
) -> None:
    path = rig.manifest(
        tmp_path,
        "https://gateway.invalid/v1",
        [f"image {number}" for number in range(12)],
        limits="{concurrency: 4, unreachable: 1}",
    )
    done = rig.batchgen("run", path, cwd=tmp_path, code=3)
    assert "unreachable: no connection to the endpoint" in done.stdout
    found = rig.status(tmp_path)
    assert found["jobs"]["pending"] == 12
    assert found["attempts"]["maybe"] == found["attempts"]["billed"] == 0


MUTE_NAME_SERVER = """
import pathlib, socket, time
def getaddrinfo(host, *rest, **named):
    if not pathlib.Path("batchgen.db.spool").exists():
        raise socket.gaierror(socket.EAI_AGAIN, "no price list either")
    print("asked", flush=True)
    time.sleep(3600)
socket.getaddrinfo = getaddrinfo
from batchgen.cli.main import main
main()
"""


@pytest.mark.fault("N02")
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_silent_name_server_does_not_keep_a_run_from_ending(tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, "https://gateway.invalid/v1", ["one"])
    with subprocess.Popen(
        [sys.executable, "-c", MUTE_NAME_SERVER, "run", str(path), "--json"],
        cwd=tmp_path,
        env=rig.environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert any("asked" in line for line in process.stdout)
        process.terminate()
        process.communicate(timeout=rig.TIMEOUT_S)
    found = rig.status(tmp_path)
    assert found["jobs"]["pending"] == 1
    assert found["cost"]["maybe"] == "0.000000"


@contextmanager
def black_hole(family: socket.AddressFamily, host: str, port: int = 0) -> Iterator[int]:
    """A port whose queue is full, so that further connections are left without a response."""
    with ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket(family))
        listener.bind((host, port))
        listener.listen(0)
        taken = listener.getsockname()[1]
        for _ in range(4):
            filler = sockets.enter_context(socket.socket(family))
            filler.setblocking(False)
            filler.connect_ex((host, taken))
        yield taken


@pytest.mark.fault("N04")
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a full queue refuses")
async def test_host_that_ignores_connections_is_given_up_for_free(
    tmp_path: Path, verify: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batchgen.http.transport, "CONNECT_TIMEOUT_S", SOON_S)
    with black_hole(socket.AF_INET, "127.0.0.1") as port:
        async with asker(tmp_path, verify) as client:
            exchange = await client.ask(f"http://127.0.0.1:{port}")
    assert (exchange.reach, exchange.failure) == (Reach.NOTHING, Failure.CONNECT)
    assert outcome(exchange) is Outcome.SAFE


@pytest.mark.fault("N04")
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a full queue refuses")
def test_two_ctrl_c_before_a_connection_cost_nothing(tmp_path: Path) -> None:
    with black_hole(socket.AF_INET, "127.0.0.1") as port:
        path = rig.manifest(tmp_path, f"http://127.0.0.1:{port}/v1", ["one", "two", "three"])
        with rig.start("run", path, "--json", cwd=tmp_path) as process:
            rig.wait_for(tmp_path, "SELECT 1 FROM attempts", process)
            for _ in range(2):
                process.send_signal(signal.SIGINT)
                time.sleep(0.3)
            _, errors = process.communicate(timeout=rig.TIMEOUT_S)
    assert process.returncode == 130, errors
    found = rig.status(tmp_path)
    assert found["jobs"]["pending"] == 3
    assert found["cost"]["maybe"] == "0.000000"


@pytest.mark.fault("N35")
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a full queue refuses")
async def test_a_broken_version_6_does_not_hold_up_a_request(
    tmp_path: Path, verify: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection over IPv6 stays open without a response until the test's own time limit."""
    monkeypatch.setattr(batchgen.http.transport, "CONNECT_TIMEOUT_S", 3600.0)
    real = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, *rest: int, **named: int) -> list[object]:
        if host != "gateway.test":
            return list(real(host, port, *rest, **named))
        six = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0))
        four = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
        return [six, four]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    async with wire.serve(wire.answering(wire.response(GOOD))) as server:
        with black_hole(socket.AF_INET6, "::1", server.port):
            async with asker(tmp_path, verify) as client:
                exchange = await client.ask(f"http://gateway.test:{server.port}")
    assert exchange.reach is Reach.COMPLETE


@pytest.mark.fault("N34")
async def test_no_request_waits_for_the_connection_of_another(
    tmp_path: Path, verify: ssl.SSLContext
) -> None:
    count, all_here = 200, anyio.Event()

    async def script(connection: wire.Connection, server: wire.Server) -> None:
        await wire.receive(connection, server)
        if len(server.requests) == count:
            all_here.set()
        await all_here.wait()
        await connection.send(wire.response(GOOD))

    reached: list[Reach] = []
    async with wire.serve(script) as server, asker(tmp_path, verify) as client:

        async def ask(number: int) -> None:
            exchange = await client.ask(server.url, attempt=AttemptId(f"a{number}"))
            reached.append(exchange.reach)

        async with anyio.create_task_group() as tasks:
            for number in range(count):
                tasks.start_soon(ask, number)
    assert reached == [Reach.COMPLETE] * count


# TLS


def certificates() -> dict[str, tuple[trustme.CA, trustme.LeafCert]]:
    """Certificates that a client must not accept, with the authority that it trusts."""
    ours, other = trustme.CA(), trustme.CA()
    yesterday = datetime.now(UTC) - timedelta(days=1)
    expired = ours.issue_cert("127.0.0.1", not_before=yesterday, not_after=yesterday)
    return {
        "expired": (ours, expired),
        "of another host": (ours, ours.issue_cert("gateway.example")),
        "of an unknown authority": (ours, other.issue_cert("127.0.0.1")),
    }


BAD_CERTIFICATES = certificates()


def shown(certificate: trustme.LeafCert) -> ssl.SSLContext:
    """For the server that shows it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@pytest.mark.parametrize("which", BAD_CERTIFICATES)
@pytest.mark.fault("N05")
async def test_invalid_certificate_stops_before_a_byte_is_sent(which: str, tmp_path: Path) -> None:
    trusted, certificate = BAD_CERTIFICATES[which]
    trusting = ssl.create_default_context()
    trusted.configure_trust(trusting)
    script = wire.answering(wire.response(GOOD))
    async with wire.serve(script, shown(certificate)) as server, asker(tmp_path, trusting) as us:
        exchange = await us.ask(server.url)
    assert (exchange.reach, exchange.failure) == (Reach.NOTHING, Failure.TLS)
    assert outcome(exchange) is Outcome.STOP
    assert server.requests == []


@pytest.mark.fault("N05")
async def test_run_stops_at_an_untrusted_certificate(tmp_path: Path) -> None:
    certificate = trustme.CA().issue_cert("127.0.0.1")
    async with gateway(shown(certificate)) as provider:
        done = await provider.run(tmp_path, jobs=3, code=3)
        assert provider.posts == []
    assert "certificate" in done.stdout
    found = await anyio.to_thread.run_sync(rig.status, tmp_path)
    assert found["jobs"]["pending"] == 3
    assert found["cost"]["maybe"] == "0.000000"


@pytest.mark.fault("N03", "N06")
async def test_a_reset_in_the_handshake_is_safe(tmp_path: Path, verify: ssl.SSLContext) -> None:
    async def drop(connection: wire.Connection, server: wire.Server) -> None:
        connection.reset()

    async with wire.serve(drop) as server, asker(tmp_path, verify) as client:
        exchange = await client.ask(server.url.replace("http:", "https:"))
    assert exchange.reach is Reach.NOTHING
    assert outcome(exchange) is Outcome.SAFE


@pytest.mark.fault("N23")
async def test_http_2_is_not_offered(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = shown(authority.issue_cert("127.0.0.1"))
    context.set_alpn_protocols(["h2"])
    trusting = batchgen.http.session.ssl_context()
    authority.configure_trust(trusting)
    chosen: list[str | None] = []

    async def script(connection: wire.Connection, server: wire.Server) -> None:
        chosen.append(connection._writer.get_extra_info("ssl_object").selected_alpn_protocol())
        await wire.answering(wire.response(GOOD))(connection, server)

    async with wire.serve(script, context) as server, asker(tmp_path, trusting) as client:
        exchange = await client.ask(server.url)
    assert exchange.reach is Reach.COMPLETE
    assert chosen == [None]


# Bytes


@pytest.mark.fault("N17")
async def test_a_gzip_bomb_does_not_go_off(tmp_path: Path, verify: ssl.SSLContext) -> None:
    bomb = gzip.compress(bytes(64 * 1024 * 1024))
    script = wire.answering(wire.response(bomb, Content_Encoding="gzip"))
    tracemalloc.start()
    try:
        exchange, spool = await ask_once(tmp_path, verify, script)
        found = spool.find(ATTEMPT)
        assert found is not None
        classification = classify(exchange, read_response(found.body(), found.headers))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found.body()) < 2 * 1024 * 1024
    assert classification.outcome is Outcome.AMBIGUOUS
    assert peak < 16 * 1024 * 1024


@pytest.mark.fault("N18")
async def test_bytes_after_the_end_of_a_response_are_ignored(
    tmp_path: Path, verify: ssl.SSLContext
) -> None:
    script = wire.answering(wire.response(GOOD, Connection="close") + b"surplus")
    exchange, spool = await ask_once(tmp_path, verify, script)
    assert exchange.reach is Reach.COMPLETE
    found = spool.find(ATTEMPT)
    assert found is not None
    assert found.body() == GOOD


@asynccontextmanager
async def downloads(verify: ssl.SSLContext) -> AsyncIterator[Downloader]:
    async with Downloader(
        network=Network(verify), deadlines=Deadlines(), access=Access(allow_loopback=True)
    ) as client:
        yield client


@pytest.mark.parametrize("image", [IMAGE, IMAGE[:500]], ids=["large", "small"])
@pytest.mark.fault("N18")
async def test_bytes_after_the_end_of_an_image_are_ignored(
    image: bytes, tmp_path: Path, verify: ssl.SSLContext
) -> None:
    script = wire.answering(wire.response(image) + b"surplus")
    async with wire.serve(script) as server, downloads(verify) as client:
        assert await fetch(client, f"{server.url}/1.png", tmp_path / "1.png") is None
    assert (tmp_path / "1.png").read_bytes() == image


@pytest.mark.fault("N19", "N20")
@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: -5\r\n",
        b"Content-Length: five\r\n",
        b"".join(b"X-%d: %s\r\n" % (number, b"v" * 1000) for number in range(300)),
    ],
    ids=["negative length", "length in words", "300 KB of headers"],
)
async def test_download_with_a_malformed_head_can_be_retried(
    head: bytes, tmp_path: Path, verify: ssl.SSLContext
) -> None:
    script = wire.answering(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + IMAGE)
    async with wire.serve(script) as server, downloads(verify) as client:
        result = await fetch(client, f"{server.url}/1.png", tmp_path / "1.png")
    assert result is not None
    assert result == FetchResult(detail=result.detail)


@pytest.mark.fault("N22")
async def test_reused_connection_that_closes_costs_no_download(
    tmp_path: Path, verify: ssl.SSLContext
) -> None:
    async def once(connection: wire.Connection, server: wire.Server) -> None:
        await wire.receive(connection, server)
        await connection.send(wire.response(IMAGE))
        await connection.head()  # the next request comes, and the connection ends

    async with wire.serve(once) as server, downloads(verify) as client:
        for number in range(3):
            file = tmp_path / f"{number}.png"
            assert await fetch(client, f"{server.url}/{number}.png", file) is None
            assert file.read_bytes() == IMAGE
    assert server.connections == 3


@pytest.mark.fault("N32", "N33")
async def test_download_requests_no_range(tmp_path: Path, verify: ssl.SSLContext) -> None:
    """What a run of its own would do: each try begins at the first byte, on a file of its own."""
    whole = wire.response(IMAGE, ETag='"2"')
    async with wire.serve(routes({"/1.png": whole})) as server, downloads(verify) as client:
        (tmp_path / "1.png.part").write_bytes(b"what an earlier try left")
        assert await fetch(client, f"{server.url}/1.png", tmp_path / "1.png") is None
    assert (tmp_path / "1.png").read_bytes() == IMAGE
    assert not {"range", "if-range"} & set(server.requests[0].headers)


PNG = image("blue")
TROUBLE = {
    "cut.png": wire.response(PNG)[:-9],
    "chunks.png": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n" + PNG[:8] + b"\r\n",
    "closed.png": b"HTTP/1.0 200 OK\r\n\r\n" + PNG[:-9],
    "range.png": wire.response(PNG[9:], "206 Partial Content", Content_Range="bytes 9-99/100"),
    "beyond.png": wire.response(b"", "416 Range Not Satisfiable", Content_Range="bytes */9"),
    "lengths.png": b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
    "page.png": wire.response(b"<!DOCTYPE html>sign in", Content_Type="text/html"),
    "error.png": wire.response(b"<?xml version='1.0'?><Error/>", Content_Type="image/png"),
    "nothing.png": wire.response(b""),
    "banner.png": b"SSH-2.0-OpenSSH_9.6\r\n",
}


@pytest.mark.fault("N13", "N14", "N15", "N19", "N32", "N33", "B10", "B11")
async def test_failed_download_is_repeated_and_never_rebought(
    tmp_path: Path,
) -> None:
    async with gateway() as provider:
        names = list(TROUBLE)
        provider.files = {name: [bad, wire.response(PNG)] for name, bad in TROUBLE.items()}
        provider.reply = lambda number: response({"url": provider.url(names[number])})
        await provider.run(tmp_path, jobs=len(names))
        assert len(provider.posts) == len(names)
        asked = [request.line.split()[1].lstrip("/") for request in provider.gets]
        assert sorted(asked) == sorted(names * 2)
        assert not any("range" in request.headers for request in provider.gets)
    assert set(saved(tmp_path).values()) == {PNG}
    assert len(saved(tmp_path)) == len(names)


# Whole networks


@pytest.fixture
def between(tmp_path: Path) -> Iterator[tuple[rig.Endpoint, Proxy]]:
    """An endpoint that takes its time, and a proxy in front of it."""
    switches = ("--fast-images", "--latency", "0.3")
    with (
        rig.endpoint(tmp_path / "state", *switches) as endpoint,
        proxy(urlsplit(endpoint.base_url).port or 0) as made,
    ):
        yield endpoint, made


@pytest.mark.fault("N36")
def test_network_outage_costs_only_requests_in_flight(
    between: tuple[rig.Endpoint, Proxy], tmp_path: Path
) -> None:
    endpoint, network = between
    path = rig.manifest(
        tmp_path,
        f"{network.url}/v1",
        [f"image {number}" for number in range(12)],
        limits='{concurrency: 2, max_waste: "0"}',
    )
    ends: list[str] = []
    with rig.start("run", path, "--json", cwd=tmp_path) as process:
        for event in rig.events(process):
            if event.get("event") == "attempt_ended":
                ends.append(event["outcome"])
                if len(ends) == 2:
                    while not endpoint.judge("stats")["in_flight"]:
                        pass
                    network.down()
                elif ends.count("safe") == 2:
                    network.up()
    lost = ends.count("ambiguous")
    assert process.returncode == 1
    assert 1 <= lost <= 2
    assert set(ends) == {"ok", "safe", "ambiguous"}
    found = rig.status(tmp_path)
    assert (found["jobs"]["done"], found["jobs"]["uncertain"]) == (12 - lost, lost)
    endpoint.wait_until_idle()
    rig.judge(tmp_path, endpoint.bill(), finished=True)


@pytest.mark.fault("N08", "N09", "N11", "N13")
def test_cut_connections_keep_ledger_and_bill_equal(
    between: tuple[rig.Endpoint, Proxy], tmp_path: Path
) -> None:
    endpoint, network = between
    cuts = [Weather(request_bytes=200, reset=True), Weather(response_bytes=300)]
    network.forecast = lambda number: cuts[number // 3 % 2] if number % 3 == 2 else Weather()
    path = rig.manifest(
        tmp_path,
        f"{network.url}/v1",
        [f"image {number}" for number in range(20)],
        limits='{concurrency: 4, max_waste: "0"}',
    )
    rig.batchgen("run", path, cwd=tmp_path, code=1)
    endpoint.wait_until_idle()
    rig.judge(tmp_path, endpoint.bill(), finished=True)
    found = rig.status(tmp_path)["jobs"]
    assert found["uncertain"] > 0
    assert found["done"] + found["uncertain"] == 20


@pytest.mark.fault("N12")
def test_a_slow_and_sliced_network_loses_nothing(
    between: tuple[rig.Endpoint, Proxy], tmp_path: Path
) -> None:
    endpoint, network = between
    slow = Weather(latency_s=0.001, bytes_per_s=2e6, slice_bytes=700, slow_close_s=0.1)
    network.forecast = lambda _: slow
    path = rig.manifest(tmp_path, f"{network.url}/v1", ["one", "two", "three"])
    rig.batchgen("run", path, cwd=tmp_path)
    rig.judge(tmp_path, endpoint.bill(), finished=True)


LOGIN = "<html><title>Hotel Wi-Fi</title>"
PORTALS = {
    "banner": (b"220 mail.example ESMTP ready\r\n", "ambiguous"),
    "page": (wire.response(LOGIN.encode(), Content_Type="text/html"), "ambiguous"),
}


@pytest.mark.parametrize("which", PORTALS)
@pytest.mark.fault("N37", "N38", "B01")
async def test_port_with_one_response_for_all_gets_three_requests(
    which: str, tmp_path: Path
) -> None:
    reply, _ = PORTALS[which]
    async with gateway() as provider:
        provider.reply = lambda _: reply
        path = rig.manifest(
            tmp_path,
            f"{provider.server.url}/v1",
            [f"image {number}" for number in range(20)],
            limits='{concurrency: 1, max_waste: "0"}',
        )
        await anyio.to_thread.run_sync(partial(_until_silent, path))
        assert len(provider.posts) == 3
    found = await anyio.to_thread.run_sync(rig.status, tmp_path)
    assert (found["jobs"]["uncertain"], found["jobs"]["pending"]) == (3, 17)
    assert found["attempts"] == {"total": 3, "billed": 0, "maybe": 3, "not_billed": 0}


@pytest.mark.fault("N38")
async def test_captive_portal_stops_the_run_for_free(tmp_path: Path) -> None:
    async with gateway() as provider:
        provider.reply = lambda _: wire.response(b"", "302 Found", Location="http://login.example/")
        done = await provider.run(tmp_path, jobs=20, code=3)
        assert len(provider.posts) == 1
    assert "base_url redirects to http://login.example/" in done.stdout
    found = await anyio.to_thread.run_sync(rig.status, tmp_path)
    assert found["jobs"]["pending"] == 20
    assert found["cost"]["maybe"] == "0.000000"


def _until_silent(path: Path) -> None:
    """Run until nothing is sent for a second, and end it."""
    seen: queue.Queue[str] = queue.Queue()
    with rig.start("run", path, "--json", cwd=path.parent) as process:

        def read() -> None:
            for event in rig.events(process):
                seen.put(str(event.get("event")))

        reading = threading.Thread(target=read)
        reading.start()
        seen.get(timeout=rig.TIMEOUT_S)
        try:
            while True:
                seen.get(timeout=1)
        except queue.Empty:
            process.terminate()
        reading.join(rig.TIMEOUT_S)
