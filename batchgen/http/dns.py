"""Resolve host names in daemon threads, for which the process does not wait at exit.

The platform's lookup cannot be cancelled: a name server that never responds would keep a finished
or stopped run from exiting.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

_CACHED_S: Final = 10.0


def ip_in(host: str) -> IPv4Address | IPv6Address | None:
    """Return the IP address that a host is written as; None for a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


async def look_up(host: str) -> list[str]:
    """Return the IP addresses of a host without repeats, in the platform's order.

    Cancellable at any time. Raises OSError and ValueError.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[str]] = loop.create_future()

    def settle(ips: list[str], error: Exception | None) -> None:
        if found.done():
            return
        if error is None:
            found.set_result(ips)
        else:
            found.set_exception(error)

    def resolve() -> None:
        ips: list[str] = []
        error: Exception | None = None
        try:
            entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            ips = list(dict.fromkeys(str(entry[4][0]) for entry in entries))
        except Exception as exc:
            error = exc
        with suppress(RuntimeError):  # the loop is closed, so no caller waits for the result
            loop.call_soon_threadsafe(settle, ips, error)

    try:
        threading.Thread(target=resolve, name="name lookup", daemon=True).start()
    except RuntimeError as exc:  # the system has no thread left, which may be temporary
        raise OSError(errno.EAGAIN, f"the name cannot be looked up: {exc}") from exc
    return await found


class CachedLookup:
    """Look up each host once in ``lasts_s`` seconds, however many requests wait for it.

    With 0, requests share a lookup that is running, and nothing is remembered.
    """

    def __init__(self, *, lasts_s: float = _CACHED_S) -> None:
        self._lasts_s = lasts_s
        self._running: dict[str, asyncio.Task[list[str]]] = {}
        self._known: dict[str, tuple[float, list[str]]] = {}

    async def __call__(self, host: str) -> Sequence[str]:
        """Return the IP addresses of a host. Raises OSError and ValueError."""
        now = asyncio.get_running_loop().time()
        until, ips = self._known.get(host, (0.0, []))
        if until > now:
            return ips
        task = self._running.get(host)
        if task is None:
            task = self._running[host] = asyncio.create_task(self._look_up(host))
            task.add_done_callback(_retrieve)
        return await asyncio.shield(task)  # others may wait for it, too

    async def _look_up(self, host: str) -> list[str]:
        try:
            ips = await look_up(host)
            self._known[host] = (asyncio.get_running_loop().time() + self._lasts_s, ips)
            return ips
        finally:
            del self._running[host]


def _retrieve(task: asyncio.Task[list[str]]) -> None:
    """Keep asyncio from logging a failed lookup whose requests were all cancelled."""
    if not task.cancelled():
        task.exception()
