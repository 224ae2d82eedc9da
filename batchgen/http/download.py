"""Download result images with a client that never has the API key. Downloads are free to repeat.

URLs are untrusted: only hosts with public IP addresses are contacted. They are resolved and checked
here, and again at every redirect, to prevent server-side request forgery
(https://owasp.org/www-community/attacks/Server_Side_Request_Forgery).
"""

from __future__ import annotations

import asyncio
import math
import re
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final, Self

import aiohttp
import anyio
import httpx
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult

from batchgen.http.content_coding import BadCoding, ContentDecoder
from batchgen.http.deadlines import Deadlines
from batchgen.http.dns import look_up
from batchgen.http.response_headers import kept_headers
from batchgen.http.session import numeric_results, open_session
from batchgen.outcomes.download_policy import FetchResult
from batchgen.outcomes.retry_after import retry_after
from batchgen.system.atomic_files import PartFile

MAX_IMAGE_BYTES: Final = 64 * 1024 * 1024
DOWNLOAD_DEADLINE_S: Final = 120.0
_MAX_REDIRECTS: Final = 5
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MAX_URL_CHARS: Final = 8192
_MAX_VALIDATOR_CHARS: Final = 512
_CHECK_LASTS_S: Final = 30.0
_PLAIN: Final = re.compile(
    r"(?P<origin>https?://[a-z0-9.-]+(?::[0-9]{1,5})?)(?:/[A-Za-z0-9._~:/?@!$&'()*+,;=%-]*)?"
)
"""A URL that parsing and formatting does not change."""
_NAT64: Final = IPv6Network("64:ff9b::/96")


class ForbiddenUrl(Exception):
    """A URL must not be requested; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validators:
    """Response headers for conditional requests (RFC 9110, section 13.1)."""

    etag: str | None = None
    last_modified: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """Request headers to which a server responds 304 if the file has not changed."""
        conditions = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in conditions.items() if value}


_NO_VALIDATORS: Final = Validators()


class _Checked(AbstractResolver):
    """Return the checked IP addresses of a host without another lookup.

    This prevents DNS rebinding: a name whose second lookup gives another IP address is still
    connected to the checked one. Certificate and Host header use the name.
    """

    def __init__(self) -> None:
        self.addresses: dict[str, list[IPv4Address | IPv6Address]] = {}
        self.lasts: dict[str, float] = {}
        """When the check of an origin expires."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the checked IP addresses of a host."""
        return numeric_results(host, port, self.addresses[host])

    async def close(self) -> None:
        """Do nothing: the resolver holds no resources."""


class Downloader:
    """Download images. Use it as an async context manager.

    ``allow_loopback`` is for providers on loopback. At most ``most`` downloads run at a time, in
    the order of their calls; None means no limit.
    """

    _session: aiohttp.ClientSession

    def __init__(
        self,
        *,
        verify: ssl.SSLContext,
        deadlines: Deadlines,
        allow_loopback: bool,
        most: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._verify = verify
        self._deadlines = deadlines
        self._allow_loopback = allow_loopback
        self._turns = nullcontext() if most is None else asyncio.Semaphore(most)
        self._clock = clock
        self._checked = _Checked()

    async def __aenter__(self) -> Self:
        self._session = open_session(
            self._verify, {"Accept": "image/*, video/*"}, keep_alive=True, resolver=self._checked
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        with anyio.CancelScope(shield=True):
            await self._session.close()

    async def fetch(
        self, url: str, part: PartFile, *, max_bytes: int | None = None
    ) -> FetchResult | None:
        """Download an image into the open ``part``; return None if it is complete.

        Raises OSError if the disk cannot be written; every other failure is returned.
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
        """Download an image that has changed since ``known``; an unchanged one has status 304.

        Returns the validators for the next request. Raises OSError if the disk cannot be written.
        """
        async with self._turns:
            return await self._fetch(url, part, known, max_bytes or MAX_IMAGE_BYTES)

    async def _fetch(
        self, url: str, part: PartFile, known: Validators, max_bytes: int
    ) -> Validators | FetchResult:
        with self._deadlines.scope(DOWNLOAD_DEADLINE_S) as scope:
            try:
                return await self._follow(url, part, known, max_bytes)
            except ForbiddenUrl as exc:
                return FetchResult(forbidden=f"download refused: {exc}")
            except (aiohttp.ClientError, socket.gaierror, ssl.SSLError) as exc:
                return FetchResult(detail=str(exc) or type(exc).__name__)
            except (httpx.InvalidURL, ValueError) as exc:
                return FetchResult(forbidden=f"download refused: invalid URL: {exc}")
        if scope.cancelled_caught:
            return FetchResult(detail=f"not complete within {DOWNLOAD_DEADLINE_S:g} s")
        raise AssertionError("unreachable")

    async def _follow(
        self, url: str, part: PartFile, known: Validators, max_bytes: int
    ) -> Validators | FetchResult:
        secure = False
        for hop in range(_MAX_REDIRECTS + 1):
            target = await self._check(url, redirected=hop > 0)
            if secure and not target.startswith("https:"):
                raise ForbiddenUrl("a redirect from https:// to http://")
            secure = target.startswith("https:")
            # The URL must stay unchanged: a signature covers every character.
            there = yarl.URL(target, encoded=True)
            async with self._session.get(
                there, headers=known.headers, allow_redirects=False
            ) as response:
                location = response.headers.get("location")
                if response.status not in _REDIRECTS or location is None:
                    return await _receive(response, part, max_bytes)
                response.close()
            url = str(httpx.URL(target).join(location))
        return FetchResult(detail=f"more than {_MAX_REDIRECTS} redirects")

    async def _check(self, text: str, *, redirected: bool) -> str:
        """Return the URL to request. Raises ForbiddenUrl and httpx.InvalidURL.

        An origin that was checked less than 30 s ago is not resolved again.
        """
        if len(text) > _MAX_URL_CHARS:
            raise ForbiddenUrl(
                f"the URL has {len(text):,} characters; expected at most {_MAX_URL_CHARS:,}"
            )
        plain = _PLAIN.fullmatch(text)
        origin = "" if plain is None else plain["origin"]
        if not redirected and self._checked.lasts.get(origin, -math.inf) > self._clock():
            return text
        url = httpx.URL(text)
        if url.scheme not in ("https", "http") or not url.host:
            raise ForbiddenUrl(f"unsupported scheme {url.scheme!r}; expected https or http")
        if url.userinfo:
            raise ForbiddenUrl("the URL contains a user name or password")
        if (url.port or 0) > 65535:
            raise ForbiddenUrl(f"invalid port {url.port}")
        host = url.raw_host.decode("ascii")
        addresses = await _look_up(host)
        for address in addresses:
            self._check_address(address, url.host)
        # IPv4 first: where IPv6 is configured but broken, it takes a while to fail.
        addresses.sort(key=lambda address: address.version)
        self._checked.addresses[host] = addresses
        if origin:
            self._checked.lasts[origin] = self._clock() + _CHECK_LASTS_S
        return str(url)

    def _check_address(self, address: IPv4Address | IPv6Address, host: str) -> None:
        address = _embedded(address) or address
        if address.is_loopback and self._allow_loopback:
            return
        if not address.is_global or address.is_multicast:
            raise ForbiddenUrl(f"{host} is {address}, which is not a public IP address")


async def _look_up(host: str) -> list[IPv4Address | IPv6Address]:
    with suppress(ValueError):
        return [ip_address(host)]
    if host.replace(".", "").isdigit():
        # The platform connects to IP addresses in other notations without a lookup.
        raise ForbiddenUrl(f"{host} is not a standard notation of an IP address")
    return [ip_address(text.partition("%")[0]) for text in await look_up(host)]


def _embedded(address: IPv4Address | IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that is embedded in an IPv6 address; None without one."""
    if isinstance(address, IPv4Address):
        return None
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


async def _receive(
    response: aiohttp.ClientResponse, part: PartFile, max_bytes: int
) -> Validators | FetchResult:
    if response.status != 200:
        wait_s = retry_after(kept_headers(response.raw_headers))
        response.close()
        return FetchResult(status=response.status, retry_after_s=wait_s)
    decoder = ContentDecoder(response.headers.get("content-encoding", ""))
    received = size = 0
    try:
        async for chunk in response.content.iter_any():
            received += len(chunk)
            for piece in decoder.feed(chunk):
                size += len(piece)
                if max(received, size) > max_bytes:
                    response.close()
                    return FetchResult(bad_image=f"larger than {max_bytes >> 20} MiB")
                await part.write(piece)
        for piece in decoder.end():
            await part.write(piece)
    except BadCoding as exc:
        response.close()
        return FetchResult(bad_image=str(exc))
    return Validators(
        etag=_validator(response, "etag"), last_modified=_validator(response, "last-modified")
    )


def _validator(response: aiohttp.ClientResponse, name: str) -> str | None:
    """Return the value of a header if it can be sent back unchanged."""
    value = response.headers.get(name, "")
    usable = value.isascii() and value.isprintable() and len(value) <= _MAX_VALIDATOR_CHARS
    return value if value and usable else None
