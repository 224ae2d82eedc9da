"""Keys, cookies, signatures and tags: what a download sends, and to whom."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

import pytest

from batchgen.http.deadlines import Deadlines
from batchgen.http.download import Downloader, Validators
from batchgen.http.network import Access, Network
from batchgen.outcomes.download_policy import FetchResult
from tests.support import wire
from tests.support.canary import CANARY
from tests.support.downloads import (
    IMAGE,
    Script,
    conditional,
    downloader,
    fetch,
    fetch_changed,
    fetch_once,
    routes,
)

pytestmark = pytest.mark.anyio


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
async def test_signature_of_a_url_is_in_no_log(
    tmp_path: Path, verify: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    moved = wire.response(b"", "302 Found", Location="/2.png?X-Amz-Signature=CANARY")
    script = routes({"/1.png": moved, "/2.png?X-Amz-Signature=CANARY": wire.response(IMAGE)})
    result, _ = await fetch_once(script, verify, tmp_path / "1.png")
    assert result is None
    assert "CANARY" not in caplog.text


# What is known already


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


async def test_image_that_needs_the_key_is_requested_with_it(
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
