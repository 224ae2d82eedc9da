"""Company networks: a proxy in another process, a private certificate authority, private hosts."""

from __future__ import annotations

import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import httpx
import pytest
import trustme
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from batchgen.errors import SettingsError
from batchgen.http.deadlines import Deadlines
from batchgen.http.download import Downloader
from batchgen.http.network import Access, Network
from batchgen.http.network_settings import NetworkSettings, Proxy
from batchgen.http.session import open_network, ssl_context
from batchgen.http.transport import StreamTransport
from batchgen.urls import check_base_url
from tests.faults.gateway import gateway, response
from tests.support import canary, rig, wire
from tests.support.downloads import IMAGE, fetch, routes
from tests.support.responses import RED, saved

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
CREDENTIALS = "operator:p@ss"


class ProxyProcess:
    """A running proxy."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self._process = process
        self.port = int(process.stdout.readline())

    @property
    def seen(self) -> list[str]:
        """The request lines so far; ends the proxy."""
        self._process.terminate()
        assert self._process.stdout is not None
        return self._process.stdout.read().splitlines()


@contextmanager
def proxy_process(*arguments: str) -> Iterator[ProxyProcess]:
    command = [sys.executable, "-m", "tests.support.http_proxy", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield ProxyProcess(process)
        finally:
            process.terminate()


async def unresolved(host: str) -> Sequence[str]:
    """Fail: through a proxy, no name is looked up here."""
    raise AssertionError(host)


class Company:
    """A certificate authority and what it has signed."""

    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        self.file = directory / "company.pem"
        authority.cert_pem.write_to_path(str(self.file))
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        names = ("gateway.test", "cdn.test", "127.0.0.1", "localhost")
        authority.issue_cert(*names).configure_cert(self.context)


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Company:
    return Company(tmp_path_factory.mktemp("company"))


# The transport


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("credentials", ["", CREDENTIALS])
async def test_requests_go_through_the_proxy(
    scheme: str, credentials: str, company: Company
) -> None:
    context = company.context if scheme == "https" else None
    script = wire.answering(wire.response(b"pong"))
    with proxy_process(*([credentials] if credentials else [])) as proxy:
        user = "operator:p%40ss@" if credentials else ""
        network = open_network(
            NetworkSettings(
                proxy=Proxy.parse(f"http://{user}127.0.0.1:{proxy.port}"), ca_file=company.file
            )
        )
        async with (
            wire.serve(script, context) as server,
            httpx.AsyncClient(
                transport=StreamTransport(network=network, resolve=unresolved)
            ) as client,
        ):
            url = f"{scheme}://gateway.test:{server.port}/a?b=1"
            found = await client.post(url, content=b"ping")
        assert found.content == b"pong"
        line = f"POST {url} HTTP/1.1"
        if scheme == "https":
            line = f"CONNECT gateway.test:{server.port} HTTP/1.1"
        assert proxy.seen == [line]
    assert server.requests[0].body == b"ping"
    assert "proxy-authorization" not in server.requests[0].headers
    assert server.requests[0].headers["host"] == f"gateway.test:{server.port}"


async def test_a_proxy_that_refuses_is_a_connect_error() -> None:
    with proxy_process(CREDENTIALS) as proxy:
        network = Network(ssl_context(), Proxy.parse(f"http://127.0.0.1:{proxy.port}"))
        async with StreamTransport(network=network, resolve=unresolved) as client:
            with pytest.raises(httpx.ConnectError, match="HTTP 407") as caught:
                await client.handle_async_request(httpx.Request("GET", "https://gateway.test/"))
    assert CREDENTIALS not in str(caught.value)


async def test_a_proxy_that_is_not_there_is_a_connect_error() -> None:
    network = Network(ssl_context(), Proxy.parse(f"127.0.0.1:{wire.free_port()}"))
    async with StreamTransport(network=network, resolve=unresolved) as client:
        for url in ("http://gateway.test/", "https://gateway.test/"):
            with pytest.raises(httpx.ConnectError):
                await client.handle_async_request(httpx.Request("GET", url))


async def test_loopback_is_never_reached_through_a_proxy() -> None:
    network = Network(ssl_context(), Proxy.parse(f"127.0.0.1:{wire.free_port()}"))
    async with (
        wire.serve(wire.answering(wire.response(b"x"))) as server,
        StreamTransport(network=network, resolve=unresolved) as client,
    ):
        found = await client.handle_async_request(httpx.Request("GET", server.url))
        await found.aclose()
    assert found.status_code == 200


async def test_downloads_through_a_proxy_reach_no_private_ip_address(tmp_path: Path) -> None:
    script = routes({"/1.png": wire.response(IMAGE)})
    with proxy_process() as proxy:
        network = Network(ssl_context(), Proxy.parse(f"http://127.0.0.1:{proxy.port}"))
        async with (
            wire.serve(script) as server,
            Downloader(network=network, deadlines=Deadlines(), access=Access()) as client,
        ):
            url = f"http://cdn.test:{server.port}/1.png"
            assert await fetch(client, url, tmp_path / "1.png") is None
            for host in ("127.0.0.1", "localhost", "10.0.0.1", "[::1]"):
                url = f"http://{host}:{server.port}/1.png"
                result = await fetch(client, url, tmp_path / "2.png")
                assert result is not None
                assert "not a public IP address" in result.forbidden
        assert len(proxy.seen) == 1


@pytest.mark.parametrize(
    "url",
    ["socks5://127.0.0.1:1", "https://proxy:3128", "http://proxy", "http://:3128", "http://p:x"],
)
def test_an_unusable_proxy_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"expected http://HOST:PORT"):
        Proxy.parse(url)


def test_the_password_of_a_proxy_is_not_shown() -> None:
    proxy = Proxy.parse("http://operator:p%40ss@proxy.test:3128")
    assert (proxy.user, proxy.password, proxy.port) == ("operator", "p@ss", 3128)
    assert "p@ss" not in repr(NetworkSettings(proxy=proxy))
    with pytest.raises(ValueError, match="scheme") as caught:
        Proxy.parse("ftp://operator:p%40ss@proxy.test:3128")
    assert "ss@" not in str(caught.value)


_BETWEEN = st.text(st.sampled_from("[]/?#@:%\\. 1x\u2100\uff0f") | st.characters(), max_size=6)


@given(
    st.lists(_BETWEEN, min_size=2, max_size=5),
    st.sampled_from(["", "http://", "https://", "https:/", "socks5://"]),
    st.sampled_from(["host:3128", "host", "[::1]:1", "host:x", "host/v1", ""]),
)
@example(["[", "]"], "http://", "host:3128")
@example(["/", ""], "http://", "host:3128")
@example(["", "\u2100"], "http://", "host:3128")
@example(["", ""], "", "host/v1")
def test_no_part_of_a_password_is_in_a_message(between: list[str], scheme: str, host: str) -> None:
    url = f"{scheme}user:{'Zq9'.join(between)}@{host}"
    for check in (Proxy.parse, check_base_url):
        assert "zq9" not in refusal_of(check, url).lower()


def refusal_of(check: Callable[[str], object], url: str) -> str:
    """Return the message of a refused URL; empty if it is accepted."""
    try:
        check(url)
    except ValueError as exc:
        return str(exc)
    return ""


# TLS


async def _status_of(network: Network, server: wire.Server) -> int:
    async with StreamTransport(network=network, resolve=unresolved) as client:
        found = await client.handle_async_request(httpx.Request("GET", server.url))
        await found.aclose()
        return found.status_code


@pytest.mark.parametrize("system_trust", [False, True])
async def test_a_ca_file_is_trusted_in_addition(system_trust: bool, company: Company) -> None:
    script = wire.answering(wire.response(b"x"))
    async with wire.serve(script, company.context) as server:
        unknown = NetworkSettings(system_trust=system_trust)
        with pytest.raises(httpx.ConnectError, match=r"(?i)certificate"):
            await _status_of(open_network(unknown), server)
        known = NetworkSettings(system_trust=system_trust, ca_file=company.file)
        assert await _status_of(open_network(known), server) == 200


def test_a_file_without_certificates_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    for name in ("ca.pem", "missing.pem"):
        with pytest.raises(SettingsError, match=f"{name}: no certificates"):
            ssl_context(NetworkSettings(ca_file=tmp_path / name))


# Private hosts


@pytest.mark.parametrize(
    "host",
    ["litellm:4000", "192.168.1.20:3000", "host.docker.internal", "[fd12::1]", "gateway.local"],
)
def test_http_to_a_private_host_needs_one_word(host: str) -> None:
    url = f"http://{host}/v1"
    assert check_base_url(f"{url}/", insecure_http=True) == url
    with pytest.raises(ValueError, match="insecure_http: true"):
        check_base_url(url)


@pytest.mark.parametrize("host", ["api.openai.com", "8.8.8.8", "[2606:4700::1111]", "0.0.0.0"])
def test_http_to_a_public_host_is_never_allowed(host: str) -> None:
    for insecure_http in (False, True):
        with pytest.raises(ValueError, match="unencrypted"):
            check_base_url(f"http://{host}/v1", insecure_http=insecure_http)


async def test_a_private_provider_serves_its_own_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    def getaddrinfo(name: str, port: object, **_: object) -> list[object]:
        return [(0, 0, 0, "", ("127.0.0.1", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    script = routes({"/1.png": wire.response(IMAGE)})
    async with wire.serve(script) as server:
        base_url = f"http://litellm:{server.port}/v1"
        access = Access.for_provider(base_url, None, "litellm")
        async with Downloader(
            network=Network(ssl_context()), deadlines=Deadlines(), access=access
        ) as client:
            url = f"http://litellm:{server.port}/1.png"
            assert await fetch(client, url, tmp_path / "1.png") is None
            result = await fetch(client, url.replace("litellm", "other"), tmp_path / "2.png")
    assert result is not None
    assert "not a public IP address" in result.forbidden


# Whole runs


def manifest(directory: Path, **provider: object) -> Path:
    path = directory / "batch.yaml"
    document = {
        "provider": {
            "name": "company",
            "api_key_env": canary.VARIABLE,
            "price": "0.04",
            **provider,
        },
        "model": "gpt-image-2",
        "limits": {"concurrency": 1, "max_waste": "0", "download_wait": 5},
        "options": {},
        "jobs": ["a mug", "a bag"],
    }
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


Run = Callable[..., Awaitable[subprocess.CompletedProcess[str]]]


@asynccontextmanager
async def a_run(company: Company) -> AsyncIterator[tuple[ProxyProcess, str, Run]]:
    """A provider that only the proxy reaches, with the company's certificate."""
    async with gateway(company.context) as provider:
        with proxy_process(CREDENTIALS) as proxy:
            base = f"https://gateway.test:{provider.server.port}"
            provider.files = {"1.png": [wire.response(RED)]}
            provider.reply = lambda _: response({"url": f"{base}/1.png"})

            async def run(
                path: Path, code: int = 0, **env: str
            ) -> subprocess.CompletedProcess[str]:
                return await anyio.to_thread.run_sync(
                    lambda: rig.batchgen("run", path, cwd=path.parent, env=env, code=code)
                )

            yield proxy, f"{base}/v1", run


@pytest.mark.parametrize("by", ["manifest", "environment"])
async def test_a_run_passes_a_proxy_with_a_private_ca(
    by: str, company: Company, tmp_path: Path
) -> None:
    async with a_run(company) as (proxy, base_url, run):
        url = f"http://operator:p%40ss@127.0.0.1:{proxy.port}"
        if by == "manifest":
            given = {"proxy": url.replace("p%40ss", "${PROXY_PASSWORD}"), "ca_file": "../ca.pem"}
            (tmp_path / "ca.pem").write_bytes(company.file.read_bytes())
            directory = tmp_path / "jobs"
            directory.mkdir()
            env = {"PROXY_PASSWORD": "p%40ss"}
        else:
            given, directory = {}, tmp_path
            env = {"BATCHGEN_PROXY": url, "BATCHGEN_CA_FILE": str(company.file)}
        await run(manifest(directory, base_url=base_url, **given), **env)
        assert list(saved(directory).values()) == [RED, RED]
        seen = proxy.seen
    assert len(seen) >= 4  # models, two images, and their downloads on fewer connections
    assert all(line.startswith("CONNECT gateway.test:") for line in seen)


async def test_a_run_without_the_ca_stops_before_it_costs(company: Company, tmp_path: Path) -> None:
    async with a_run(company) as (proxy, base_url, run):
        url = f"http://operator:p%40ss@127.0.0.1:{proxy.port}"
        done = await run(manifest(tmp_path, base_url=base_url, proxy=url), code=3)
    assert "certificate" in done.stdout
    found = await anyio.to_thread.run_sync(rig.status, tmp_path)
    assert found["jobs"]["pending"] == 2


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"proxy": "socks5://127.0.0.1:1"}, "provider.proxy: unsupported scheme"),
        ({"ca_file": "missing.pem"}, "provider.ca_file: "),
        ({"base_url": "http://litellm:4000/v1"}, "insecure_http: true"),
    ],
)
def test_unusable_network_settings_are_errors_of_use(
    given: dict[str, str], problem: str, tmp_path: Path
) -> None:
    path = manifest(tmp_path, **{"base_url": "https://gateway.test/v1", **given})
    done = rig.batchgen("run", path, cwd=tmp_path, code=2)
    assert problem in done.stderr
    assert not (tmp_path / "batchgen.db").exists()
