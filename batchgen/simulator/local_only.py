"""Who may reach the endpoint: programs of this machine, but not the pages of its browsers."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Iterable, Iterator

from starlette.datastructures import URL
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from batchgen.simulator.errors import ApiError

CONTROL = "/judge/"
"""How the paths begin of routes that need no key."""


def check_loopback(host: str) -> str:
    """Return the IP address to listen on. Raises ValueError unless it is a loopback IP address."""
    try:
        ip = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise ValueError(f"{host!r} is not an IP address") from None
    if not ip.is_loopback:
        raise ValueError(f"{host} is not a loopback IP address")
    return str(ip)


def guarded(routes: Iterable[Route]) -> Iterator[Route]:
    """Yield the routes; those without a key refuse what a page of another site can send."""
    for route in routes:
        if route.path.startswith(CONTROL):
            methods = sorted(route.methods or ())
            yield Route(route.path, _checked(route.endpoint), methods=methods)
        else:
            yield route


def _checked(
    handler: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    """Check the headers that a browser sets.

    A name that resolves to 127.0.0.1 makes the page's requests same-origin, but keeps its own name
    in Host. A form of another site is sent without asking, but never as JSON.
    """

    async def checked(request: Request) -> Response:
        host = URL(f"http://{request.headers.get('host', '')}").hostname or ""
        try:
            check_loopback(host)
        except ValueError as error:
            raise ApiError(403, f"Host: {error}", type="judge_error") from None
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in ("", "application/json"):
            raise ApiError(415, "expected Content-Type: application/json", type="judge_error")
        return await handler(request)

    return checked
