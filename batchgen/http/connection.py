"""One connection to a server: counts what the kernel took, and passes on what arrives.

All connections of a transport receive into one shared buffer, which the parser empties before the
event loop turns to the next connection. A buffer for each response would cost an allocation and
page faults per read.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Final, cast

import httpx

from batchgen.http.progress import Progress
from batchgen.http.response_parser import MalformedResponse, ResponseParser

RECEIVE_BYTES: Final = 128 * 1024
_SEND_BYTES: Final = 256 * 1024
_READ_AHEAD_BYTES: Final = 64 * 1024
"""Received but unread bytes at which the connection stops reading."""
_UNREAD_WHILE_SENDING_BYTES: Final = 4 * 1024 * 1024
"""Longest response that is kept while the request is still sent; then sending ends."""
_MAX_SETTLE_TURNS: Final = 1000
_READER_TURN_S: Final = 0.01
_DEADLINE_TEXT: Final = "the deadline has passed"


class DeadlinePassed(httpx.ReadTimeout):
    """The deadline of a request passed before its response was complete."""


class Connection(asyncio.BufferedProtocol):
    """A connection that carries one request at a time."""

    def __init__(self, buffer: bytearray) -> None:
        self._buffer = memoryview(buffer)
        self._socket: socket.socket | None = None
        self._raw: asyncio.Transport | None = None
        """Talks to the kernel; below TLS."""
        self._transport: asyncio.Transport | None = None
        self._parser: ResponseParser | None = None
        self._progress = Progress()
        self._waiter: asyncio.Future[None] | None = None
        self._error: httpx.TransportError | None = None
        self._is_lost = False
        self._has_eof = False
        self._is_reading_paused = False
        self._is_reader_attached = False
        self._handed = 0
        """Bytes of the request that asyncio has."""
        self._received = 0
        self._settled = (-1, 0)
        self._settling: asyncio.TimerHandle | None = None
        self._on_unrequested: Callable[[], None] | None = None
        """Called for bytes that no request of this connection requested."""
        self.idle_since = 0.0
        """When it became idle, by the event loop's clock."""

    # Opening

    async def open(self, sock: socket.socket) -> None:
        """Use a connected socket. Raises OSError."""
        self._socket = sock
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(lambda: self, sock=sock)
        self._raw = self._transport = transport
        # A byte that is not in the buffer is with the kernel, and no writer waits for less.
        transport.set_write_buffer_limits(high=0)

    async def secure(self, context: ssl.SSLContext, host: str) -> None:
        """Start TLS and check the certificate against ``host``. Raises ssl.SSLError and OSError."""
        loop = asyncio.get_running_loop()
        lost = ConnectionResetError("the connection was lost during the TLS handshake")
        if self._raw is None:
            raise lost
        secured = await loop.start_tls(self._raw, self, context, server_hostname=host)
        if secured is None:  # Python 3.11 has no transport for a connection that was lost at once
            raise lost
        secured.set_write_buffer_limits(high=1, low=0)  # asyncio's TLS pauses at high, not above it
        self._transport = secured

    def is_usable(self, *, is_free: bool) -> bool:
        """Return whether an idle connection can carry another request: it is open and silent.

        For a request that is free to repeat, the state that the event loop knows is enough.
        """
        if self._is_lost or self._has_eof or self._error is not None or self._transport is None:
            return False
        return not self._transport.is_closing() and (is_free or not _is_readable(self._socket))

    def is_fresh(self, keep_s: float) -> bool:
        """Return whether it became idle less than ``keep_s`` seconds ago."""
        return asyncio.get_running_loop().time() - self.idle_since < keep_s

    # Exchange

    async def send(
        self, head: bytes, body: AsyncIterator[bytes] | None, progress: Progress
    ) -> None:
        """Send a request. Returns early if the server responds completely before it is sent.

        ``head`` goes with the first piece of the body. Raises httpx.TransportError, and what
        ``body`` raises.
        """
        self._parser, self._progress = ResponseParser(), progress
        self._received, self._settled, self._is_reader_attached = 0, (-1, 0), False
        self._handed = 0
        held = head
        if body is not None:
            async for piece in body:
                if held and len(piece) < _SEND_BYTES:
                    held, piece = b"", held + piece
                elif held:
                    await self._write(held)
                    held = b""
                await self._write(piece)
                if self._is_over:
                    return
        if held:
            await self._write(held)
        if not self._is_over:
            progress.sent()

    async def head(self) -> ResponseParser:
        """Wait for the head of the response. Raises httpx.TransportError."""
        parser = self._parser
        assert parser is not None
        while parser.status is None:
            self._raise_error()
            await self._wait()
        self._is_reader_attached = True
        return parser

    async def read(self) -> list[bytes]:
        """Wait for the next pieces of the body; none means its end. Raises httpx.TransportError.

        Everything that arrived before an error is returned first.
        """
        parser = self._parser
        assert parser is not None
        while True:
            pieces = parser.take_body()
            if pieces:
                self._resume_reading()
                return pieces
            if parser.is_complete:
                return []
            self._raise_error()
            await self._wait()

    def arrived(self) -> tuple[bytes, bool]:
        """Return the unread bytes of the body, and whether they complete it."""
        parser = self._parser
        assert parser is not None
        return b"".join(parser.take_body()), parser.is_complete

    @property
    def is_reusable(self) -> bool:
        """Whether the exchange left a connection that can carry another one."""
        parser = self._parser
        return (
            parser is not None
            and parser.is_complete
            and parser.keep_alive
            and not parser.has_surplus
            and self._progress.is_sent
            and not self._is_reading_paused
            and not self._is_lost
            and not self._has_eof
        )

    @property
    def has_surplus(self) -> bool:
        """Whether bytes followed the response."""
        return self._parser is not None and self._parser.has_surplus

    def detach(self, on_unrequested: Callable[[], None] | None = None) -> None:
        """Forget the exchange, so that the connection is idle.

        ``on_unrequested`` is called for bytes that arrive before the next request leaves.
        """
        self._on_unrequested = on_unrequested
        self._stop_settling()
        self._parser, self._progress = None, Progress()
        self.idle_since = asyncio.get_running_loop().time()

    def abort(self) -> None:
        """Close at once. What the kernel did not take is never sent."""
        self._stop_settling()
        if self._transport is not None and not self._is_lost:
            self._note_taken()
            self._note_unsent()
            self._transport.abort()

    def expire(self) -> None:
        """End the exchange at its deadline, after reading what has arrived.

        A process that was stopped past its deadline may find a whole response in its socket.
        """
        received, turns = self._settled
        is_waiting = self._is_reading_paused  # for the reader; the rest may be in the socket
        if turns > _MAX_SETTLE_TURNS or (self._received == received and not is_waiting):
            self._fail(DeadlinePassed(_DEADLINE_TEXT))
            return
        self._settled = -1 if is_waiting else self._received, turns + 1
        # A timer runs after the reads of its turn of the event loop, other callbacks before them.
        wait_s = _READER_TURN_S if is_waiting else 0
        self._settling = asyncio.get_running_loop().call_later(wait_s, self.expire)

    # Called by the event loop

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the shared buffer."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Parse received bytes."""
        parser = self._parser
        if parser is None or self._is_waiting_to_leave:
            self._refuse_unrequested()
            return
        self._received += nbytes
        self._progress.received += nbytes
        try:
            parser.feed(self._buffer[:nbytes])
        except MalformedResponse as exc:
            self._fail(httpx.RemoteProtocolError(str(exc)))
            return
        limit = _READ_AHEAD_BYTES if self._is_reader_attached else _UNREAD_WHILE_SENDING_BYTES
        if parser.body_bytes > limit and not self._is_reading_paused and not parser.is_complete:
            self._is_reading_paused = True
            cast("asyncio.Transport", self._transport or self._raw).pause_reading()
        if parser.body or parser.is_complete or not self._is_reader_attached:
            self._wake()

    def eof_received(self) -> bool:
        """End a body that lasts until the end of the connection."""
        self._has_eof = True
        self._end_of_input("the server closed the connection")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the exchange, unless its response is complete."""
        self._is_lost = True
        if exc is None:
            self._end_of_input("the connection was closed")
        else:
            self._fail(httpx.ReadError(str(exc) or type(exc).__name__))
        # Without the cycle, asyncio's TLS buffers of 256 KiB are freed before the next collection.
        self._transport = self._raw = self._socket = None

    def resume_writing(self) -> None:
        """Wake the writer, since the buffer is empty."""
        # Now, not in the writer: the connection may be lost before the writer runs.
        self._note_taken()
        self._wake()

    def pause_writing(self) -> None:
        """Do nothing: the writer looks at the buffers."""

    # Helpers

    @property
    def _is_over(self) -> bool:
        """Whether sending more would be useless."""
        parser = self._parser
        return parser is None or parser.is_complete or self._is_reading_paused

    @property
    def _is_waiting_to_leave(self) -> bool:
        """Whether a kept connection has a request of which nothing has left."""
        return self._on_unrequested is not None and not self._handed

    def _refuse_unrequested(self) -> None:
        """End a connection on which bytes arrived that are no response to a request.

        They may be a second response to the request before; the next one must not get them.
        """
        self._has_eof = True
        self._fail(httpx.RemoteProtocolError("the server sent bytes that nothing requested"))
        if self._on_unrequested is not None:
            self._on_unrequested()

    async def _write(self, data: bytes) -> None:
        if self._is_over:
            return
        transport = self._transport
        if transport is None:  # lost while the next piece of the body was awaited
            self._raise_error()
            raise httpx.WriteError("the connection was closed")
        view = memoryview(data)
        while view:
            self._raise_error()
            if transport.is_closing():
                raise httpx.WriteError("the connection was closed")
            part = view[:_SEND_BYTES]
            transport.write(part)
            self._handed += len(part)
            view = view[len(part) :]
            self._note_taken()
            while transport.get_write_buffer_size() and not self._is_over:
                self._raise_error()
                await self._wait()
            if self._is_over:
                return
            self._raise_error()
            if transport.is_closing():  # also after a failed write, which leaves an empty buffer
                raise httpx.WriteError("the connection was closed")

    def _note_taken(self) -> None:
        transport = self._transport
        if transport is not None and not transport.is_closing():
            self._progress.took(self._handed - transport.get_write_buffer_size())

    def _note_unsent(self) -> None:
        """Correct ``is_sent`` by what TLS has encrypted and the kernel did not take."""
        raw = self._raw
        if raw is not None and not raw.is_closing() and raw.get_write_buffer_size():
            self._progress.is_sent = False

    def _end_of_input(self, reason: str) -> None:
        parser = self._parser
        if parser is None:
            return
        try:
            parser.feed_eof()
        except MalformedResponse as exc:
            self._fail(httpx.RemoteProtocolError(str(exc)))
            return
        if parser.is_complete:
            self._wake()
        elif parser.status is None:
            self._fail(httpx.RemoteProtocolError(f"{reason} without a response"))
        else:
            self._fail(httpx.RemoteProtocolError(f"{reason} before the response was complete"))

    def _stop_settling(self) -> None:
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None

    def _fail(self, error: httpx.TransportError) -> None:
        if self._error is None:
            self._error = error
        self._wake()

    def _raise_error(self) -> None:
        parser = self._parser
        if self._error is not None and not (parser is not None and parser.is_complete):
            raise self._error

    def _resume_reading(self) -> None:
        if self._is_reading_paused and not self._is_lost:
            self._is_reading_paused = False
            assert self._transport is not None
            self._transport.resume_reading()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None


def _is_readable(sock: socket.socket | None) -> bool:
    """Return whether bytes, the end or an error of a connection wait in the kernel."""
    if sock is None:
        return True
    try:
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
