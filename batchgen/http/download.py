"""Download result images. They are free to repeat, and carry a key only as `Access` says.

URLs are untrusted: only hosts with public IP addresses are contacted. They are resolved and checked
here, and again at every redirect, to prevent server-side request forgery
(https://owasp.org/www-community/attacks/Server_Side_Request_Forgery).
"""

from __future__ import annotations

import asyncio
import math
import re
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final, Self, cast

import anyio
import httpx

from batchgen.http.connection import DeadlinePassed
from batchgen.http.content_coding import BadCoding, ContentDecoder, unsupported_text
from batchgen.http.deadlines import Deadline, Deadlines
from batchgen.http.dns import CachedLookup, ip_in
from batchgen.http.network import Access, Network, origin_of
from batchgen.http.progress import DEADLINE, TARGET
from batchgen.http.response_headers import first_header, kept_headers
from batchgen.http.transport import CONNECT_TIMEOUT_S, SILENT_S, StreamTransport, close
from batchgen.outcomes.download_policy import FetchResult
from batchgen.outcomes.retry_after import retry_after
from batchgen.spool.redaction import Redactor, redacted
from batchgen.system.atomic_files import PartFile

MAX_IMAGE_BYTES: Final = 64 * 1024 * 1024
DOWNLOAD_DEADLINE_S: Final = 120.0
_MAX_REDIRECTS: Final = 5
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_WITH_FILE: Final = frozenset({200, 201, 203, 206})
"""Statuses with which hosts serve a paid image that was requested as a whole; its bytes decide."""
_WITH_REFERENCE: Final = frozenset({200})
"""For a reference, for which nothing is paid yet."""
_MAX_URL_CHARS: Final = 8192
_MAX_VALIDATOR_CHARS: Final = 512
_CHECK_LASTS_S: Final = 30.0
_KEEP_S: Final = 15.0
_RECEIVE_BYTES: Final = 512 * 1024
"""Each read costs a turn of the event loop. Few downloads run at a time; for paid requests, pieces
of that size would be memory for each one in flight."""
_HEADERS: Final = httpx.Headers(
    {"Accept": "image/*, video/*", "Accept-Encoding": "identity", "User-Agent": "batchgen"}
)
_NO_BODY: Final = httpx.ByteStream(b"")
"""Without it, httpx encodes an empty body and copies the headers twice."""
_PLAIN: Final = re.compile(
    r"(?P<origin>https?://[a-z0-9.-]+(?::[0-9]{1,5})?)(?:/[A-Za-z0-9._~:/?@!$&'()*+,;=%-]*)?"
)
"""A URL that parsing and formatting does not change."""
_NAT64: Final = IPv6Network("64:ff9b::/96")
_NOT_PUBLIC: Final = (IPv6Network("64:ff9b:1::/48"), IPv6Network("fec0::/10"))
"""Local NAT64 (RFC 8215) and the former site-local range (RFC 3879), which Python calls global."""


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


class _Checked:
    """The IP addresses of hosts that were checked, so that they are connected to those.

    This prevents DNS rebinding: a name whose second lookup gives another IP address is still
    connected to the checked one. Certificate and Host header use the name.
    """

    def __init__(self) -> None:
        self.ips: dict[str, list[IPv4Address | IPv6Address]] = {}
        self.lasts: dict[str, float] = {}
        """When the check of an origin expires."""

    async def __call__(self, host: str) -> Sequence[str]:
        """Return the checked IP addresses of a host."""
        return [str(ip) for ip in self.ips[host]]


@dataclass(frozen=True, slots=True)
class _Target:
    """A checked URL. A signature may cover every character, so its path and query stay as given."""

    url: httpx.URL
    raw_path: bytes


class Downloader:
    """Download images. Use it as an async context manager.

    At most ``most`` downloads run at a time, in the order of their calls; None means no limit.
    """

    _transport: httpx.AsyncBaseTransport

    def __init__(
        self,
        *,
        network: Network,
        deadlines: Deadlines,
        access: Access,
        most: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._network = network
        self._deadlines = deadlines
        self._access = access
        self._redactor = Redactor.of(access.key)
        self._turns = nullcontext() if most is None else asyncio.Semaphore(most)
        self._clock = clock
        self._checked = _Checked()
        self._lookup = CachedLookup(lasts_s=0)  # a redirect is checked by a lookup of its own

    async def __aenter__(self) -> Self:
        self._transport = StreamTransport(
            network=self._network,
            resolve=self._checked,
            keep_s=_KEEP_S,
            silent_s=SILENT_S,
            receive_bytes=_RECEIVE_BYTES,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        with anyio.CancelScope(shield=True):
            await self._transport.aclose()

    async def fetch(
        self, url: str, part: PartFile, *, max_bytes: int | None = None
    ) -> FetchResult | None:
        """Download an image into the open ``part``; return None if it is complete.

        Raises OSError if the disk cannot be written; every other failure is returned.
        """
        async with self._turns:
            result = await self._fetch(url, part, None, max_bytes or MAX_IMAGE_BYTES)
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
            result = await self._fetch(url, part, known, max_bytes or MAX_IMAGE_BYTES)
        assert result is not None
        return result

    async def _fetch(
        self, url: str, part: PartFile, known: Validators | None, max_bytes: int
    ) -> Validators | FetchResult | None:
        with self._deadlines.limit(DOWNLOAD_DEADLINE_S) as deadline:
            try:
                return await self._follow(url, part, known, max_bytes, deadline)
            except ForbiddenUrl as exc:
                return FetchResult(forbidden=self._said(f"download refused: {exc}"))
            except DeadlinePassed:
                return FetchResult(detail=f"not complete within {DOWNLOAD_DEADLINE_S:g} s")
            except (httpx.TransportError, socket.gaierror) as exc:
                return FetchResult(detail=self._said(str(exc) or type(exc).__name__))
            except (httpx.InvalidURL, ValueError) as exc:
                return FetchResult(forbidden=self._said(f"download refused: invalid URL: {exc}"))

    def _said(self, text: str) -> str:
        """Return a message without the key: it may quote a URL to which the host redirected."""
        return redacted(text, self._redactor)

    async def _follow(
        self, url: str, part: PartFile, known: Validators | None, max_bytes: int, deadline: Deadline
    ) -> Validators | FetchResult | None:
        """Return why an image is not in ``part``; else its validators if some were known."""
        is_secure = False
        conditions = {} if known is None else known.headers
        for hop in range(_MAX_REDIRECTS + 1):
            target = await self._check(url, deadline, redirected=hop > 0)
            if is_secure and target.url.scheme != "https":
                raise ForbiddenUrl("a redirect from https:// to http://")
            is_secure = target.url.scheme == "https"
            response = await self._get(target, conditions, deadline)
            if hop == 0 and response.status_code in (401, 403) and self._may_have_key(target):
                await response.aclose()
                headers = {**conditions, "Authorization": f"Bearer {self._access.key}"}
                response = await self._get(target, headers, deadline)
            try:
                location = None
                if response.status_code in _REDIRECTS:
                    location = first_header(response.headers.raw, b"location")
                if location is None:
                    statuses = _WITH_FILE if known is None else _WITH_REFERENCE
                    failed = await _receive(response, part, max_bytes, statuses)
                    return failed or (None if known is None else _validators(response))
            finally:
                await close(response)
            url = str(target.url.copy_with(raw_path=target.raw_path).join(location))
        return FetchResult(detail=f"more than {_MAX_REDIRECTS} redirects")

    def _may_have_key(self, target: _Target) -> bool:
        access = self._access
        return access.key is not None and origin_of(target.url) == access.key_origin

    async def _get(
        self, target: _Target, headers: Mapping[str, str], deadline: Deadline
    ) -> httpx.Response:
        request = httpx.Request(
            "GET",
            target.url,
            headers=_HEADERS,
            stream=_NO_BODY,
            extensions={TARGET: target.raw_path, DEADLINE: deadline},
        )
        if headers:
            request.headers.update(headers)
        return await self._transport.handle_async_request(request)

    async def _check(self, text: str, deadline: Deadline, *, redirected: bool) -> _Target:
        """Return the URL to request. Raises ForbiddenUrl, httpx.InvalidURL and TransportError.

        An origin that was checked less than 30 s ago is not resolved again.
        """
        if len(text) > _MAX_URL_CHARS:
            raise ForbiddenUrl(
                f"the URL has {len(text):,} characters; expected at most {_MAX_URL_CHARS:,}"
            )
        plain = _PLAIN.fullmatch(text)
        origin = "" if plain is None else plain["origin"]
        if not redirected and self._checked.lasts.get(origin, -math.inf) > self._clock():
            return _Target(_parsed(origin), text[len(origin) :].encode("ascii") or b"/")
        url = httpx.URL(text)
        if url.scheme in ("https", "http") and not url.host:
            raise ForbiddenUrl("the URL has no host; expected https://HOST/PATH")
        if url.scheme not in ("https", "http"):
            raise ForbiddenUrl(f"unsupported scheme {url.scheme!r}; expected https or http")
        if url.userinfo:
            raise ForbiddenUrl("the URL contains a user name or password")
        if (url.port or 0) > 65535:
            raise ForbiddenUrl(f"invalid port {url.port}")
        host = url.raw_host.decode("ascii")
        ips = await self._ips_of(host, deadline)
        for ip in ips:
            self._check_ip(ip, url.host)
        # IPv4 first: where IPv6 is configured but broken, it takes a while to fail.
        ips.sort(key=lambda ip: ip.version)
        self._checked.ips[host] = ips
        if origin:
            self._checked.lasts[origin] = self._clock() + _CHECK_LASTS_S
            return _Target(_parsed(origin), text[len(origin) :].encode("ascii") or b"/")
        return _Target(url, url.raw_path)

    async def _ips_of(self, host: str, deadline: Deadline) -> list[IPv4Address | IPv6Address]:
        ip = ip_in(host)
        if ip is not None:
            return [ip]
        if self._network.proxy_for(host) is not None:
            return []  # the proxy resolves names, and decides where they may lead
        return await self._look_up(host, deadline)

    async def _look_up(self, host: str, deadline: Deadline) -> list[IPv4Address | IPv6Address]:
        if host.replace(".", "").isdigit():
            # The platform connects to IP addresses in other notations without a lookup.
            raise ForbiddenUrl(f"{host} is not a standard notation of an IP address")
        timeout = deadline.timeout(CONNECT_TIMEOUT_S)
        try:
            async with timeout:
                found = await self._lookup(host)
        except TimeoutError:
            if deadline.has_passed:
                raise DeadlinePassed("the deadline passed during the name lookup") from None
            raise httpx.ConnectTimeout(
                f"no IP address of {host} within {CONNECT_TIMEOUT_S:g} s"
            ) from None
        return [ip_address(text.partition("%")[0]) for text in found]

    def _check_ip(self, ip: IPv4Address | IPv6Address, host: str) -> None:
        ip = _embedded(ip) or ip
        if ip.is_loopback and self._access.allow_loopback:
            return
        if host == self._access.private_host and not ip.is_multicast:
            return
        if not ip.is_global or ip.is_multicast or any(ip in network for network in _NOT_PUBLIC):
            raise ForbiddenUrl(f"{host} is {ip}, which is not a public IP address")


@lru_cache(maxsize=256)
def _parsed(origin: str) -> httpx.URL:
    return httpx.URL(origin)


def _embedded(ip: IPv4Address | IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that is embedded in an IPv6 one; None without one."""
    if isinstance(ip, IPv4Address):
        return None
    if ip in _NAT64:
        return IPv4Address(int(ip) & 0xFFFF_FFFF)
    if int(ip) >> 32 == 0 and int(ip) > 1:  # IPv4-compatible, deprecated by RFC 4291
        return IPv4Address(int(ip))
    return ip.ipv4_mapped or ip.sixtofour


async def _receive(
    response: httpx.Response, part: PartFile, max_bytes: int, statuses: frozenset[int]
) -> FetchResult | None:
    """Write the body to ``part``; return why it could not be received."""
    if response.status_code not in statuses:
        wait_s = retry_after(kept_headers(response.headers.raw))
        return FetchResult(status=response.status_code, retry_after_s=wait_s)
    coding = first_header(response.headers.raw, b"content-encoding")
    decoder = ContentDecoder(coding or "")
    received = size = 0
    try:
        async for chunk in cast("AsyncIterator[bytes]", response.stream):
            received += len(chunk)
            for piece in decoder.feed(chunk):
                size += len(piece)
                if max(received, size) > max_bytes:
                    return FetchResult(bad_image=f"larger than {max_bytes >> 20} MiB")
                await part.write(piece)
        for piece in decoder.end():
            await part.write(piece)
        if decoder.unsupported:
            return FetchResult(detail=unsupported_text(decoder.unsupported))
    except BadCoding as exc:
        return FetchResult(bad_image=str(exc))
    return None


def _validators(response: httpx.Response) -> Validators:
    headers = response.headers.raw
    return Validators(
        etag=_validator(first_header(headers, b"etag")),
        last_modified=_validator(first_header(headers, b"last-modified")),
    )


def _validator(value: str | None) -> str | None:
    """Return the value of a header if it can be sent back unchanged."""
    if not value or len(value) > _MAX_VALIDATOR_CHARS:
        return None
    return value if value.isascii() and value.isprintable() else None
