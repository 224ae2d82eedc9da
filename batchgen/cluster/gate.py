"""A request that is ready to leave, and waits for the word of the driver."""

from __future__ import annotations

import asyncio
from typing import Final

_OPEN_S: Final = 60.0
"""How long a connection waits. A driver that wants to send says so within a second."""


class Gate:
    """Holds back the first byte of a request until the driver opens it.

    Intent and connection are ready by then, so that only a message is between the time that a rate
    limit allows and the request.
    """

    def __init__(self) -> None:
        self._reached = asyncio.Event()
        self._opened = asyncio.Event()

    async def wait(self) -> None:
        """Wait for the driver. Raises OSError after a minute: nothing is sent then."""
        self._reached.set()
        try:
            await asyncio.wait_for(self._opened.wait(), _OPEN_S)
        except TimeoutError:
            raise OSError("the driver did not say when to send") from None

    async def reached(self) -> None:
        """Wait until the request is ready."""
        await self._reached.wait()

    def open(self) -> None:
        """Let the request leave."""
        self._opened.set()
