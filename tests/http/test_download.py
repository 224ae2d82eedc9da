"""Downloads from servers that misbehave, and the URLs that no download may go to."""

from __future__ import annotations

import gzip
import os
import ssl
import tracemalloc
import zlib
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

import batchgen.http.download
from batchgen.http.content_coding import ContentDecoder
from batchgen.http.deadlines import Deadlines
from batchgen.outcomes.download_policy import FetchResult
from batchgen.system.atomic_files import PartFile
from tests.support import wire
from tests.support.downloads import IMAGE, downloader, fetch, fetch_once, resolving, routes

pytestmark = pytest.mark.anyio


# What comes


async def test_image_arrives_byte_by_byte_the_same(tmp_path: Path, verify: ssl.SSLContext) -> None:
    file = tmp_path / "1.png"
    result, _ = await fetch_once(routes({"/1.png": wire.response(IMAGE)}), verify, file)
    assert result is None
    assert file.read_bytes() == IMAGE


async def test_image_in_chunks_arrives(tmp_path: Path, verify: ssl.SSLContext) -> None:
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
async def test_broken_response_gives_no_image(
    response: bytes, tmp_path: Path, verify: ssl.SSLContext
) -> None:
    result, _ = await fetch_once(wire.answering(response), verify, tmp_path / "1.png")
    assert result is not None
    assert result.detail
    assert not result.forbidden
    assert not result.bad_image


@pytest.mark.fault("N32")
@pytest.mark.parametrize("status", [202, 204, 205, 304, 403, 404, 410, 429, 500, 503])
async def test_status_without_a_file_gives_no_image(
    status: int, tmp_path: Path, verify: ssl.SSLContext
) -> None:
    body = b"" if status in (204, 205, 304) else b"<Error/>"
    response = wire.response(body, f"{status} Some", Retry_After="7")
    result, _ = await fetch_once(wire.answering(response), verify, tmp_path / "1.png")
    assert result == FetchResult(status=status, retry_after_s=7.0)


@pytest.mark.parametrize("status", [201, 203, 206])
async def test_paid_image_arrives_with_an_unusual_status(
    status: int, tmp_path: Path, verify: ssl.SSLContext
) -> None:
    file = tmp_path / "1.png"
    response = wire.response(IMAGE, f"{status} Some")
    result, _ = await fetch_once(routes({"/1.png": response}), verify, file)
    assert result is None
    assert file.read_bytes() == IMAGE


async def test_url_without_a_host_is_refused_in_words(
    tmp_path: Path, verify: ssl.SSLContext
) -> None:
    async with downloader(verify) as client:
        result = await fetch(client, "https:///1.png", tmp_path / "1.png")
    assert result is not None
    assert result.forbidden == "download refused: the URL has no host; expected https://HOST/PATH"


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
async def test_image_over_the_cap_is_given_up(
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


async def test_redirect_without_a_url_is_a_response(tmp_path: Path, verify: ssl.SSLContext) -> None:
    script = wire.answering(wire.response(b"", "302 Found"))
    result, _ = await fetch_once(script, verify, tmp_path / "1.png")
    assert result == FetchResult(status=302)


# https


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
    monkeypatch.setattr("batchgen.http.download.SILENT_S", 0.0)
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
