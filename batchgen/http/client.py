"""Send paid requests, each on its own connection, and spool their responses. Nothing here retries.

How much of a request was sent is known from the body that the connection has taken, never guessed
from the type of an exception: an exception alone does not say whether the server got the request.
aiohttp sends them: with 64 requests in flight, a request costs a tenth of the CPU time of httpx.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Self

import aiohttp
import anyio

from batchgen.http.deadlines import Deadlines
from batchgen.http.request import ApiRequest
from batchgen.http.response_headers import kept_headers
from batchgen.http.session import open_session
from batchgen.http.upload import BodyUnreadable, Upload
from batchgen.images.base64_scanner import ScannedBody
from batchgen.outcomes.exchange import Exchange, Failure, Reach
from batchgen.spool.writer import SpoolWriter
from batchgen.system.atomic_files import PartFile
from batchgen.system.failpoints import Point, hit

MAX_RESPONSE_BYTES: Final = 256 * 1024 * 1024
_DOCUMENT_DEADLINE_S: Final = 30.0
_MAX_DOCUMENT_BYTES: Final = 1024 * 1024
_REDACTED: Final = "***"
_MIN_SECRET_CHARS: Final = 16
"""Shorter keys (``none``, ``test``) are not secrets and may occur in a response by chance."""


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

    _session: aiohttp.ClientSession

    def __init__(
        self, *, key: str | None, verify: ssl.SSLContext, deadlines: Deadlines, deadline_s: float
    ) -> None:
        if key and not (key.isascii() and key.isprintable()):
            raise ValueError("the API key contains characters that no HTTP header can carry")
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
        """Send one request, spool its response, and return how far the exchange got.

        Raises OSError if the spool cannot be written, and passes on cancellation by the caller.
        Every other failure is in the Exchange.
        """
        upload = Upload(request.body)
        received = _Received()
        failure, detail = Failure.NONE, ""
        with self._deadlines.scope(self._deadline_s) as scope:
            try:
                await self._send(request, part, upload, received)
            except _SpoolFailed as exc:
                raise exc.error from None
            except _TooLarge:
                failure = Failure.TOO_LARGE
            except (aiohttp.ClientError, OSError, ValueError, BodyUnreadable) as exc:
                failure, detail = _failure_of(exc, upload), _describe(exc)
        if received.spool_error is not None:  # more specific than a deadline or a cancellation
            raise received.spool_error
        if scope.cancelled_caught:
            failure, detail = Failure.DEADLINE, f"{self._deadline_s:g} s"
        if received.complete:
            failure, detail = Failure.NONE, ""
        return Exchange(
            reach=Reach.COMPLETE if received.complete else max(upload.reach, received.reach),
            failure=failure,
            detail=self._redact(detail),
            status=received.status,
            headers=received.headers,
            upload_bytes=int(request.body.headers["Content-Length"]),
            scanned=received.scanned,
        )

    async def fetch_document(self, url: str) -> Document:
        """GET a small document, such as the state of a task. It is free and not spooled.

        Raises NoDocument for any failure without a response.
        """
        with self._deadlines.scope(_DOCUMENT_DEADLINE_S) as scope:
            try:
                async with self._session.get(url, allow_redirects=False) as response:
                    body = bytearray()
                    async for chunk in response.content.iter_any():
                        body += chunk
                        if len(body) > _MAX_DOCUMENT_BYTES:
                            raise NoDocument("the response is too large")
                    return Document(status=response.status, body=bytes(body))
            except (aiohttp.ClientError, OSError, ValueError) as exc:
                raise NoDocument(self._redact(_describe(exc))) from None
        if scope.cancelled_caught:
            raise NoDocument(f"no response within {_DOCUMENT_DEADLINE_S:g} s")
        raise AssertionError("unreachable")

    def _redact(self, text: str) -> str:
        return text.replace(self._secret, _REDACTED) if self._secret else text

    async def _send(
        self, request: ApiRequest, part: PartFile, upload: Upload, received: _Received
    ) -> None:
        try:
            async with self._session.request(
                request.method,
                request.url,
                data=upload,
                headers={**request.body.headers, **request.headers},
                allow_redirects=False,
            ) as response:
                try:
                    await self._spool(response, part, received, request.route)
                finally:
                    # Otherwise leaving the context waits until the rest of the request body is
                    # sent, even if the server does not read it.
                    response.close()
        except anyio.get_cancelled_exc_class():
            upload.cut_off()
            raise
        finally:
            if upload.reach is not Reach.SENT:
                with anyio.CancelScope(shield=True):
                    await upload.aclose()

    async def _spool(
        self, response: aiohttp.ClientResponse, part: PartFile, received: _Received, route: str
    ) -> None:
        received.status = response.status
        kept = kept_headers(response.raw_headers)
        received.headers = {name: self._redact(value) for name, value in kept.items()}
        received.reach = Reach.HEADERS
        hit(Point.RESPONSE_BEGUN)
        async with part:
            writer = SpoolWriter(
                part, received.status, received.headers, route=route, hide=self._secret
            )
            try:
                await _receive(response.content, writer)
            except BaseException:
                # A cancellation after the last byte would only lose a response that is paid for.
                with anyio.CancelScope(shield=True):
                    await _finish_spooling(response.content, writer, received)
                raise
            # Outside the shield: a cancellation here is raised after the response is durable, and
            # its handler finds the response in the spool.
            await _finish_spooling(response.content, writer, received)


async def _finish_spooling(
    content: aiohttp.StreamReader, writer: SpoolWriter, received: _Received
) -> None:
    """Spool the bytes that arrived but were not read, and make a complete response durable."""
    with _spool_errors():
        try:
            await writer.write(_unread(content))
            await (writer.commit() if _is_complete(content) else writer.flush())
        finally:
            received.complete = writer.whole
            received.scanned = writer.scanned
            received.spool_error = writer.failed
    if writer.is_durable:
        hit(Point.SPOOLED)


async def _receive(content: aiohttp.StreamReader, writer: SpoolWriter) -> None:
    size = 0
    async for chunk in content.iter_any():
        size += len(chunk)
        if size > MAX_RESPONSE_BYTES:
            raise _TooLarge
        with _spool_errors():
            await writer.write(chunk)


def _unread(content: aiohttp.StreamReader) -> bytes:
    """Return bytes that arrived before the connection broke or we were cancelled."""
    if isinstance(content, aiohttp.streams.EmptyStreamReader):  # a 204 has this one
        return b""
    # aiohttp has no public way to get bytes that arrived before an error: reading raises it.
    return content._read_nowait(-1) if content._buffer else b""


def _is_complete(content: aiohttp.StreamReader) -> bool:
    return content.at_eof() and content.exception() is None


@contextmanager
def _spool_errors() -> Iterator[None]:
    """Mark an OSError of the spool, to distinguish it from one of the connection."""
    try:
        yield
    except OSError as exc:
        raise _SpoolFailed(exc) from None


@dataclass(slots=True)
class _Received:
    status: int | None = None
    headers: Mapping[str, str] | None = None
    reach: Reach = Reach.NOTHING
    complete: bool = False
    scanned: ScannedBody | None = None
    spool_error: OSError | None = None


class _TooLarge(Exception):
    pass


class _SpoolFailed(Exception):
    def __init__(self, error: OSError) -> None:
        super().__init__(error)
        self.error = error


def _failure_of(exc: BaseException, upload: Upload) -> Failure:
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
            return Failure.TLS if upload.reach is Reach.NOTHING else Failure.NETWORK
        cause = cause.__cause__ or cause.__context__
    unconnected = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
    return Failure.CONNECT if isinstance(exc, unconnected) else Failure.NETWORK


def _describe(exc: BaseException) -> str:
    return str(exc) or type(exc).__name__
