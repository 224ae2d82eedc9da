"""Who may use the review server: exact Host and Origin, a token, and headers that keep pages shut.

Loopback alone does not protect: each page in the user's browser and each program of the
machine reaches it. The token travels in the fragment of the URL, which a browser never sends, and
is exchanged once for a cookie.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_TOKEN_BYTES: Final = 16
_OPEN: Final = frozenset({"/", "/run", "/compare", "/api/session"})
"""Paths that need no cookie: they hold nothing of a batch."""
_OPEN_BELOW: Final = "/static/"
MAX_BODY: Final = 16_000_000
"""Bytes of a request's body; a decision about 100,000 images has fewer."""
_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
        " media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    # Another port of this machine is the same site, so SameSite does not keep its pages out.
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class Access:
    """The secrets of one server process, and where it is bound to."""

    host: str
    """As a browser writes it into ``Host``: ``127.0.0.1:8123``."""
    token: str = field(default_factory=lambda: secrets.token_urlsafe(_TOKEN_BYTES))
    cookie: str = field(default_factory=lambda: secrets.token_urlsafe(_TOKEN_BYTES))

    @property
    def origin(self) -> str:
        """The origin of the server's own pages."""
        return f"http://{self.host}"

    @property
    def url(self) -> str:
        """The URL that opens the page, with the token."""
        return f"{self.origin}/#{self.token}"

    @property
    def cookie_name(self) -> str:
        """Ports of one host share their cookies, so the name holds the port."""
        return f"batchgen-{self.host.rpartition(':')[2]}"

    def is_token(self, given: object) -> bool:
        """Return whether a value is the token of the URL that was printed."""
        return isinstance(given, str) and hmac.compare_digest(given.encode(), self.token.encode())

    def refusal(self, method: str, path: str, headers: Headers) -> str | None:
        """Return why a request is refused; None for one that may pass."""
        if headers.getlist("host") != [self.host]:
            return "the Host header is not that of this server"
        if method not in ("GET", "HEAD", "POST"):
            return "the method is not allowed"
        if method == "POST":
            if headers.getlist("origin") != [self.origin]:
                return "the Origin header is not that of this server"
            if headers.get("content-type") != "application/json":
                return "the body is not JSON"
        if path in _OPEN or path.startswith(_OPEN_BELOW):
            return None
        given = cookie_parser(headers.get("cookie", "")).get(self.cookie_name, "")
        if not hmac.compare_digest(given.encode(), self.cookie.encode()):
            return "open the URL that `batchgen review` printed"
        return None


class Gate:
    """Middleware that refuses what `Access` refuses, and adds the headers to every response."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it with 403."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_closed(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        why = self._access.refusal(scope["method"], scope["path"], Headers(scope=scope))
        app = self._app if why is None else PlainTextResponse(why + "\n", status_code=403)
        await app(scope, receive, send_closed)
