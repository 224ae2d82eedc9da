"""From a result address to bytes on disk, with a client that never holds the key. Free to repeat.

An address comes from a stranger: only public hosts are asked, as resolved and checked here, and
again at every redirect (reliability sheet, rows N26 to N31).
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any, Final, Self

import anyio
import httpx

from batchgen.fetch_policy import FetchResult
from batchgen.files import PartFile
from batchgen.http import (
    CONNECT_TIMEOUT_S,
    Deadlines,
    kept_headers,
    no_cookies,
    without_logs,
)
from batchgen.outcome import retry_after

MAX_PICTURE_BYTES: Final = 64 * 1024 * 1024
DOWNLOAD_DEADLINE_S: Final = 120.0
_MAX_REDIRECTS: Final = 5
_MAX_URL_CHARS: Final = 8192
_WRITE_BYTES: Final = 1024 * 1024
_HOSTS: Final = 8
_MAX_VALIDATOR_CHARS: Final = 512
_NAT64: Final = IPv6Network("64:ff9b::/96")


class ForbiddenAddress(Exception):
    """An address that no download may go to; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validators:
    """By what a server tells whether it still has the file that was fetched before (RFC 9110)."""

    etag: str | None = None
    last_modified: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The conditions of a request that is answered with 304 when nothing has changed."""
        conditions = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in conditions.items() if value}


_NO_VALIDATORS: Final = Validators()


@dataclass(frozen=True, slots=True)
class _Target:
    """A checked address: where to connect, and whom to ask for there."""

    url: httpx.URL
    addresses: tuple[str, ...]
    secure: bool


class Downloader:
    """Fetches one picture at a time. One a download worker; use as an async context manager.

    ``allow_loopback`` is for providers that are on loopback themselves.
    """

    def __init__(
        self, *, verify: ssl.SSLContext, deadlines: Deadlines, allow_loopback: bool
    ) -> None:
        self._verify = verify
        self._deadlines = deadlines
        self._allow_loopback = allow_loopback
        self._clients: dict[str, httpx.AsyncClient] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        with anyio.CancelScope(shield=True):
            for client in self._clients.values():
                await client.aclose()

    async def fetch(
        self, url: str, part: PartFile, *, max_bytes: int | None = None
    ) -> FetchResult | None:
        """Write the picture at ``url`` into the open ``part``; None when all of it is there.

        Raises OSError where the disk refuses; everything else is in the result.
        """
        result = await self.fetch_changed(url, part, _NO_VALIDATORS, max_bytes=max_bytes)
        return result if isinstance(result, FetchResult) else None

    async def fetch_changed(
        self,
        url: str,
        part: PartFile,
        known: Validators,
        *,
        max_bytes: int | None = None,
    ) -> Validators | FetchResult:
        """As `fetch`, unless it is as ``known``: then the result has status 304.

        Gives what the next request is to be made with. Raises OSError where the disk refuses.
        """
        with self._deadlines.scope(DOWNLOAD_DEADLINE_S) as scope, without_logs():
            try:
                return await self._follow(url, part, known, max_bytes or MAX_PICTURE_BYTES)
            except ForbiddenAddress as exc:
                return FetchResult(forbidden=f"download refused: {exc}")
            except (httpx.HTTPError, socket.gaierror, ssl.SSLError) as exc:
                return FetchResult(detail=str(exc) or type(exc).__name__)
            except (httpx.InvalidURL, ValueError) as exc:
                return FetchResult(forbidden=f"download refused: no usable address: {exc}")
        if scope.cancelled_caught:
            return FetchResult(detail=f"not complete within {DOWNLOAD_DEADLINE_S:g} s")
        raise AssertionError("unreachable")

    async def _follow(
        self, url: str, part: PartFile, known: Validators, max_bytes: int
    ) -> Validators | FetchResult:
        secure = False
        for _ in range(_MAX_REDIRECTS + 1):
            target = await self._check(url)
            if secure and not target.secure:
                raise ForbiddenAddress("a redirect from https:// to http://")
            secure = target.secure
            async with AsyncExitStack() as stack:
                response = await self._ask(target, known, stack)
                location = response.headers.get("location")
                if not (response.is_redirect and location):
                    return await _receive(response, part, max_bytes)
                url = str(target.url.join(location))
        return FetchResult(detail=f"more than {_MAX_REDIRECTS} redirects")

    async def _ask(
        self, target: _Target, known: Validators, stack: AsyncExitStack
    ) -> httpx.Response:
        """Ask at the first of the addresses that can be reached."""
        client = await self._client(target)
        unreachable: httpx.TransportError = httpx.ConnectError("the name has no address")
        for address in target.addresses:
            there = target.url.copy_with(host=address)
            asking = client.stream("GET", there, **_asking(target, known))
            try:
                return await stack.enter_async_context(asking)
            except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
                unreachable = exc
        raise unreachable

    async def _check(self, text: str) -> _Target:
        if len(text) > _MAX_URL_CHARS:
            raise ForbiddenAddress(f"an address of {len(text)} characters")
        url = httpx.URL(text)
        if url.scheme not in ("https", "http") or not url.host:
            raise ForbiddenAddress(f"only https:// and http:// are followed, not {url.scheme!r}")
        if url.userinfo:
            raise ForbiddenAddress("an address with user and password")
        if (url.port or 0) > 65535:
            raise ForbiddenAddress(f"there is no port {url.port}")
        secure = url.scheme == "https"
        found = await anyio.getaddrinfo(url.raw_host, None, type=socket.SOCK_STREAM)
        addresses = [ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
        for address in addresses:
            self._check_address(address, url.host)
        # Version 4 first: where version 6 is set up but broken, it takes a timeout to find out.
        ordered = sorted(addresses, key=lambda address: address.version)
        return _Target(url, tuple(dict.fromkeys(map(str, ordered))), secure)

    def _check_address(self, address: IPv4Address | IPv6Address, host: str) -> None:
        address = _embedded(address) or address
        if address.is_loopback and self._allow_loopback:
            return
        if not address.is_global or address.is_multicast:
            raise ForbiddenAddress(f"{host} is {address}, which is no public address")

    async def _client(self, target: _Target) -> httpx.AsyncClient:
        # A client a host: a kept connection of one host must never serve another behind the same
        # address, whose certificate it was not checked against.
        origin = f"{target.url.scheme}://{target.url.netloc.decode('ascii')}"
        client = self._clients.get(origin)
        if client is None:
            if len(self._clients) >= _HOSTS:
                with anyio.CancelScope(shield=True):
                    await self._clients.pop(next(iter(self._clients))).aclose()
            client = httpx.AsyncClient(
                headers={
                    "Accept": "image/*, video/*",
                    "Accept-Encoding": "identity",
                    "User-Agent": "batchgen",
                },
                cookies=no_cookies(),
                verify=self._verify,
                trust_env=False,
                follow_redirects=False,
                timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT_S),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=1),
            )
            self._clients[origin] = client
        return client


def _embedded(address: IPv4Address | IPv6Address) -> IPv4Address | None:
    """The version 4 address that a gateway would make of one of version 6."""
    if isinstance(address, IPv4Address):
        return None
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


def _asking(target: _Target, known: Validators) -> dict[str, Any]:
    """Connect to the checked address, but ask for the host by its name."""
    return {
        "headers": {"Host": target.url.netloc.decode("ascii"), **known.headers},
        "extensions": {"sni_hostname": target.url.raw_host.decode("ascii")},
    }


async def _receive(
    response: httpx.Response, part: PartFile, max_bytes: int
) -> Validators | FetchResult:
    headers: Mapping[str, str] = kept_headers(response.headers)
    if response.status_code != 200:
        return FetchResult(status=response.status_code, retry_after_s=retry_after(headers))
    encoding = response.headers.get("content-encoding", "identity")
    if encoding != "identity":
        return FetchResult(bad_picture=f"encoded as {encoding!r}, which was not asked for")
    buffer, size = bytearray(), 0
    async for chunk in response.aiter_raw():
        size += len(chunk)
        if size > max_bytes:
            return FetchResult(bad_picture=f"larger than {max_bytes >> 20} MiB")
        buffer += chunk
        if len(buffer) >= _WRITE_BYTES:
            await part.write(buffer)
            buffer = bytearray()
    if buffer:
        await part.write(buffer)
    return Validators(
        etag=_validator(response, "etag"), last_modified=_validator(response, "last-modified")
    )


def _validator(response: httpx.Response, name: str) -> str | None:
    """A header that can be sent back as it is."""
    value = response.headers.get(name, "")
    usable = value.isascii() and value.isprintable() and len(value) <= _MAX_VALIDATOR_CHARS
    return value if value and usable else None
