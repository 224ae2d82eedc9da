"""Resolve host names in daemon threads, for which the process does not wait at exit.

The platform's lookup cannot be cancelled: a name server that never responds would keep a finished
or stopped run from exiting.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import suppress


async def look_up(host: str) -> list[str]:
    """Return the IP addresses of a host without repeats, in the platform's order.

    Cancellable at any time. Raises OSError and ValueError.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[str]] = loop.create_future()

    def settle(addresses: list[str], error: Exception | None) -> None:
        if found.done():
            return
        if error is None:
            found.set_result(addresses)
        else:
            found.set_exception(error)

    def resolve() -> None:
        addresses: list[str] = []
        error: Exception | None = None
        try:
            entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            addresses = list(dict.fromkeys(str(entry[4][0]) for entry in entries))
        except Exception as exc:
            error = exc
        with suppress(RuntimeError):  # the loop is closed, so no caller waits for the result
            loop.call_soon_threadsafe(settle, addresses, error)

    threading.Thread(target=resolve, name="name lookup", daemon=True).start()
    return await found
