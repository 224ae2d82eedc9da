"""The transport under httpx that carries paid requests and downloads.

It exists for two reasons. The billing protocol must know how many bytes of a request the kernel
took and whether a response began, which httpcore does not report. And httpcore scans all its
connections for each request, which costs 2.3 ms of CPU with 100 busy ones.

Requests and responses are those of httpx, so `httpx.AsyncClient(transport=...)` works, and any
other transport of httpx can take the place of this one; see `batchgen.http.progress` for what it
then does not report.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Final, cast

import anyio
import httpx

from batchgen.http.connect import open_socket
from batchgen.http.connection import RECEIVE_BYTES, Connection, DeadlinePassed
from batchgen.http.deadlines import Deadline
from batchgen.http.dns import CachedLookup, ip_in
from batchgen.http.network import Network, Origin, origin_of
from batchgen.http.network_settings import Proxy
from batchgen.http.progress import ARRIVED, DEADLINE, PROGRESS, TARGET, Progress
from batchgen.http.proxy_tunnel import open_tunnel, proxy_headers

CONNECT_TIMEOUT_S: Final = 10.0
"""For the name lookup, the connection and the TLS handshake together."""

SILENT_S: Final = 0.05
"""A server that closes without announcing it, or responds twice, does so soon after a response."""

_FRAMING: Final = frozenset(map(len, (b"host", b"content-length", b"transfer-encoding")))
"""Lengths of the header names that a request is framed by."""

Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""Return the IP addresses of a host name. Raises OSError and ValueError."""


class StreamTransport(httpx.AsyncBaseTransport):
    """Send each request on a connection that no other request uses at the same time.

    ``keep_s`` is how long an idle connection is kept for another request to its origin; 0 opens
    one for each request. Nothing limits the number of connections; the worker pool does.

    A connection is kept only if its response was complete, nothing followed it, and the server did
    not announce to close it. Before it carries a request that is not free to repeat, the kernel is
    asked whether anything arrived. A server may still close it at that moment. The request is then
    uncertain, and its origin gets a new connection for each request from then on.

    Some servers close each connection after its response without announcing it, a moment later, or
    send a second response, which would be taken for that of the next request. So a request takes a
    connection that was open and silent for ``silent_s`` seconds. After the first one to an origin
    that is not free to repeat, the others take new connections until it has a response. An origin
    that sends bytes which nothing requested gets a new connection for each request, too.

    ``receive_bytes`` is how much one read takes at most.
    """

    def __init__(
        self,
        *,
        network: Network,
        resolve: Resolve,
        keep_s: float = 0.0,
        silent_s: float = 0.0,
        receive_bytes: int = RECEIVE_BYTES,
    ) -> None:
        self._network = network
        self._resolve = resolve
        self._keep_s = keep_s
        self._silent_s = silent_s
        self._proxy_lookup = CachedLookup()
        self._buffer = bytearray(receive_bytes)
        self._idle: dict[Origin, list[Connection]] = {}
        self._unkept: set[Origin] = set()
        """Origins that closed a kept connection under a request, or sent what nothing requested."""
        self._keepers: set[Origin] = set()
        """Origins that responded to a request on a kept connection that is not free to repeat."""
        self._trials: set[Origin] = set()
        """Origins whose first such request is in flight."""
        self._is_closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and return its response when the head has arrived.

        Raises httpx.TransportError: ConnectError and ConnectTimeout only before any byte was sent.
        Raises what the request's stream raises.
        """
        origin = origin_of(request.url)
        deadline = request.extensions.get(DEADLINE)
        progress = request.extensions.setdefault(PROGRESS, Progress())
        progress.restart()
        is_free = request.method == "GET"
        while True:
            connection = self._take_idle(origin) if is_free else self._take_kept(origin)
            if connection is None:
                return await self._exchange(await self._open(origin, deadline), request, origin)
            try:
                response = await self._exchange(connection, request, origin)
            except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
                if not progress.received:
                    if not is_free and progress.taken:
                        self._stop_keeping(origin)
                    if _may_repeat(request, progress):
                        continue
                raise
            finally:
                if not is_free:
                    self._trials.discard(origin)
            if not is_free:
                self._keepers.add(origin)
            return response

    async def aclose(self) -> None:
        """Close the idle connections; connections in use close with their responses."""
        self._is_closed = True
        for connections in self._idle.values():
            for connection in connections:
                connection.abort()
        self._idle.clear()

    async def _exchange(
        self, connection: Connection, request: httpx.Request, origin: Origin
    ) -> httpx.Response:
        progress = request.extensions[PROGRESS]
        deadline = request.extensions.get(DEADLINE)
        if deadline is not None:
            deadline.listen(connection.expire)
        proxy = self._network.proxy_for(origin.host) if origin.scheme == "http" else None
        outgoing = _outgoing(request, proxy)
        progress.restart(outgoing.size)
        try:
            if outgoing.is_bodiless:
                await connection.send(outgoing.head, None, progress)
            else:
                async with aclosing(_pieces(request, outgoing)) as body:
                    await connection.send(outgoing.head, body, progress)
            parser = await connection.head()
        except BaseException:
            _stop_listening(deadline)
            connection.abort()
            raise
        release = partial(self._release, origin, connection, deadline)
        return httpx.Response(
            cast("int", parser.status),
            headers=parser.headers,
            stream=_Body(connection, release),
            extensions={ARRIVED: connection.arrived},
        )

    async def _open(self, origin: Origin, deadline: Deadline | None) -> Connection:
        """Open a connection. Raises httpx.ConnectError, ConnectTimeout and DeadlinePassed."""
        limit = CONNECT_TIMEOUT_S
        timeout = asyncio.timeout(limit) if deadline is None else deadline.timeout(limit)
        connection = Connection(self._buffer)
        try:
            async with timeout:
                await self._connect(connection, origin)
        except TimeoutError as exc:
            connection.abort()
            if deadline is not None and deadline.has_passed:
                raise DeadlinePassed("the deadline passed before there was a connection") from None
            if timeout.expired():
                raise httpx.ConnectTimeout(
                    f"no connection to {origin.host} within {limit:g} s"
                ) from None
            raise httpx.ConnectError(_text(exc, origin)) from exc
        # A TransportError: the proxy closed the connection, or used another protocol.
        except (httpx.TransportError, OSError, ValueError) as exc:
            connection.abort()
            raise httpx.ConnectError(_text(exc, origin)) from exc
        except BaseException:
            connection.abort()
            raise
        return connection

    async def _connect(self, connection: Connection, origin: Origin) -> None:
        proxy = self._network.proxy_for(origin.host)
        host, port = (origin.host, origin.port) if proxy is None else (proxy.host, proxy.port)
        # The proxy itself may have a private IP address.
        resolve = self._resolve if proxy is None else self._proxy_lookup
        ip = ip_in(host)
        ips = await resolve(host) if ip is None else [str(ip)]
        await connection.open(await open_socket(ips, port))
        if origin.scheme == "https":
            if proxy is not None:
                await open_tunnel(connection, proxy, origin)
            await connection.secure(self._network.verify, origin.host)

    def _keeps(self, origin: Origin) -> bool:
        return self._keep_s > 0 and origin not in self._unkept

    def _stop_keeping(self, origin: Origin) -> None:
        self._unkept.add(origin)
        for connection in self._idle.pop(origin, ()):
            connection.abort()

    def _take_kept(self, origin: Origin) -> Connection | None:
        """Take a connection for a request that is not free to repeat; None for a new one."""
        if origin in self._unkept or origin in self._trials:
            return None
        connection = self._take_idle(origin, is_free=False)
        if connection is not None and origin not in self._keepers:
            self._trials.add(origin)
        return connection

    def _take_idle(self, origin: Origin, *, is_free: bool = True) -> Connection | None:
        connections = self._idle.get(origin)
        while connections:
            count = self._count_silent(connections)
            if not count:
                return None
            # The oldest one has proven most.
            is_proven = is_free or origin in self._keepers
            connection = connections.pop(count - 1 if is_proven else 0)
            if connection.is_fresh(self._keep_s) and connection.is_usable(is_free=is_free):
                return connection
            connection.abort()
        return None

    def _count_silent(self, connections: Sequence[Connection]) -> int:
        """Return how many connections, of which the oldest is first, were silent long enough."""
        until = asyncio.get_running_loop().time() - self._silent_s
        return bisect_right(connections, until, key=attrgetter("idle_since"))

    def _release(self, origin: Origin, connection: Connection, deadline: Deadline | None) -> None:
        _stop_listening(deadline)
        if connection.has_surplus:
            self._stop_keeping(origin)
        if self._is_closed or not self._keeps(origin) or not connection.is_reusable:
            connection.abort()
            return
        connection.detach(partial(self._stop_keeping, origin))
        kept = self._idle.setdefault(origin, [])
        while kept and not kept[0].is_fresh(self._keep_s):
            kept.pop(0).abort()
        kept.append(connection)


async def close(response: httpx.Response) -> None:
    """Close a response of any transport; a cancellation does not interrupt it."""
    if isinstance(response.stream, _Body):
        response.stream.close()
        return
    with anyio.CancelScope(shield=True):
        await response.aclose()


class _Body(httpx.AsyncByteStream):
    """The body of a response, read from its connection."""

    def __init__(self, connection: Connection, release: Callable[[], None]) -> None:
        self._connection = connection
        self._release: Callable[[], None] | None = release

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while pieces := await self._connection.read():
            for piece in pieces:
                yield piece

    async def aclose(self) -> None:
        """Keep the connection for another request, or close it."""
        self.close()

    def close(self) -> None:
        """Do what `aclose` does, which waits for nothing."""
        if self._release is not None:
            self._release()
            self._release = None


@dataclass(slots=True)
class _Outgoing:
    """The head of a request, and the framing that it announces."""

    head: bytes
    length: int | None = None
    is_chunked: bool = False

    @property
    def is_bodiless(self) -> bool:
        """Whether nothing follows the head."""
        return self.length is None and not self.is_chunked

    @property
    def size(self) -> int | None:
        """Bytes of the whole request; None if it goes in chunks."""
        return None if self.is_chunked else len(self.head) + (self.length or 0)


def _outgoing(request: httpx.Request, proxy: Proxy | None) -> _Outgoing:
    target = request.extensions.get(TARGET) or request.url.raw_path
    if proxy is not None:
        target = b"http://" + request.url.netloc + target
    made = _Outgoing(b"")
    has_host = False
    lines = [request.method.encode("ascii") + b" " + target + b" HTTP/1.1\r\n"]
    for name, value in request.headers.raw:
        lines += (name, b": ", value, b"\r\n")
        if len(name) not in _FRAMING:
            continue
        lower = name.lower()
        if lower == b"host":
            has_host = True
        elif lower == b"content-length":
            made.length = int(value)
        elif lower == b"transfer-encoding":
            made.is_chunked = True
    if not has_host:  # httpx adds it only to requests whose body it encodes
        lines += (b"Host: ", request.url.netloc, b"\r\n")
    if proxy is not None:
        lines += proxy_headers(proxy)
    lines.append(b"\r\n")
    made.head = b"".join(lines)
    return made


async def _pieces(request: httpx.Request, outgoing: _Outgoing) -> AsyncGenerator[bytes, None]:
    stream = aiter(cast("httpx.AsyncByteStream", request.stream))
    is_over = False
    try:
        async for piece in stream:
            if not outgoing.is_chunked:
                yield piece
            elif piece:
                yield b"%x\r\n%b\r\n" % (len(piece), piece)
        is_over = True
        if outgoing.is_chunked:
            yield b"0\r\n\r\n"
    finally:
        if not is_over and isinstance(stream, AsyncGenerator):
            with anyio.CancelScope(shield=True):  # closes the files that it reads
                await stream.aclose()


def _may_repeat(request: httpx.Request, progress: Progress) -> bool:
    """Return whether a request that failed on a reused connection can be sent on a new one.

    The server may close an idle connection at any time. Without a byte of a response, the request
    itself did not fail. Only a request that is free to repeat may have been taken.
    """
    return request.method == "GET" or not progress.taken


def _stop_listening(deadline: Deadline | None) -> None:
    if deadline is not None:
        deadline.listen(None)


def _text(exc: Exception, origin: Origin) -> str:
    return f"cannot connect to {origin.host}:{origin.port}: {str(exc) or type(exc).__name__}"
