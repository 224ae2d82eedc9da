"""How to reach a network, as a manifest or the environment says; free of heavy imports."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import unquote

from batchgen.urls import split_url


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy."""

    host: str
    port: int
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read ``http://[USER:PASSWORD@]HOST:PORT``. Raises ValueError, which shows no secret."""
        try:
            parts = split_url(url if "://" in url else f"http://{url}")
        except ValueError as exc:
            raise ValueError(
                f"{exc}; expected http://HOST:PORT, with special characters of a password"
                " percent-encoded"
            ) from None
        host, port = parts.hostname, parts.port
        if parts.scheme != "http":
            raise ValueError(f"unsupported scheme {parts.scheme!r}; expected http://HOST:PORT")
        if not host or port is None or parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError("not the URL of a proxy; expected http://HOST:PORT")
        return cls(host, port, unquote(parts.username or ""), unquote(parts.password or ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSettings:
    """The way to a provider, its images, documents and notifications."""

    proxy: Proxy | None = None
    """None for a direct connection. Hosts on loopback are always connected directly."""
    ca_file: Path | None = None
    """PEM certificates that are trusted in addition to the trust store."""
    system_trust: bool = False
    """Whether the trust store of the operating system is used in place of the bundled one."""
    keep_alive: bool = True
    """Whether paid requests may use the connection of an earlier one; see `StreamTransport`."""
    private_host: str | None = None
    """Host of a provider in a private network, which also serves its images; see `Access`."""
