"""Downloads from servers that misbehave, and the URLs that no download may go to."""

from __future__ import annotations

import gzip
import logging
import os
import socket
import ssl
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import batchgen.http.download
from batchgen.http.content_coding import ContentDecoder
from batchgen.http.deadlines import Deadlines
from batchgen.http.download import Downloader, Validators
from batchgen.http.network import Access, Network
from batchgen.http.session import ssl_context
from batchgen.outcomes.download_policy import FetchResult
from batchgen.system.atomic_files import PartFile
from tests.support import wire
from tests.support.canary import CANARY
from tests.support.downloads import IMAGE, Script, fetch, routes

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def verify() -> ssl.SSLContext:
    return ssl_context()


@asynccontextmanager
async def downloader(
    verify: ssl.SSLContext, *, allow_loopback: bool = True, deadlines: Deadlines | None = None
) -> AsyncIterator[Downloader]:
    """A downloader as a run makes it."""
    async with Downloader(
        network=Network(verify),
        deadlines=deadlines or Deadlines(),
        access=Access(allow_loopback=allow_loopback),
    ) as made:
        yield made


async def fetch_once(
    script: Script, verify: ssl.SSLContext, file: Path, path: str = "/1.png"
) -> tuple[FetchResult | None, wire.Server]:
    """One download from a server that follows the script."""
    async with wire.serve(script) as server, downloader(verify) as client:
        return await fetch(client, server.url + path, file), server


def resolving(monkeypatch: pytest.MonkeyPatch, names: Mapping[str, list[str]]) -> list[str]:
    """Resolve names to IP addresses, as no real name service does here; record the requests."""
    asked: list[str] = []

    def getaddrinfo(name: str, port: object, **_: object) -> list[object]:
        asked.append(name)
        if name not in names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(0, 0, 0, "", (ip, 0)) for ip in names[name]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


# What comes


async def test_a_image_arrives_byte_by_byte_the_same(
    tmp_path: Path, verify: ssl.SSLContext
) -> None:
    file = tmp_path / "1.png"
    result, _ = await fetch_once(routes({"/1.png": wire.response(IMAGE)}), verify, file)
    assert result is None
    assert file.read_bytes() == IMAGE


async def test_a_image_in_chunks_arrives(tmp_path: Path, verify: ssl.SSLContext) -> None:
    chunks = b"".join(b"%x\r\n%s\r\n" % (4, IMAGE[i : i + 4]) for i in range(0, 400, 4))
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    file = tmp_path / "1.png"
    result, _ = await fetch_once(wire.answering(head + chunks + b"0\r\n\r\n"), verify, file)
    assert result is None
    assert file.read_bytes() == IMAGE[:400]


@pytest.mark.fault("N13", "N14", "N19")
@pytest.mark.parametrize(
    "response",
    [
        wire.response(IMAGE)[:-1],
        wire.response(IMAGE)[:300],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"",
    ],
    ids=["one byte short", "most missing", "no last chunk", "two lengths", "banner", "nothing"],
)
async def test_a_broken_response_is_no_image(
    response: bytes, tmp_path: Path, verify: ssl.SSLContext
) -> None:
    result, _ = await fetch_once(wire.answering(response), verify, tmp_path / "1.png")
    assert result is not None
    assert result.detail
    assert not result.forbidden
    assert not result.bad_image


@pytest.mark.fault("N32")
@pytest.mark.parametrize("status", [201, 204, 206, 304, 403, 404, 410, 429, 500, 503])
async def test_any_status_but_200_is_no_image(
    status: int, tmp_path: Path, verify: ssl.SSLContext
) -> None:
    body = b"" if status in (204, 304) else b"<Error/>"
    response = wire.response(body, f"{status} Some", Retry_After="7")
    result, _ = await fetch_once(wire.answering(response), verify, tmp_path / "1.png")
    assert result == FetchResult(status=status, retry_after_s=7.0)


async def test_a_refused_connection_is_tried_again_later(
    tmp_path: Path, verify: ssl.SSLContext
) -> None:
    async with downloader(verify) as client:
        url = f"http://127.0.0.1:{wire.free_port()}/1.png"
        result = await fetch(client, url, tmp_path / "1.png")
    assert result is not None
    assert result.detail
    assert not result.forbidden


async def test_an_unknown_host_is_tried_again_later(tmp_path: Path, verify: ssl.SSLContext) -> None:
    async with downloader(verify) as client:
        result = await fetch(client, "https://images.invalid/1.png", tmp_path / "1.png")
    assert result is not None
    assert result.detail
    assert not result.forbidden


def raw_deflate(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-15)
    return deflater.compress(data) + deflater.flush()


MEANINGLESS = ["aws-chunked", "utf-8", "binary", "", "br", "gzip", "deflate", "gzip, aws-chunked"]
CODED = {
    "gzip": ("gzip", gzip.compress(IMAGE)),
    "gzip without a header": ("", gzip.compress(IMAGE)),
    "gzip in two members": ("x-gzip", gzip.compress(IMAGE[:9]) + gzip.compress(IMAGE[9:])),
    "gzip with padding": ("gzip", gzip.compress(IMAGE) + bytes(99)),
    "deflate": ("deflate", zlib.compress(IMAGE)),
    "deflate without zlib header": ("Deflate", raw_deflate(IMAGE)),
}


async def chunks(connection: wire.Connection, body: bytes, coding: str, size: int) -> None:
    """Send a body with a Content-Encoding in chunks of ``size`` bytes."""
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nTransfer-Encoding: chunked\r\n\r\n"
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    framed = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    await connection.send(head.encode() + framed + b"0\r\n\r\n")


@pytest.mark.fault("N16", "XA11")
@pytest.mark.parametrize("coding", MEANINGLESS)
async def test_a_coding_that_is_not_applied_is_ignored(
    coding: str, tmp_path: Path, verify: ssl.SSLContext
) -> None:
    response = wire.response(IMAGE, Content_Encoding=coding)
    result, server = await fetch_once(wire.answering(response), verify, tmp_path / "1.png")
    assert result is None
    assert (tmp_path / "1.png").read_bytes() == IMAGE
    assert server.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.fault("N16", "XA11")
@pytest.mark.parametrize("size", [1, 7, 65_536])
@pytest.mark.parametrize(("coding", "body"), CODED.values(), ids=CODED)
async def test_an_applied_coding_is_undone(
    coding: str, body: bytes, size: int, tmp_path: Path, verify: ssl.SSLContext
) -> None:
    async def script(connection: wire.Connection, server: wire.Server) -> None:
        await wire.receive(connection, server)
        await chunks(connection, body, coding, size)

    result, _ = await fetch_once(script, verify, tmp_path / "1.png")
    assert result is None
    assert (tmp_path / "1.png").read_bytes() == IMAGE


@pytest.mark.fault("XA11")
@pytest.mark.parametrize(
    ("body", "trouble"),
    [
        (gzip.compress(IMAGE)[:-9], "compressed data is cut off"),
        (gzip.compress(IMAGE)[:20], "compressed data is cut off"),
        (gzip.compress(IMAGE)[:12] + b"\xff" * 99, "compressed data is broken"),
        (gzip.compress(b"") * 99, "more than 16 compressed members"),
    ],
    ids=["end missing", "most missing", "broken", "many members"],
)
async def test_a_broken_coding_is_refused(
    body: bytes, trouble: str, tmp_path: Path, verify: ssl.SSLContext
) -> None:
    response = wire.response(body, Content_Encoding="gzip")
    result, _ = await fetch_once(wire.answering(response), verify, tmp_path / "1.png")
    assert result is not None
    assert result.bad_image.startswith(trouble)
    assert not (tmp_path / "1.png").exists()


@pytest.mark.fault("XA11", "B18")
@pytest.mark.parametrize("layers", [1, 2])
async def test_a_decompression_bomb_stays_under_the_cap(
    layers: int, tmp_path: Path, verify: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    cap = 2 * 1024 * 1024
    monkeypatch.setattr(batchgen.http.download, "MAX_IMAGE_BYTES", cap)
    bomb = gzip.compress(bytes(64 * cap))
    for _ in range(layers - 1):
        bomb = gzip.compress(bomb)
    response = wire.response(bomb, Content_Encoding="gzip")
    tracemalloc.start()
    result, _ = await fetch_once(wire.answering(response), verify, tmp_path / "1.png")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * cap
    if layers == 1:
        assert result == FetchResult(bad_image="larger than 2 MiB")
    else:
        assert (tmp_path / "1.png").stat().st_size < cap, "only one layer is undone"


@given(st.binary(max_size=4_000), st.lists(st.integers(1, 999), max_size=9), st.text(max_size=9))
def test_any_body_ends_as_it_came_or_undone(data: bytes, sizes: list[int], coding: str) -> None:
    for body, wanted in ((data, data), (gzip.compress(data), data)):
        if wanted is body and (body.startswith(b"\x1f\x8b\x08") or "deflate" in coding.lower()):
            continue
        decoder, at, found = ContentDecoder(coding), 0, b""
        for size in [*sizes, len(body) + 1]:
            found += b"".join(decoder.feed(body[at : at + size]))
            at += size
        found += b"".join(decoder.end())
        assert found == wanted


@pytest.mark.fault("B18")
async def test_a_image_over_the_cap_is_given_up(
    tmp_path: Path, verify: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batchgen.http.download, "MAX_IMAGE_BYTES", 2 * 1024 * 1024)

    async def endless(connection: wire.Connection, server: wire.Server) -> None:
        await wire.receive(connection, server)
        await connection.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await connection.send(bytes(10_000))

    result, _ = await fetch_once(endless, verify, tmp_path / "1.png")
    assert result is not None
    assert result.bad_image == "larger than 2 MiB"
    assert (tmp_path / "1.png.part").stat().st_size <= 2 * 1024 * 1024


@pytest.mark.fault("N12")
async def test_a_drip_feed_is_ended_by_the_deadline(
    tmp_path: Path, verify: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batchgen.http.download, "DOWNLOAD_DEADLINE_S", 0.3)

    async def drip(connection: wire.Connection, server: wire.Server) -> None:
        await wire.receive(connection, server)
        await connection.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await connection.send(b" ")
            await anyio.sleep(0.02)

    result, _ = await fetch_once(drip, verify, tmp_path / "1.png")
    assert result == FetchResult(detail="not complete within 0.3 s")


async def test_a_download_that_the_machine_slept_through_is_over(
    tmp_path: Path, verify: ssl.SSLContext
) -> None:
    now = 0.0
    deadlines = Deadlines(lambda: now)
    got: list[FetchResult | None] = []

    async def silent(connection: wire.Connection, server: wire.Server) -> None:
        await wire.receive(connection, server)
        await connection.gone()

    async with (
        wire.serve(silent) as server,
        downloader(verify, deadlines=deadlines) as client,
        anyio.create_task_group() as tasks,
    ):

        async def run() -> None:
            got.append(await fetch(client, f"{server.url}/1.png", tmp_path / "1.png"))

        tasks.start_soon(run)
        await server.seen.wait()
        now = batchgen.http.download.DOWNLOAD_DEADLINE_S + 1
        deadlines.expire()
    assert got[0] is not None
    assert "not complete" in got[0].detail


async def test_a_disk_that_refuses_raises(tmp_path: Path, verify: ssl.SSLContext) -> None:
    full = Path("/dev/full")
    if not os.access(full, os.W_OK):
        pytest.skip("this platform has no /dev/full")

    class FullDisk(PartFile):
        """A part whose writes meet a disk without space."""

        async def __aenter__(self) -> FullDisk:
            self.part = full
            await super().__aenter__()
            return self

    async with (
        wire.serve(wire.answering(wire.response(IMAGE))) as server,
        downloader(verify) as client,
    ):
        with pytest.raises(OSError, match="No space left"):
            async with FullDisk(tmp_path / "1.png", keep=True) as part:
                await client.fetch(f"{server.url}/1.png", part)


# Redirects


async def test_redirects_are_followed_to_the_image(tmp_path: Path, verify: ssl.SSLContext) -> None:
    async with wire.serve(routes({"/5/1.png?sig=1": wire.response(IMAGE)})) as store:
        responses = {
            "/1.png": wire.response(b"moved", "301 Moved", Location="/2"),
            "/2": wire.response(b"", "302 Found", Location="3?x=/y"),
            "/3?x=/y": wire.response(b"", "303 See Other", Location="//127.0.0.1:PORT/4"),
            "/4": wire.response(b"", "307 Temporary", Location="/5"),
            "/5": wire.response(b"", "308 Permanent", Location=f"{store.url}/5/1.png?sig=1"),
        }
        async with wire.serve(routes(responses)) as server, downloader(verify) as client:
            port = str(server.port).encode()
            responses["/3?x=/y"] = responses["/3?x=/y"].replace(b"PORT", port)
            result = await fetch(client, f"{server.url}/1.png", tmp_path / "1.png")
    assert result is None
    assert (tmp_path / "1.png").read_bytes() == IMAGE
    assert len(server.requests) == 5
    assert [request.line for request in store.requests] == ["GET /5/1.png?sig=1 HTTP/1.1"]


@pytest.mark.fault("N26")
async def test_a_redirect_loop_ends(tmp_path: Path, verify: ssl.SSLContext) -> None:
    script = routes({"/1.png": wire.response(b"", "302 Found", Location="/1.png")})
    result, server = await fetch_once(script, verify, tmp_path / "1.png")
    assert result == FetchResult(detail="more than 5 redirects")
    assert len(server.requests) == 6


@pytest.mark.fault("N28", "N30", "N31")
@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/1.png",
        "gopher://127.0.0.1/",
        "unix:/run/docker.sock",
        "data:image/png;base64,AAAA",
        "http://10.0.0.1/1.png",
        "http://169.254.169.254/latest/meta-data/",
        "http://user:secret@127.0.0.1/1.png",
        "http://127.0.0.1:99999/",
        "http://[::",
        "http://127.0.0.1/\x7f",
        "http://127.0.0.1/" + "a" * 9000,
    ],
)
async def test_a_redirect_to_a_forbidden_place_is_not_followed(
    location: str, tmp_path: Path, verify: ssl.SSLContext
) -> None:
    script = routes({"/1.png": wire.response(b"", "302 Found", Location=location)})
    result, server = await fetch_once(script, verify, tmp_path / "1.png")
    assert result is not None
    assert result.forbidden or result.detail
    assert "secret" not in result.forbidden
    assert len(server.requests) == 1


async def test_a_redirect_without_an_address_is_an_response(
    tmp_path: Path, verify: ssl.SSLContext
) -> None:
    script = wire.answering(wire.response(b"", "302 Found"))
    result, _ = await fetch_once(script, verify, tmp_path / "1.png")
    assert result == FetchResult(status=302)


# https


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> wire.Certificate:
    directory = tmp_path_factory.mktemp("tls")
    return wire.certificate(directory, "IP:127.0.0.1", "DNS:images.test", "DNS:other.test")


@pytest.mark.fault("N27")
async def test_https_may_not_lead_to_http(tmp_path: Path, certificate: wire.Certificate) -> None:
    async with wire.serve(routes({"/1.png": wire.response(IMAGE)})) as plain:
        moved = wire.response(b"", "302 Found", Location=f"{plain.url}/1.png")
        async with (
            wire.serve(wire.answering(moved), certificate.server()) as server,
            downloader(certificate.trusting()) as client,
        ):
            result = await fetch(client, f"{server.url}/1.png", tmp_path / "1.png")
    assert result is not None
    assert "from https:// to http://" in result.forbidden
    assert plain.connections == 0


async def test_http_may_lead_to_https(tmp_path: Path, certificate: wire.Certificate) -> None:
    script = wire.answering(wire.response(IMAGE))
    async with wire.serve(script, certificate.server()) as secure:
        moved = wire.response(b"", "302 Found", Location=f"{secure.url}/1.png")
        async with (
            wire.serve(wire.answering(moved)) as server,
            downloader(certificate.trusting()) as client,
        ):
            assert await fetch(client, f"{server.url}/1.png", tmp_path / "1.png") is None


@pytest.mark.fault("N29")
async def test_certificate_is_checked_against_the_host_name(
    tmp_path: Path, certificate: wire.Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolving(monkeypatch, {"images.test": ["127.0.0.1"], "foreign.test": ["127.0.0.1"]})
    asked: list[str | None] = []
    context = certificate.server()
    context.sni_callback = lambda _, name, __: asked.append(name)
    script = routes({"/1.png": wire.response(IMAGE)})
    async with (
        wire.serve(script, context) as server,
        downloader(certificate.trusting()) as client,
    ):
        good = f"https://images.test:{server.port}/1.png"
        assert await fetch(client, good, tmp_path / "1.png") is None
        result = await fetch(
            client, f"https://foreign.test:{server.port}/1.png", tmp_path / "2.png"
        )
    assert asked == ["images.test", "foreign.test"]
    assert result is not None
    assert "certificate" in result.detail.lower()
    assert [request.headers["host"] for request in server.requests] == [
        f"images.test:{server.port}"
    ]


async def test_connection_is_not_shared_by_hosts_of_one_ip_address(
    tmp_path: Path, certificate: wire.Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"cdn{number}.test" for number in range(12)]
    resolving(monkeypatch, {name: ["127.0.0.1"] for name in names})
    script = routes({"/1.png": wire.response(b"x")})
    async with wire.serve(script) as server, downloader(certificate.trusting()) as client:
        for name in names:
            for _ in range(2):
                url = f"http://{name}:{server.port}/1.png"
                assert await fetch(client, url, tmp_path / "1.png") is None
    assert server.connections == len(names)
    assert [request.headers["host"] for request in server.requests] == [
        f"{name}:{server.port}" for name in names for _ in range(2)
    ]


# Credentials


@pytest.mark.fault("S09", "S11")
async def test_a_download_carries_no_credential_and_no_cookie(
    tmp_path: Path,
    verify: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login someone password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    moved = wire.response(b"", "302 Found", Location="/2.png", Set_Cookie="a=1; Path=/")
    image = wire.response(IMAGE, Set_Cookie="b=2; Path=/")
    script = routes({"/1.png": moved, "/2.png": image})
    async with (
        wire.serve(routes({})) as proxy,
        wire.serve(script) as server,
        downloader(verify) as client,
    ):
        for name in ("http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        for _ in range(2):
            assert await fetch(client, f"{server.url}/1.png", tmp_path / "1.png") is None
    assert proxy.connections == 0
    assert len(server.requests) == 4
    for request in server.requests:
        assert set(request.headers) == {
            "host",
            "accept",
            "accept-encoding",
            "user-agent",
        }


@pytest.mark.fault("S02")
async def test_the_signature_of_an_address_is_in_no_log(
    tmp_path: Path, verify: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    moved = wire.response(b"", "302 Found", Location="/2.png?X-Amz-Signature=CANARY")
    script = routes({"/1.png": moved, "/2.png?X-Amz-Signature=CANARY": wire.response(IMAGE)})
    result, _ = await fetch_once(script, verify, tmp_path / "1.png")
    assert result is None
    assert "CANARY" not in caplog.text


# URLs and IP addresses

LOOPBACK = [
    "http://127.0.0.1:{port}/1.png",
    "http://127.0.0.2:{port}/1.png",
    "http://127.1:{port}/1.png",
    "http://2130706433:{port}/1.png",
    "http://0x7f000001:{port}/1.png",
    "http://0x7f.0.0.1:{port}/1.png",
    "http://0177.0.0.1:{port}/1.png",
    "http://017700000001:{port}/1.png",
    "http://localhost:{port}/1.png",
    "http://LOCALHOST:{port}/1.png",
    "http://[::1]:{port}/1.png",
    "http://[::ffff:127.0.0.1]:{port}/1.png",
    "http://[::127.0.0.1]:{port}/1.png",
    "http://[::ffff:7f00:1]:{port}/1.png",
    "http://[64:ff9b::7f00:1]:{port}/1.png",
    "http://[2002:7f00:1::]:{port}/1.png",
    "http://\uff11\uff12\uff17.0.0.1:{port}/1.png",
    "http://127\u30020\u30020\u30021:{port}/1.png",
]
PRIVATE = [
    "http://0.0.0.0:{port}/1.png",
    "http://10.0.0.1/1.png",
    "http://172.16.0.1/1.png",
    "http://192.168.1.1/1.png",
    "http://100.64.0.1/1.png",
    "http://169.254.169.254/latest/meta-data/",
    "http://0xa9fea9fe/latest/meta-data/",
    "http://2852039166/latest/meta-data/",
    "http://[::ffff:169.254.169.254]/",
    "http://[::ffff:a9fe:a9fe]/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://[2002:a9fe:a9fe::1]/",
    "http://192.0.2.1/",
    "http://198.18.0.1/",
    "http://224.0.0.1/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
    "http://[::]/",
    "http://[fc00::1]/",
    "http://[fd12:3456::1]/",
    "http://[fe80::1]/",
    "http://[fec0::1]/",
    "http://[::10.0.0.1]/",
    "http://[64:ff9b:1::7f00:1]/",
    "http://[ff02::1]/",
]
MALFORMED = [
    "",
    "1.png",
    "/1.png",
    "file:///etc/passwd",
    "file://localhost/etc/passwd",
    "ftp://127.0.0.1:{port}/1.png",
    "gopher://127.0.0.1:{port}/",
    "unix:///run/docker.sock",
    "javascript:alert(1)",
    "http://",
    "http:///1.png",
    "http://user@127.0.0.1:{port}/1.png",
    "http://user:secret@127.0.0.1:{port}/1.png",
    "http://public.example@127.0.0.1:{port}/1.png",
    "http://127.0.0.1:{port}/" + "a" * 65536,
    "http://127.0.0.1:99999/1.png",
    "http://127.0.0.1:port/1.png",
    "http://127.0.0.1:{port}/\x00",
    "http://127.0.0.1:{port}/\r\nX-Injected: 1",
    "http://[::1/1.png",
    "http://xn--/1.png",
]


@pytest.mark.fault("N28", "N30", "N31")
@pytest.mark.parametrize("url", LOOPBACK + PRIVATE + MALFORMED, ids=lambda url: ascii(url)[:60])
async def test_a_forbidden_address_is_never_connected_to(
    url: str, tmp_path: Path, verify: ssl.SSLContext
) -> None:
    script = routes({"/1.png": wire.response(IMAGE)})
    async with wire.serve(script) as server, downloader(verify, allow_loopback=False) as client:
        result = await fetch(client, url.replace("{port}", str(server.port)), tmp_path / "1.png")
    assert result is not None
    assert result.forbidden.startswith("download refused: ")
    assert "secret" not in result.forbidden
    assert server.connections == 0


@pytest.mark.fault("N28")
@pytest.mark.parametrize("url", PRIVATE + MALFORMED, ids=lambda url: ascii(url)[:60])
async def test_loopback_being_allowed_allows_nothing_else(
    url: str, tmp_path: Path, verify: ssl.SSLContext
) -> None:
    script = routes({"/1.png": wire.response(IMAGE)})
    async with wire.serve(script) as server, downloader(verify) as client:
        result = await fetch(client, url.replace("{port}", str(server.port)), tmp_path / "1.png")
    assert result is not None
    assert result.forbidden
    assert server.connections == 0


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/1.png", "http://localhost:{port}/1.png"])
async def test_loopback_is_reached_where_it_is_allowed(
    url: str, tmp_path: Path, verify: ssl.SSLContext
) -> None:
    script = routes({"/1.png": wire.response(IMAGE)})
    async with wire.serve(script) as server, downloader(verify) as client:
        url = url.replace("{port}", str(server.port))
        assert await fetch(client, url, tmp_path / "1.png") is None


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    url=st.one_of(
        st.text(max_size=60),
        st.text(max_size=40).map(lambda text: f"http://127.0.0.1{text}"),
        st.text(alphabet="0123456789.x[]:%@/?#-\u0660\u3002", max_size=30).map(
            lambda text: f"https://127.{text}"
        ),
    )
)
async def test_any_text_for_an_address_gives_a_result(
    url: str, tmp_path: Path, verify: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolving(monkeypatch, {})
    async with downloader(verify, allow_loopback=False) as client:
        assert await fetch(client, url, tmp_path / "1.png") is not None


# Names


@pytest.mark.fault("N29")
async def test_the_checked_address_is_the_one_that_is_asked(
    tmp_path: Path, verify: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = resolving(monkeypatch, {"images.test": ["127.0.0.1"]})
    script = routes({"/1.png": wire.response(IMAGE)})
    async with wire.serve(script) as server, downloader(verify) as client:
        url = f"http://images.test:{server.port}/1.png"
        assert await fetch(client, url, tmp_path / "1.png") is None
    assert asked == ["images.test"]
    assert server.requests[0].headers["host"] == f"images.test:{server.port}"


@pytest.mark.fault("N28")
async def test_one_private_address_among_several_forbids_the_name(
    tmp_path: Path, verify: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolving(monkeypatch, {"mixed.test": ["127.0.0.1", "10.0.0.1"]})
    script = routes({"/1.png": wire.response(IMAGE)})
    async with wire.serve(script) as server, downloader(verify) as client:
        url = f"http://mixed.test:{server.port}/1.png"
        result = await fetch(client, url, tmp_path / "1.png")
    assert result is not None
    assert "10.0.0.1" in result.forbidden
    assert server.connections == 0


@pytest.mark.fault("N29")
async def test_host_that_turns_private_is_refused_at_a_redirect(
    tmp_path: Path, verify: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"rebinding.test": ["127.0.0.1"]}
    resolving(monkeypatch, names)

    async def rebind(connection: wire.Connection, server: wire.Server) -> None:
        await wire.receive(connection, server)
        names["rebinding.test"] = ["192.168.0.1"]
        await connection.send(wire.response(b"", "302 Found", Location="/2.png"))

    async with wire.serve(rebind) as server, downloader(verify) as client:
        url = f"http://rebinding.test:{server.port}/1.png"
        result = await fetch(client, url, tmp_path / "1.png")
    assert result is not None
    assert "192.168.0.1" in result.forbidden
    assert len(server.requests) == 1


@pytest.mark.parametrize("most", [1, 3])
async def test_no_more_are_fetched_at_a_time_than_asked_for(
    most: int, tmp_path: Path, verify: ssl.SSLContext
) -> None:
    at_a_time: list[int] = []
    answered = 0

    async def script(connection: wire.Connection, server: wire.Server) -> None:
        nonlocal answered
        await wire.receive(connection, server)
        at_a_time.append(len(at_a_time) + 1 - answered)
        await anyio.wait_all_tasks_blocked()
        answered += 1
        await connection.send(wire.response(IMAGE))

    client = Downloader(
        network=Network(verify),
        deadlines=Deadlines(),
        access=Access(allow_loopback=True),
        most=most,
    )
    async with wire.serve(script) as server, client, anyio.create_task_group() as tasks:
        for number in range(8):
            url = f"http://127.0.0.1:{server.port}/{number}.png"
            tasks.start_soon(fetch, client, url, tmp_path / f"{number}.png")
    assert max(at_a_time) == most
    assert answered == 8


async def test_host_is_looked_up_again_after_half_a_minute(
    tmp_path: Path, verify: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = resolving(monkeypatch, {"images.test": ["127.0.0.1"]})
    now = 0.0
    script = routes({"/1.png": wire.response(IMAGE), "/2.png": wire.response(IMAGE)})
    async with (
        wire.serve(script) as server,
        Downloader(
            network=Network(verify),
            deadlines=Deadlines(),
            access=Access(allow_loopback=True),
            clock=lambda: now,
        ) as client,
    ):
        base = f"http://images.test:{server.port}"
        for moment, times in ((0.0, 1), (29.9, 1), (30.0, 2), (59.9, 2)):
            now = moment
            for name in ("/1.png", "/2.png"):
                assert await fetch(client, base + name, tmp_path / "1.png") is None
            assert len(asked) == times


async def test_downloads_at_once_share_a_lookup(
    tmp_path: Path, verify: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = resolving(monkeypatch, {"images.test": ["127.0.0.1"]})
    quick = socket.getaddrinfo

    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(0.3)
        return quick(*arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    script = routes({"/1.png": wire.response(IMAGE)})
    async with (
        wire.serve(script) as server,
        downloader(verify) as client,
        anyio.create_task_group() as tasks,
    ):
        for number in range(8):
            url = f"http://images.test:{server.port}/1.png"
            tasks.start_soon(fetch, client, url, tmp_path / f"{number}.png")
    assert asked == ["images.test"]
    assert len(server.requests) == 8


@pytest.mark.parametrize("first", ["127.0.0.9", "::1"])
async def test_an_address_that_does_not_response_is_passed_over(
    first: str, tmp_path: Path, verify: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolving(monkeypatch, {"images.test": [first, "127.0.0.1"]})
    script = routes({"/1.png": wire.response(IMAGE)})
    async with wire.serve(script) as server, downloader(verify) as client:
        url = f"http://images.test:{server.port}/1.png"
        assert await fetch(client, url, tmp_path / "1.png") is None


async def test_a_host_name_in_another_script_is_asked_in_ascii(
    tmp_path: Path, certificate: wire.Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = resolving(monkeypatch, {"xn--bcher-kva.test": ["127.0.0.1"]})
    script = routes({"/1.png": wire.response(IMAGE)})
    async with wire.serve(script) as server, downloader(certificate.trusting()) as client:
        url = f"http://b\u00fccher.test:{server.port}/1.png"
        assert await fetch(client, url, tmp_path / "1.png") is None
    assert asked == ["xn--bcher-kva.test"]
    assert server.requests[0].headers["host"] == f"xn--bcher-kva.test:{server.port}"


# What is known already


def conditional(etag: str, **headers: str) -> Script:
    """A server that returns 304 to a client that knows the tag."""

    async def script(connection: wire.Connection, server: wire.Server) -> None:
        while True:
            request = await wire.receive(connection, server)
            if request.headers.get("if-none-match") == etag:
                await connection.send(b"HTTP/1.1 304 Not Modified\r\n\r\n")
            else:
                await connection.send(wire.response(IMAGE, ETag=etag, **headers))

    return script


async def fetch_changed(
    client: Downloader, url: str, file: Path, known: Validators
) -> Validators | FetchResult:
    async with PartFile(file, keep=True) as part:
        return await client.fetch_changed(url, part, known)


async def test_what_is_unchanged_is_not_sent_again(tmp_path: Path, verify: ssl.SSLContext) -> None:
    day = "Sun, 22 Nov 2026 00:00:00 GMT"
    script = conditional('W/"5e"', Last_Modified=day)
    async with wire.serve(script) as server, downloader(verify) as client:
        url = f"{server.url}/1.png"
        known = await fetch_changed(client, url, tmp_path / "1.png", Validators())
        assert known == Validators(etag='W/"5e"', last_modified=day)
        assert await fetch_changed(client, url, tmp_path / "2.png", known) == FetchResult(
            status=304
        )
    assert server.requests[1].headers["if-modified-since"] == day
    assert not (tmp_path / "2.png.part").exists()


@pytest.mark.parametrize("etag", ["x" * 513, "\xe9t\xe9", ""])
async def test_a_tag_that_cannot_be_sent_back_is_not_kept(
    etag: str, tmp_path: Path, verify: ssl.SSLContext
) -> None:
    async with wire.serve(conditional(etag)) as server, downloader(verify) as client:
        known = await fetch_changed(client, f"{server.url}/1.png", tmp_path / "1", Validators())
    assert known == Validators()


class Outside(Downloader):
    """A downloader to which one name, that a test's server has, is a public one."""

    def _check_ip(self, ip: IPv4Address | IPv6Address, host: str) -> None:
        if host != "shop.test":
            super()._check_ip(ip, host)


@pytest.mark.fault("N28")
@pytest.mark.parametrize("target", ["127.0.0.1", "localhost", "10.0.0.1", "[::1]", "inner.test"])
async def test_public_provider_cannot_redirect_to_this_machine(
    target: str, tmp_path: Path, verify: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"shop.test": "127.0.0.1", "localhost": "127.0.0.1", "inner.test": "192.168.0.1"}
    asked = resolving(monkeypatch, {name: [to] for name, to in names.items()})

    async def moved(connection: wire.Connection, server: wire.Server) -> None:
        await wire.receive(connection, server)
        to = f"http://{target}:{server.port}/2.png"
        await connection.send(wire.response(b"", "302 Found", Location=to))

    async with (
        wire.serve(moved) as server,
        Outside(network=Network(verify), deadlines=Deadlines(), access=Access()) as client,
    ):
        url = f"http://shop.test:{server.port}/1.png"
        result = await fetch_changed(client, url, tmp_path / "1.png", Validators())
    assert isinstance(result, FetchResult)
    assert "which is not a public IP address" in result.forbidden
    assert asked == ["shop.test", *(name for name in names if name == target)]
    assert server.connections == 1


async def test_a_redirect_leads_to_another_host(
    tmp_path: Path, verify: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolving(monkeypatch, {"shop.test": ["127.0.0.1"], "cdn.test": ["127.0.0.1"]})
    async with wire.serve(conditional('"5e"')) as cdn:
        to = f"http://cdn.test:{cdn.port}/2.png"
        moved = wire.response(b"", "301 Moved Permanently", Location=to)
        async with wire.serve(routes({"/1.png": moved})) as server, downloader(verify) as client:
            url = f"http://shop.test:{server.port}/1.png"
            known = await fetch_changed(client, url, tmp_path / "1.png", Validators())
    assert known == Validators(etag='"5e"')
    assert cdn.requests[0].headers["host"] == f"cdn.test:{cdn.port}"


# The key of the provider's own origin


def guarded(*allowed: str) -> Script:
    """A server that gives images only to requests with one of these keys."""

    async def script(connection: wire.Connection, server: wire.Server) -> None:
        while True:
            request = await wire.receive(connection, server)
            known = request.headers.get("authorization") in {f"Bearer {key}" for key in allowed}
            refused = wire.response(b"{}", "401 Unauthorized")
            await connection.send(wire.response(IMAGE) if known else refused)

    return script


def with_key(base_url: str, verify: ssl.SSLContext) -> Downloader:
    """A downloader for the provider with this base URL."""
    access = Access.for_provider(base_url, CANARY)
    return Downloader(network=Network(verify), deadlines=Deadlines(), access=access)


async def test_an_image_behind_the_key_is_requested_with_it(
    tmp_path: Path, verify: ssl.SSLContext
) -> None:
    async with (
        wire.serve(guarded(CANARY)) as server,
        with_key(f"{server.url}/v1", verify) as client,
    ):
        assert await fetch(client, f"{server.url}/1.png", tmp_path / "1.png") is None
    assert ["authorization" in request.headers for request in server.requests] == [False, True]
    assert (tmp_path / "1.png").read_bytes() == IMAGE


async def test_the_key_is_sent_once_and_a_refusal_is_the_result(
    tmp_path: Path, verify: ssl.SSLContext
) -> None:
    async with wire.serve(guarded()) as server, with_key(f"{server.url}/v1", verify) as client:
        result = await fetch(client, f"{server.url}/1.png", tmp_path / "1.png")
    assert result == FetchResult(status=401)
    assert len(server.requests) == 2


async def test_the_key_goes_to_no_other_origin(tmp_path: Path, verify: ssl.SSLContext) -> None:
    async with wire.serve(guarded(CANARY)) as other, wire.serve(guarded()) as server:
        for base_url in (f"{server.url}/v1", f"https://127.0.0.1:{other.port}/v1"):
            async with with_key(base_url, verify) as client:
                result = await fetch(client, f"{other.url}/1.png", tmp_path / "1.png")
            assert result == FetchResult(status=401)
    assert not any("authorization" in request.headers for request in other.requests)


@pytest.mark.parametrize("back", [False, True])
async def test_the_key_crosses_no_redirect(
    back: bool, tmp_path: Path, verify: ssl.SSLContext
) -> None:
    """Neither from the provider's origin to another, nor from another one to it."""
    async with wire.serve(guarded(CANARY)) as target:
        moved = wire.response(b"", "302 Found", Location=f"{target.url}/2.png")
        async with wire.serve(routes({"/1.png": moved})) as first:
            base_url = target.url if back else first.url
            async with with_key(f"{base_url}/v1", verify) as client:
                result = await fetch(client, f"{first.url}/1.png", tmp_path / "1.png")
    assert result == FetchResult(status=401)
    for request in (*target.requests, *first.requests):
        assert "authorization" not in request.headers
