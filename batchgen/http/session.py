"""TLS, DNS and connection settings that all HTTP clients of a run share."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, cast

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler

from batchgen.http.dns import look_up

CONNECT_TIMEOUT_S: Final = 10.0
_READ_AHEAD_BYTES: Final = 64 * 1024
"""Per response, read while its last chunk is being written; aiohttp reads up to twice as much."""
_END_OF_HEAD: Final = b"\r\n\r\n"
_LOGGERS: Final = ("httpx", "httpcore.connection", "httpcore.http11")


_unlogged: ContextVar[bool] = ContextVar("_unlogged", default=False)


class _DropOurs(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not _unlogged.get()


_DROP_OURS: Final = _DropOurs()


@contextmanager
def without_logs() -> Iterator[None]:
    """Keep the HTTP libraries from logging requests made in this context.

    They log URLs with their signatures and every response header, which may repeat the key. Other
    uses of httpx in the same process are logged as before.
    """
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_DROP_OURS)
    token = _unlogged.set(True)
    try:
        yield
    finally:
        _unlogged.reset(token)


def no_cookies() -> CookieJar:
    """Return a cookie jar that stays empty, so that no request identifies an earlier one."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=()))


def ssl_context() -> ssl.SSLContext:
    """Create the TLS context of a run; all clients share it, as creating one costs 20 ms, 400 kB.

    It ignores the environment.
    """
    context = httpx.create_ssl_context(trust_env=False)
    # Python itself reads SSLKEYLOGFILE, which would write the session's secrets to a file.
    context.keylog_filename = None  # type: ignore[assignment]  # None ends it; typeshed has str
    return context


class _Resolver(AbstractResolver):
    """Resolve host names for aiohttp."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the IP addresses of a host. Raises OSError."""
        return numeric_results(host, port, [ip_address(text) for text in await look_up(host)])

    async def close(self) -> None:
        """Do nothing: the resolver holds no resources."""


def numeric_results(
    host: str, port: int, addresses: Iterable[IPv4Address | IPv6Address]
) -> list[ResolveResult]:
    """Convert the IP addresses of a host to aiohttp's form."""
    return [
        ResolveResult(
            hostname=host,
            host=str(address),
            port=port,
            family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
            proto=0,
            flags=socket.AI_NUMERICHOST,
        )
        for address in addresses
    ]


def open_session(
    verify: ssl.SSLContext,
    headers: Mapping[str, str],
    *,
    keep_alive: bool,
    resolver: AbstractResolver | None = None,
) -> aiohttp.ClientSession:
    """Open a session that ignores the environment, keeps no cookies and decodes no encoding.

    The number of connections is unlimited here; the worker pool limits it.
    """
    connector = aiohttp.TCPConnector(
        ssl=verify,
        limit=0,
        force_close=not keep_alive,
        resolver=resolver or _Resolver(),
        use_dns_cache=resolver is None,
    )
    # aiohttp has no public way to choose the protocol class of a connection.
    connector._factory = cast(
        "partial[ResponseHandler]", partial(_HeadFirst, loop=asyncio.get_running_loop())
    )
    return aiohttp.ClientSession(
        connector=connector,
        headers={"Accept-Encoding": "identity", "User-Agent": "batchgen", **headers},
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT_S, ceil_threshold=3600),
        read_bufsize=_READ_AHEAD_BYTES,
    )


class _HeadFirst(ResponseHandler):
    """Pass the head of a response to aiohttp separately from its body.

    Otherwise aiohttp loses a whole response that arrives in one piece with bytes after its end.
    """

    def data_received(self, data: bytes) -> None:
        """Split received bytes after the response head."""
        end = data.find(_END_OF_HEAD) + len(_END_OF_HEAD) if self._payload is None else 0
        if len(_END_OF_HEAD) <= end < len(data):
            super().data_received(data[:end])
            data = data[end:]
        super().data_received(data)
