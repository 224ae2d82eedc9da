"""Speak to an HTTP proxy: a tunnel for https (RFC 9110, section 9.3.6), credentials for http."""

from __future__ import annotations

from base64 import b64encode

import httpx

from batchgen.http.connection import Connection
from batchgen.http.network import Origin
from batchgen.http.network_settings import Proxy
from batchgen.http.progress import Progress


async def open_tunnel(connection: Connection, proxy: Proxy, origin: Origin) -> None:
    """Let the proxy connect to an origin; nothing of a request is sent. Raises httpx.ProxyError."""
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    target = f"{host}:{origin.port}".encode("ascii")
    lines = [b"CONNECT " + target + b" HTTP/1.1\r\n", b"Host: " + target + b"\r\n"]
    await connection.send(b"".join((*lines, *proxy_headers(proxy), b"\r\n")), None, Progress())
    response = await connection.head()
    if response.status is None or not 200 <= response.status < 300:
        raise httpx.ProxyError(f"the proxy {proxy.host}:{proxy.port}: HTTP {response.status}")
    connection.detach()


def proxy_headers(proxy: Proxy) -> list[bytes]:
    """Return the header lines with the credentials for the proxy; none without a user."""
    if not proxy.user and not proxy.password:
        return []
    credentials = b64encode(f"{proxy.user}:{proxy.password}".encode())
    return [b"Proxy-Authorization: Basic " + credentials + b"\r\n"]
