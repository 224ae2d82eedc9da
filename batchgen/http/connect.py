"""Open TCP connections to hosts with several IP addresses (RFC 8305, "Happy Eyeballs")."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Final

_NEXT_AFTER_S: Final = 0.25
"""Wait before the next IP address is tried at the same time (RFC 8305, section 5)."""


async def open_socket(ips: Sequence[str], port: int) -> socket.socket:
    """Connect to the first of several IP addresses that accepts. Raises OSError."""
    if len(ips) == 1:
        return await _connect(ips[0], port)
    if not ips:
        raise OSError("the host has no IP address")
    waiting = list(_interleaved(ips))
    running: set[asyncio.Task[socket.socket]] = set()
    error: OSError | None = None
    try:
        while waiting or running:
            if waiting:
                running.add(asyncio.create_task(_connect(waiting.pop(0), port)))
            done, running = await asyncio.wait(
                running,
                timeout=_NEXT_AFTER_S if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            connected = [task.result() for task in done if task.exception() is None]
            for extra in connected[1:]:
                extra.close()
            if connected:
                return connected[0]
            for task in done:
                failure = task.exception()
                if not isinstance(failure, OSError):
                    raise failure or AssertionError
                error = error or failure
    finally:
        for task in running:
            task.cancel()
        for outcome in await asyncio.gather(*running, return_exceptions=True):
            if isinstance(outcome, socket.socket):  # connected as it was cancelled
                outcome.close()
    assert error is not None
    raise error


async def _connect(ip: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        # A provider may be silent for minutes; a router on the way forgets silent connections.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        await asyncio.get_running_loop().sock_connect(sock, (ip, port))
    except BaseException:
        sock.close()
        raise
    return sock


def _interleaved(ips: Sequence[str]) -> list[str]:
    """Alternate the families, starting with that of the first IP address."""
    first = ":" in ips[0]
    same = [one for one in ips if (":" in one) == first]
    other = [one for one in ips if (":" in one) != first]
    paired = [one for pair in zip(same, other, strict=False) for one in pair]
    return paired + same[len(other) :] + other[len(same) :]
