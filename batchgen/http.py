"""The wire to the endpoint: one paid request at a time, each on a connection of its own.

What was sent is known from the connection's own trace, never guessed from the name of an exception
(reliability sheet, section 1.3). Nothing here retries.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final, Protocol, Self

import anyio
import httpx
from anyio.abc import AsyncResource

from batchgen.files import PartFile
from batchgen.outcome import Exchange, Failure, Reach
from batchgen.spool import SpoolWriter

CONNECT_TIMEOUT_S: Final = 10.0
MAX_ANSWER_BYTES: Final = 256 * 1024 * 1024
_WATCH_EVERY_S: Final = 1.0
_ASK_DEADLINE_S: Final = 30.0
_MAX_DOCUMENT_BYTES: Final = 1024 * 1024

_KEPT_HEADERS: Final = frozenset(
    {
        "content-encoding",
        "content-type",
        "content-length",
        "date",
        "location",
        "retry-after",
        "retry-after-ms",
        "x-should-retry",
        "x-ratelimit-reset-requests",
        "x-oneapi-request-id",
        "x-request-id",
        "request-id",
        "cf-ray",
    }
)
_MAX_HEADER_CHARS: Final = 4096
_HIDDEN: Final = "***"
_MIN_SECRET_CHARS: Final = 16
"""Shorter keys are no secrets (``none``, ``test``), and may stand in an answer for good reasons."""


def time_awake_or_asleep() -> float:
    """Seconds that go on while the machine sleeps, and that no change of the clock moves.

    Linux stops its monotonic clock in suspend, so a laptop that slept for a night would wait for
    the rest of a deadline that is long over.
    """
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class Deadlines:
    """Ends requests whose time is over, also when the machine slept through it.

    ``with deadlines.scope(300) as scope`` is cancelled after 300 s awake, and by ``watch`` as soon
    as 300 s awake or asleep are over.
    """

    def __init__(self, clock: Callable[[], float] = time_awake_or_asleep) -> None:
        self._clock = clock
        self._scopes: dict[anyio.CancelScope, float] = {}

    @contextmanager
    def scope(self, seconds: float) -> Iterator[anyio.CancelScope]:
        """A cancel scope that ends after ``seconds``."""
        with anyio.move_on_after(seconds) as scope:
            self._scopes[scope] = self._clock() + seconds
            try:
                yield scope
            finally:
                del self._scopes[scope]

    def expire(self) -> None:
        """Cancel every scope whose time is over by the clock that knows of sleep."""
        now = self._clock()
        for scope, end in self._scopes.items():
            if end <= now:
                scope.cancel()

    async def watch(self) -> None:
        """Look once a second, for as long as the run lasts."""
        while True:
            await anyio.sleep(_WATCH_EVERY_S)
            self.expire()


_unlogged: ContextVar[bool] = ContextVar("_unlogged", default=False)


class _DropOurs(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not _unlogged.get()


_DROP_OURS: Final = _DropOurs()
_LOGGERS: Final = ("httpx", "httpcore.connection", "httpcore.http11")


@contextmanager
def without_logs() -> Iterator[None]:
    """Keep the HTTP libraries from logging what we do meanwhile.

    They write addresses with their signatures, and every header of an answer, which may repeat the
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
    """How its answer is to be read; the spool keeps it."""


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
    """No answer came; the message says why."""


class ApiClient:
    """Sends requests with the key. One a worker; use as an async context manager.

    Raises ValueError for a key that is none, without showing it.
    """

    def __init__(
        self, *, key: str | None, verify: ssl.SSLContext, deadlines: Deadlines, deadline_s: float
    ) -> None:
        if key and not (key.isascii() and key.isprintable()):
            raise ValueError("the key holds characters that no header can carry")
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Accept-Language": "en",
            "Connection": "close",
            "User-Agent": "batchgen",
        }
        if key:
            headers["Authorization"] = f"Bearer {key}"
        self._secret = key if key and len(key) >= _MIN_SECRET_CHARS else None
        self._deadlines = deadlines
        self._deadline_s = deadline_s
        self._client = httpx.AsyncClient(
            headers=headers,
            cookies=no_cookies(),
            verify=verify,
            trust_env=False,
            follow_redirects=False,
            http2=False,
            timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        with anyio.CancelScope(shield=True):
            await self._client.aclose()

    async def exchange(self, request: ApiRequest, part: PartFile) -> Exchange:
        """Send one request and spool its answer; says how far it got, whatever happened.

        Raises OSError where the spool can't be written, and lets cancellation by the caller
        through; everything else is in the Exchange.
        """
        trace = _Trace()
        got = _Got()
        failure, detail = Failure.NONE, ""
        with self._deadlines.scope(self._deadline_s) as scope, without_logs():
            try:
                await self._send(request, part, trace, got)
            except httpx.HTTPError as exc:
                failure, detail = _failure_of(exc, trace), _describe(exc)
            except _TooLarge:
                failure = Failure.TOO_LARGE
            except (httpx.InvalidURL, ssl.SSLError, ValueError, _BodyUnreadable) as exc:
                failure, detail = Failure.NETWORK, _describe(exc)
        if scope.cancelled_caught:
            failure, detail = Failure.DEADLINE, f"{self._deadline_s:g} s"
        if got.complete:
            failure, detail = Failure.NONE, ""
        return Exchange(
            reach=Reach.COMPLETE if got.complete else max(trace.reach, got.reach),
            failure=failure,
            detail=self._hide(detail),
            status=got.status,
            headers=got.headers,
        )

    async def ask(self, url: str) -> Document:
        """GET a small document, such as the state of a task: free, and nothing is spooled.

        Raises NoDocument where none came, whatever the reason.
        """
        with self._deadlines.scope(_ASK_DEADLINE_S) as scope, without_logs():
            try:
                async with self._client.stream("GET", url) as response:
                    body = bytearray()
                    async for chunk in response.aiter_raw():
                        body += chunk
                        if len(body) > _MAX_DOCUMENT_BYTES:
                            raise NoDocument("the answer is too large")
                    return Document(status=response.status_code, body=bytes(body))
            except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, ValueError) as exc:
                raise NoDocument(self._hide(_describe(exc))) from None
        if scope.cancelled_caught:
            raise NoDocument(f"no answer within {_ASK_DEADLINE_S:g} s")
        raise AssertionError("unreachable")

    def _hide(self, text: str) -> str:
        return text.replace(self._secret, _HIDDEN) if self._secret else text

    async def _send(self, request: ApiRequest, part: PartFile, trace: _Trace, got: _Got) -> None:
        pieces = _pieces(request.body, trace)
        try:
            async with self._client.stream(
                request.method,
                request.url,
                content=pieces,
                headers={**request.body.headers, **request.headers},
                extensions={"trace": trace},
            ) as response:
                await self._spool(response, part, trace, got, request.route)
        finally:
            # A body that was not read to its end still holds its file, and httpcore leaves the
            # socket open when it is cancelled in the TLS handshake.
            with anyio.CancelScope(shield=True):
                await pieces.aclose()
                if trace.socket is not None:
                    await trace.socket.aclose()

    async def _spool(
        self, response: httpx.Response, part: PartFile, trace: _Trace, got: _Got, route: str
    ) -> None:
        got.status = response.status_code
        kept = kept_headers(response.headers)
        got.headers = {name: self._hide(value) for name, value in kept.items()}
        got.reach = Reach.HEADERS
        async with part:
            writer = SpoolWriter(
                part, response.status_code, got.headers, route=route, hide=self._secret
            )
            size = 0
            try:
                async for chunk in response.aiter_raw():
                    size += len(chunk)
                    if size > MAX_ANSWER_BYTES:
                        raise _TooLarge
                    await writer.write(chunk)
            finally:
                # Once the last byte is here, cancellation would only lose what is paid.
                with anyio.CancelScope(shield=True):
                    if trace.answered:
                        await writer.commit()
                        got.complete = True
                    else:
                        await writer.flush()


@dataclass(slots=True)
class _Got:
    status: int | None = None
    headers: Mapping[str, str] | None = None
    reach: Reach = Reach.NOTHING
    complete: bool = False


class _TooLarge(Exception):
    pass


class _BodyUnreadable(Exception):
    """A file of the request's body; an OSError would pass for one of the spool."""


class _Trace:
    """Follows httpcore's trace events to the furthest point that was reached."""

    def __init__(self) -> None:
        self.reach = Reach.NOTHING
        self.socket: AsyncResource | None = None
        self.last_piece = False
        """The end of the body was given to the connection."""
        self.answered = False
        """The whole answer was received and passed on."""

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        _, _, step = event.partition(".")
        if step == "send_request_headers.started":
            self.reach = max(self.reach, Reach.PARTIAL)
        elif step == "send_request_body.complete" or (
            # A connection that we close ourselves may still hand over what it holds.
            step == "send_request_body.failed"
            and self.last_piece
            and isinstance(info["exception"], anyio.get_cancelled_exc_class())
        ):
            self.reach = max(self.reach, Reach.SENT)
        elif step == "receive_response_body.complete":
            self.answered = True
        elif event == "connection.connect_tcp.complete":
            self.socket = info["return_value"]


async def _pieces(body: Body, trace: _Trace) -> AsyncGenerator[bytes, None]:
    left = int(body.headers["Content-Length"])
    try:
        async with aclosing(body.stream()) as stream:
            async for piece in stream:
                left -= len(piece)
                if left < 0:
                    break
                trace.last_piece = left == 0
                yield piece
    except OSError as exc:
        raise _BodyUnreadable(str(exc)) from exc
    if left != 0:
        raise _BodyUnreadable("a file changed its size while it was sent")


def _failure_of(exc: httpx.HTTPError, trace: _Trace) -> Failure:
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
            return Failure.TLS if trace.reach is Reach.NOTHING else Failure.NETWORK
        cause = cause.__cause__ or cause.__context__
    if trace.reach is Reach.NOTHING and trace.socket is None:
        return Failure.CONNECT
    return Failure.NETWORK


def _describe(exc: BaseException) -> str:
    return str(exc) or type(exc).__name__


def kept_headers(headers: httpx.Headers) -> dict[str, str]:
    """The headers that outcomes and people need, short enough for a row."""
    return {name: headers[name][:_MAX_HEADER_CHARS] for name in _KEPT_HEADERS if name in headers}
