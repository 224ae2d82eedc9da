"""Send paid requests and spool their responses. Nothing here retries.

How much of a request was sent is known from what the kernel took, never guessed from the type of an
exception: an exception alone does not say whether the server got the request.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Self, cast

import anyio
import httpx

from batchgen.http.connection import DeadlinePassed
from batchgen.http.content_coding import (
    MAX_EXPANSION,
    BadCoding,
    BodyTooLarge,
    ContentDecoder,
    read_decoded,
    undecodable,
)
from batchgen.http.deadlines import Deadline, Deadlines
from batchgen.http.dns import CachedLookup
from batchgen.http.network import Network
from batchgen.http.progress import ARRIVED, DEADLINE, PROGRESS
from batchgen.http.request import ApiRequest
from batchgen.http.response_headers import first_header, kept_headers
from batchgen.http.transport import SILENT_S, StreamTransport, close
from batchgen.http.upload import BodyUnreadable, Upload, Wait
from batchgen.images.base64_scanner import ScannedBody
from batchgen.outcomes.exchange import Exchange, Failure, Reach
from batchgen.spool.redaction import Redactor, redacted
from batchgen.spool.writer import SpoolWriter
from batchgen.system.atomic_files import PartFile
from batchgen.system.failpoints import Point, hit

MAX_RESPONSE_BYTES: Final = 256 * 1024 * 1024
_DOCUMENT_DEADLINE_S: Final = 30.0
_MAX_DOCUMENT_BYTES: Final = 1024 * 1024
_KEEP_S: Final = 1.0
"""Servers close idle connections after 2 s (gunicorn) to 75 s (nginx)."""
_ROUTE: Final = "batchgen.route"


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A small response, held in memory."""

    status: int
    body: bytes


class NoDocument(Exception):
    """No response arrived; the message gives the reason."""


class ApiClient:
    """Send requests with the key. All workers share one client.

    Use it as an async context manager. Raises ValueError, without showing the key, for a key that
    no header can carry.
    """

    _transport: httpx.AsyncBaseTransport

    def __init__(
        self, *, key: str | None, network: Network, deadlines: Deadlines, deadline_s: float
    ) -> None:
        if key and not (key.isascii() and key.isprintable()):
            raise ValueError("the API key contains characters that no HTTP header can carry")
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Accept-Language": "en",
            "User-Agent": "batchgen",
        }
        if not network.keep_alive:
            headers["Connection"] = "close"
        if key:
            headers["Authorization"] = f"Bearer {key}"
        self._headers = headers
        self._redactor = Redactor.of(key)
        self._network = network
        self._deadlines = deadlines
        self._deadline_s = deadline_s

    async def __aenter__(self) -> Self:
        self._transport = StreamTransport(
            network=self._network,
            resolve=CachedLookup(),
            keep_s=_KEEP_S if self._network.keep_alive else 0.0,
            silent_s=SILENT_S,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        with anyio.CancelScope(shield=True):
            await self._transport.aclose()

    async def exchange(
        self,
        request: ApiRequest,
        part: PartFile,
        *,
        wait: Wait | None = None,
        on_cancel: Callable[[Reach], None] = lambda reach: None,
    ) -> Exchange:
        """Send one request, spool its response, and return how far the exchange got.

        ``wait`` returns at the time to send. It is called after the connection is open, before the
        first byte. Raises OSError if the spool cannot be written, and passes on cancellation by
        the caller; ``on_cancel`` gets how far the request got then. Every other failure is in the
        Exchange.
        """
        upload = Upload(request.body, wait)
        received = _Received()
        failure, detail = Failure.NONE, ""
        with self._deadlines.limit(self._deadline_s) as deadline:
            try:
                await self._send(self._build(request, upload, deadline), part, received)
            except _SpoolFailed as exc:
                raise exc.error from None
            except _TooLarge:
                failure = Failure.TOO_LARGE
            except DeadlinePassed:
                failure, detail = Failure.DEADLINE, f"{self._deadline_s:g} s"
            except (httpx.TransportError, httpx.InvalidURL, ValueError, BodyUnreadable) as exc:
                failure, detail = _failure_of(exc, upload), _describe(exc)
            except anyio.get_cancelled_exc_class():
                on_cancel(max(upload.reach, received.reach))
                raise
        if received.complete:
            failure, detail = Failure.NONE, ""
        return Exchange(
            reach=Reach.COMPLETE if received.complete else max(upload.reach, received.reach),
            failure=failure,
            detail=redacted(detail, self._redactor),
            status=received.status,
            headers=received.headers,
            upload_bytes=int(request.body.headers["Content-Length"]),
            scanned=received.scanned,
        )

    async def fetch_document(self, url: str) -> Document:
        """GET a small document, such as the state of a task. It is free and not spooled.

        Raises NoDocument for any failure without a response.
        """
        with self._deadlines.limit(_DOCUMENT_DEADLINE_S) as deadline:
            try:
                request = httpx.Request(
                    "GET", url, headers=self._headers, extensions={DEADLINE: deadline}
                )
                response = await self._transport.handle_async_request(request)
                async with aclosing(response):
                    chunks, coding = response.aiter_raw(), _coding_of(response)
                    body = await read_decoded(chunks, coding, _MAX_DOCUMENT_BYTES)
                    if self._redactor is not None:
                        body = self._redactor.data(body)
                    return Document(status=response.status_code, body=body)
            except BodyTooLarge:
                raise NoDocument("the response is too large") from None
            except BadCoding as exc:
                raise NoDocument(str(exc)) from None
            except DeadlinePassed:
                raise NoDocument(f"no response within {_DOCUMENT_DEADLINE_S:g} s") from None
            except (httpx.TransportError, httpx.InvalidURL, ValueError) as exc:
                raise NoDocument(redacted(_describe(exc), self._redactor)) from None

    def _build(self, request: ApiRequest, upload: Upload, deadline: Deadline) -> httpx.Request:
        return httpx.Request(
            request.method,
            _parsed(request.url),
            headers={**self._headers, **request.body.headers, **request.headers},
            stream=upload,
            extensions={DEADLINE: deadline, PROGRESS: upload.progress, _ROUTE: request.route},
        )

    async def _send(self, request: httpx.Request, part: PartFile, received: _Received) -> None:
        response = await self._transport.handle_async_request(request)
        try:
            await self._spool(response, part, received, request.extensions[_ROUTE])
        finally:
            await close(response)

    async def _spool(
        self, response: httpx.Response, part: PartFile, received: _Received, route: str
    ) -> None:
        received.status = response.status_code
        kept = kept_headers(response.headers.raw)
        received.headers = {name: redacted(text, self._redactor) for name, text in kept.items()}
        received.reach = Reach.HEADERS
        hit(Point.RESPONSE_BEGUN)
        async with part:
            coding = kept.get("content-encoding", "")
            writer = SpoolWriter(
                part,
                received.status,
                received.headers,
                route=route,
                hide=self._redactor,
                coding=undecodable(coding),
            )
            intake = _Intake(writer, coding)
            try:
                async for chunk in cast("AsyncIterator[bytes]", response.stream):
                    await intake.take(chunk)
            except BaseException:
                # A cancellation after the last byte would only lose a response that is paid for.
                with anyio.CancelScope(shield=True):
                    rest, is_complete = _arrived(response)
                    await intake.finish(rest, is_complete, received)
                raise
            # Outside the shield: a cancellation here is raised after the response is durable, and
            # its handler finds the response in the spool.
            await intake.finish(b"", True, received)


@lru_cache(maxsize=256)
def _parsed(url: str) -> httpx.URL:
    return httpx.URL(url)


class _Intake:
    """Decompresses a response, where it is compressed, and spools it."""

    def __init__(self, writer: SpoolWriter, coding: str) -> None:
        self._writer = writer
        self._decoder = ContentDecoder(coding, max_expansion=MAX_EXPANSION)
        self._is_broken = False
        """Whether the rest cannot be decompressed. What is spooled may still be readable."""
        self._received = self._size = 0

    async def take(self, chunk: bytes) -> None:
        """Spool a piece of the body. Raises _SpoolFailed and _TooLarge."""
        self._received += len(chunk)
        await self._write(chunk)
        if max(self._received, self._size) > MAX_RESPONSE_BYTES:
            raise _TooLarge

    async def finish(self, rest: bytes, is_complete: bool, received: _Received) -> None:
        """Spool bytes that were not read, and make a complete response durable."""
        writer = self._writer
        await self._write(rest)
        with _SPOOL_ERRORS:
            try:
                if not self._is_broken:
                    with suppress(BadCoding):  # without its end, the text may be complete
                        for piece in self._decoder.end():
                            if self._decoder.unsupported:
                                writer.write_as_received()
                            await writer.write(piece)
                await (writer.commit() if is_complete else writer.flush())
            finally:
                received.complete = writer.whole
                received.scanned = writer.scanned
        if writer.is_durable:
            hit(Point.SPOOLED)

    async def _write(self, chunk: bytes) -> None:
        if self._is_broken:
            return
        with _SPOOL_ERRORS:
            try:
                for piece in self._decoder.feed(chunk):
                    if self._decoder.unsupported:
                        self._writer.write_as_received()
                    self._size += len(piece)
                    await self._writer.write(piece)
            except BadCoding:
                self._is_broken = True


def _coding_of(response: httpx.Response) -> str:
    return first_header(response.headers.raw, b"content-encoding") or ""


def _arrived(response: httpx.Response) -> tuple[bytes, bool]:
    """Return bytes that arrived before an error or a cancellation, and whether all did."""
    arrived = response.extensions.get(ARRIVED)
    return arrived() if arrived is not None else (b"", False)


class _SpoolErrors:
    """Marks an OSError of the spool, to distinguish it from one of the connection."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OSError):
            raise _SpoolFailed(error) from None


_SPOOL_ERRORS: Final = _SpoolErrors()


@dataclass(slots=True)
class _Received:
    status: int | None = None
    headers: Mapping[str, str] | None = None
    reach: Reach = Reach.NOTHING
    complete: bool = False
    scanned: ScannedBody | None = None


class _TooLarge(Exception):
    pass


class _SpoolFailed(Exception):
    def __init__(self, error: OSError) -> None:
        super().__init__(error)
        self.error = error


def _failure_of(exc: BaseException, upload: Upload) -> Failure:
    cause = exc.__cause__
    if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
        return Failure.TLS if upload.reach is Reach.NOTHING else Failure.NETWORK
    unconnected = (httpx.ConnectError, httpx.ConnectTimeout)
    return Failure.CONNECT if isinstance(exc, unconnected) else Failure.NETWORK


def _describe(exc: BaseException) -> str:
    return str(exc) or type(exc).__name__
