"""The wire to the endpoint: one paid request at a time, each on a connection of its own.

What was sent is known from what the connection took of the body, never guessed from the name of an
exception (reliability sheet, section 1.3). Nothing here retries.
aiohttp carries it: with 64 requests in flight one costs a tenth of what httpx takes for it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, Protocol, Self, cast

import aiohttp
import anyio
import httpx
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler

from batchgen.http.deadlines import Deadlines
from batchgen.http.dns import look_up
from batchgen.images.base64_scanner import ScannedBody
from batchgen.outcomes.classify import Exchange, Failure, Reach
from batchgen.outcomes.retry_after import is_wait_header
from batchgen.spool.spool import SpoolWriter
from batchgen.system.atomic_files import PartFile
from batchgen.system.failpoints import Point, reach

CONNECT_TIMEOUT_S: Final = 10.0
MAX_RESPONSE_BYTES: Final = 256 * 1024 * 1024
_ASK_DEADLINE_S: Final = 30.0
_MAX_DOCUMENT_BYTES: Final = 1024 * 1024
_READ_AHEAD_BYTES: Final = 64 * 1024
"""Of each response that arrives while its last piece is being written; twice as much at most."""

_END_OF_HEAD: Final = b"\r\n\r\n"

_KEPT_HEADERS: Final = frozenset(
    {
        "content-encoding",
        "content-type",
        "content-length",
        "date",
        "location",
        "x-should-retry",
        "x-oneapi-request-id",
        "x-request-id",
        "request-id",
        "cf-ray",
    }
)
_MAX_HEADER_CHARS: Final = 4096
_HIDDEN: Final = "***"
_MIN_SECRET_CHARS: Final = 16
"""Shorter keys (``none``, ``test``) are not secrets and may occur in a response."""


_unlogged: ContextVar[bool] = ContextVar("_unlogged", default=False)


class _DropOurs(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not _unlogged.get()


_DROP_OURS: Final = _DropOurs()
_LOGGERS: Final = ("httpx", "httpcore.connection", "httpcore.http11")


@contextmanager
def without_logs() -> Iterator[None]:
    """Keep the HTTP libraries from logging what we do meanwhile.

    They write addresses with their signatures, and every header of a response, which may repeat the
    key. What others in this process do with httpx is logged as ever.
    """
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_DROP_OURS)
    token = _unlogged.set(True)
    try:
        yield
    finally:
        _unlogged.reset(token)


def no_cookies() -> CookieJar:
    """A jar that stays empty: no request of ours tells a server of an earlier one."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=()))


class Body(Protocol):
    """A request body that can be made anew for each attempt."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Length and type."""

    def stream(self) -> AsyncGenerator[bytes, None]:
        """The bytes, from the start. Raises OSError."""


@dataclass(frozen=True, slots=True)
class BytesBody:
    """A body that is small enough to be held."""

    data: bytes
    content_type: str = "application/json"

    @property
    def headers(self) -> Mapping[str, str]:
        """Length and type."""
        return {"Content-Type": self.content_type, "Content-Length": str(len(self.data))}

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The bytes in one piece."""
        yield self.data


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRequest:
    """A request as a provider's adapter wrote it; the key is added on the wire only."""

    method: str
    url: str
    body: Body
    headers: Mapping[str, str] = field(default_factory=dict)
    route: str = "images"
    """How its response is to be read; the spool keeps it."""


def ssl_context() -> ssl.SSLContext:
    """The one context of a run: making one costs 20 ms and 400 kB, so all clients share it."""
    context = httpx.create_ssl_context(trust_env=False)
    # SSLKEYLOGFILE is obeyed by Python itself, and would write the session's secrets to a file.
    context.keylog_filename = None  # type: ignore[assignment]  # None ends it; typeshed has str
    return context


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A small answer, held in memory."""

    status: int
    body: bytes


class NoDocument(Exception):
    """No response came; the message says why."""


class _Names(AbstractResolver):
    """Looks hosts up for aiohttp."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of a host. Raises OSError."""
        return numeric_results(host, port, [ip_address(text) for text in await look_up(host)])

    async def close(self) -> None:
        """Nothing is held."""


def numeric_results(
    host: str, port: int, addresses: Iterable[IPv4Address | IPv6Address]
) -> list[ResolveResult]:
    """Addresses of a host as aiohttp takes them."""
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
    """A session that takes nothing from the environment, keeps no cookies and undoes no encoding.

    As many connections as are asked for: how many may be is the pool's business.
    """
    connector = aiohttp.TCPConnector(
        ssl=verify,
        limit=0,
        force_close=not keep_alive,
        resolver=resolver or _Names(),
        use_dns_cache=resolver is None,
    )
    # aiohttp has no public way to choose how the bytes of a connection are read.
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
    """Takes the head of a response by itself.

    Else aiohttp loses a whole response that comes in one piece with bytes behind its end.
    """

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        end = data.find(_END_OF_HEAD) + len(_END_OF_HEAD) if self._payload is None else 0
        if len(_END_OF_HEAD) <= end < len(data):
            super().data_received(data[:end])
            data = data[end:]
        super().data_received(data)


class ApiClient:
    """Sends requests with the key; one for all workers. Use as an async context manager.

    Raises ValueError for a key that is none, without showing it.
    """

    _session: aiohttp.ClientSession

    def __init__(
        self, *, key: str | None, verify: ssl.SSLContext, deadlines: Deadlines, deadline_s: float
    ) -> None:
        if key and not (key.isascii() and key.isprintable()):
            raise ValueError("the key holds characters that no header can carry")
        self._headers = {
            "Accept": "application/json",
            "Accept-Language": "en",
            "Connection": "close",
        }
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._secret = key if key and len(key) >= _MIN_SECRET_CHARS else None
        self._verify = verify
        self._deadlines = deadlines
        self._deadline_s = deadline_s

    async def __aenter__(self) -> Self:
        self._session = open_session(self._verify, self._headers, keep_alive=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        with anyio.CancelScope(shield=True):
            await self._session.close()

    async def exchange(self, request: ApiRequest, part: PartFile) -> Exchange:
        """Send one request and spool its response; says how far it got, whatever happened.

        Raises OSError where the spool can't be written, and lets cancellation by the caller
        through; everything else is in the Exchange.
        """
        upload = _Upload(request.body)
        got = _Got()
        failure, detail = Failure.NONE, ""
        with self._deadlines.scope(self._deadline_s) as scope:
            try:
                await self._send(request, part, upload, got)
            except _SpoolFailed as exc:
                raise exc.error from None
            except _TooLarge:
                failure = Failure.TOO_LARGE
            except (aiohttp.ClientError, OSError, ValueError, _BodyUnreadable) as exc:
                failure, detail = _failure_of(exc, upload), _describe(exc)
        if got.refused is not None:  # which says more than that we gave up meanwhile
            raise got.refused
        if scope.cancelled_caught:
            failure, detail = Failure.DEADLINE, f"{self._deadline_s:g} s"
        if got.complete:
            failure, detail = Failure.NONE, ""
        return Exchange(
            reach=Reach.COMPLETE if got.complete else max(upload.reach, got.reach),
            failure=failure,
            detail=self._hide(detail),
            status=got.status,
            headers=got.headers,
            upload_bytes=int(request.body.headers["Content-Length"]),
            scanned=got.scanned,
        )

    async def ask(self, url: str) -> Document:
        """GET a small document, such as the state of a task: free, and nothing is spooled.

        Raises NoDocument where none came, whatever the reason.
        """
        with self._deadlines.scope(_ASK_DEADLINE_S) as scope:
            try:
                async with self._session.get(url, allow_redirects=False) as response:
                    body = bytearray()
                    async for chunk in response.content.iter_any():
                        body += chunk
                        if len(body) > _MAX_DOCUMENT_BYTES:
                            raise NoDocument("the response is too large")
                    return Document(status=response.status, body=bytes(body))
            except (aiohttp.ClientError, OSError, ValueError) as exc:
                raise NoDocument(self._hide(_describe(exc))) from None
        if scope.cancelled_caught:
            raise NoDocument(f"no response within {_ASK_DEADLINE_S:g} s")
        raise AssertionError("unreachable")

    def _hide(self, text: str) -> str:
        return text.replace(self._secret, _HIDDEN) if self._secret else text

    async def _send(self, request: ApiRequest, part: PartFile, upload: _Upload, got: _Got) -> None:
        try:
            async with self._session.request(
                request.method,
                request.url,
                data=upload,
                headers={**request.body.headers, **request.headers},
                allow_redirects=False,
            ) as response:
                try:
                    await self._spool(response, part, got, request.route)
                finally:
                    # Else leaving would wait for the rest of a body that the server won't read.
                    response.close()
        except anyio.get_cancelled_exc_class():
            upload.cut_off()
            raise
        finally:
            if upload.reach is not Reach.SENT:
                with anyio.CancelScope(shield=True):
                    await upload.aclose()

    async def _spool(
        self, response: aiohttp.ClientResponse, part: PartFile, got: _Got, route: str
    ) -> None:
        got.status = response.status
        kept = kept_headers(response.raw_headers)
        got.headers = {name: self._hide(value) for name, value in kept.items()}
        got.reach = Reach.HEADERS
        reach(Point.RESPONSE_BEGUN)
        async with part:
            writer = SpoolWriter(part, got.status, got.headers, route=route, hide=self._secret)
            try:
                await _receive(response.content, writer)
            except BaseException:
                # Once the last byte is here, cancellation would only lose what is paid.
                with anyio.CancelScope(shield=True):
                    await _keep(response.content, writer, got)
                raise
            # A cancellation is told when the response is kept, and who is told finds it there.
            await _keep(response.content, writer, got)


async def _keep(content: aiohttp.StreamReader, writer: SpoolWriter, got: _Got) -> None:
    """Spool what arrived and was not read, and make a whole response durable."""
    with _spooling():
        try:
            await writer.write(_rest(content))
            await (writer.commit() if _is_whole(content) else writer.flush())
        finally:
            got.complete, got.scanned, got.refused = writer.whole, writer.scanned, writer.failed
    if got.complete:
        reach(Point.SPOOLED)


async def _receive(content: aiohttp.StreamReader, writer: SpoolWriter) -> None:
    size = 0
    async for chunk in content.iter_any():
        size += len(chunk)
        if size > MAX_RESPONSE_BYTES:
            raise _TooLarge
        with _spooling():
            await writer.write(chunk)


def _rest(content: aiohttp.StreamReader) -> bytes:
    """What arrived and was not read, because the connection broke or we were cancelled first."""
    if isinstance(content, aiohttp.streams.EmptyStreamReader):  # that of a 204
        return b""
    # No public way leads to bytes that came before an error: reading raises the error.
    return content._read_nowait(-1) if content._buffer else b""


def _is_whole(content: aiohttp.StreamReader) -> bool:
    return content.at_eof() and content.exception() is None


@contextmanager
def _spooling() -> Iterator[None]:
    """Tells an OSError of the spool from one of the connection."""
    try:
        yield
    except OSError as exc:
        raise _SpoolFailed(exc) from None


@dataclass(slots=True)
class _Got:
    status: int | None = None
    headers: Mapping[str, str] | None = None
    reach: Reach = Reach.NOTHING
    complete: bool = False
    scanned: ScannedBody | None = None
    refused: OSError | None = None
    """Why the disk did not take the response."""


class _TooLarge(Exception):
    pass


class _BodyUnreadable(Exception):
    """A file of the request's body; an OSError would pass for one of the connection."""


class _SpoolFailed(Exception):
    def __init__(self, error: OSError) -> None:
        super().__init__(error)
        self.error = error


class _Upload:
    """A body on its way, which knows how much of it the connection has taken."""

    def __init__(self, body: Body) -> None:
        self.reach = Reach.NOTHING
        self._left = int(body.headers["Content-Length"])
        self._stream = body.stream()
        self._turn = asyncio.Lock()
        self._cut_off = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """The next piece; asked for once the one before is handed over."""
        async with self._turn:
            if self.reach is Reach.PARTIAL and self._left == 0:
                await self._stream.aclose()
                self.reach = Reach.SENT
                reach(Point.BODY_SENT)
            if self.reach is Reach.SENT:
                raise StopAsyncIteration
            try:
                piece = await anext(self._stream, None)
            except OSError as exc:
                raise _BodyUnreadable(str(exc)) from exc
            if piece is None or len(piece) > self._left:
                raise _BodyUnreadable("a file changed its size while it was sent")
            self._left -= len(piece)
            self.reach = Reach.PARTIAL
            return piece

    def cut_off(self) -> None:
        """We gave up ourselves: a connection that is closed may still hand over what it holds."""
        self._cut_off = True

    async def aclose(self) -> None:
        """Let go of the file that is being read, once whoever reads it is out of it."""
        async with self._turn:
            await self._stream.aclose()
            if self._cut_off and self.reach is Reach.PARTIAL and self._left == 0:
                self.reach = Reach.SENT


def _failure_of(exc: BaseException, upload: _Upload) -> Failure:
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
            return Failure.TLS if upload.reach is Reach.NOTHING else Failure.NETWORK
        cause = cause.__cause__ or cause.__context__
    unconnected = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
    return Failure.CONNECT if isinstance(exc, unconnected) else Failure.NETWORK


def _describe(exc: BaseException) -> str:
    return str(exc) or type(exc).__name__


def kept_headers(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """The headers that outcomes and people need, short enough for a row.

    One that comes more than once is joined by commas (RFC 9110, section 5.3). Without a ``Date``
    of the server's, ours is kept: moments in other headers count from it, in a later run too.
    """
    kept: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("utf-8", "replace")
        if name in _KEPT_HEADERS or is_wait_header(name):
            joined = f"{kept[name]}, {value}" if name in kept else value
            kept[name] = joined[:_MAX_HEADER_CHARS]
    kept.setdefault("date", format_datetime(datetime.now(UTC), usegmt=True))
    return kept
