"""Close a client's connection at the socket, for which ASGI has no message."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import cast

from starlette.types import Receive, Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

_TRANSPORT = "batchgen.transport"


class ReachableH11Protocol(H11Protocol):
    """uvicorn's HTTP/1.1 protocol, with its transport in every request's `scope["state"]`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        super().connection_made(transport)
        self.app_state = {**self.app_state, _TRANSPORT: transport}


async def hang_up(scope: Scope, receive: Receive, *, reset: bool) -> None:
    """Close the connection of a request whose body has been read, and wait until it is closed.

    With `reset`, the client receives a TCP RST and unsent data is lost. Otherwise the data sent
    before arrives, followed by FIN.
    """
    transport = cast(asyncio.Transport, scope["state"][_TRANSPORT])
    if reset and not transport.is_closing():
        lingering = struct.pack("ii", 1, 0)  # linger on, for zero seconds: close sends RST
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, lingering)
        transport.abort()
    else:
        transport.close()
    while (await receive())["type"] != "http.disconnect":
        pass
