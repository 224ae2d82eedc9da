"""How a run reaches the network: TLS and proxy, and what downloads may contact."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

import httpx

from batchgen.http.network_settings import Proxy
from batchgen.urls import is_loopback

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port of a URL."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}"


def origin_of(url: httpx.URL) -> Origin:
    """Return the origin of a URL. Raises httpx.UnsupportedProtocol."""
    scheme = url.scheme
    if scheme not in _PORTS or not url.raw_host:
        raise httpx.UnsupportedProtocol(f"{scheme or 'no scheme'}: expected https or http")
    return Origin(scheme, url.raw_host.decode("ascii"), url.port or _PORTS[scheme])


def key_origin(url: str) -> Origin | None:
    """Return the origin of a URL that may be requested with the key, if it is the base URL's.

    None for a URL that is not valid, or that contains a user name or password. The URL is parsed as
    the client parses it, so that the key cannot go to another host than the one compared.
    """
    try:
        has_user = "@" in urlsplit(url).netloc
        parsed = httpx.URL(url)
        return None if has_user or parsed.userinfo else origin_of(parsed)
    except (ValueError, httpx.InvalidURL, httpx.UnsupportedProtocol):
        return None


@dataclass(frozen=True, slots=True)
class Network:
    """The way to every host of a run; all its clients share it."""

    verify: ssl.SSLContext
    proxy: Proxy | None = None
    """None for direct connections."""
    keep_alive: bool = True
    """Whether paid requests may use the connection of an earlier one."""

    def proxy_for(self, host: str) -> Proxy | None:
        """Return the proxy on the way to a host; None for a direct connection."""
        return None if self.proxy is None or is_loopback(host) else self.proxy


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What downloads may contact besides public hosts, and who gets the key."""

    allow_loopback: bool = False
    """For a provider on this machine."""
    private_host: str | None = None
    """Host of a provider in a private network, which also serves its images."""
    key: str | None = field(default=None, repr=False)
    """The API key, for ``key_origin`` only."""
    key_origin: Origin | None = None
    """Origin of the base URL. After a 401 or 403 from exactly there, an image is requested once
    more with the key; never after a redirect."""

    @classmethod
    def for_provider(cls, base_url: str, key: str | None, private_host: str | None = None) -> Self:
        """Return what images of a provider may need. Raises httpx.InvalidURL."""
        origin = origin_of(httpx.URL(base_url))
        return cls(
            allow_loopback=is_loopback(origin.host),
            private_host=private_host,
            key=key,
            key_origin=origin,
        )
