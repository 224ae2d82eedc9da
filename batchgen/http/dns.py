"""The addresses of a host, asked for in a thread that no exit waits for.

The platform's own lookup can't be cancelled: with a name server that never answers it would keep a
run that has ended, or was told to, from leaving.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import suppress


async def look_up(host: str) -> list[str]:
    """The addresses, without repeats, in the order of the platform. Raises OSError and ValueError.

    May be cancelled at any time.
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

    def ask() -> None:
        addresses: list[str] = []
        error: Exception | None = None
        try:
            entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            addresses = list(dict.fromkeys(str(entry[4][0]) for entry in entries))
        except Exception as exc:
            error = exc
        with suppress(RuntimeError):  # the loop is closed: nobody waits for it any more
            loop.call_soon_threadsafe(settle, addresses, error)

    threading.Thread(target=ask, name="name lookup", daemon=True).start()
    return await found
