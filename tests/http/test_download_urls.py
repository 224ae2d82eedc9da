"""URLs, host names and IP addresses that a download may go to, or may not."""

from __future__ import annotations

import socket
import ssl
import time
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchgen.http.deadlines import Deadlines
from batchgen.http.download import Downloader, Validators
from batchgen.http.network import Access, Network
from batchgen.outcomes.download_policy import FetchResult
from tests.support import wire
from tests.support.downloads import (
    IMAGE,
    conditional,
    downloader,
    fetch,
    fetch_changed,
    resolving,
    routes,
)

pytestmark = pytest.mark.anyio


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
async def test_forbidden_url_is_never_connected_to(
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
async def test_any_text_for_a_url_gives_a_result(
    url: str, tmp_path: Path, verify: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolving(monkeypatch, {})
    async with downloader(verify, allow_loopback=False) as client:
        assert await fetch(client, url, tmp_path / "1.png") is not None


# Names


@pytest.mark.fault("N29")
async def test_checked_ip_address_is_the_one_that_is_connected_to(
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
async def test_one_private_ip_address_among_several_forbids_the_name(
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
async def test_no_more_images_are_fetched_at_a_time_than_allowed(
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
async def test_ip_address_that_does_not_respond_is_passed_over(
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
