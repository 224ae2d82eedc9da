"""The review server as a process: its socket, its URL, and how it ends."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final

import uvicorn

from batchgen.errors import SettingsError
from batchgen.review.access import Access
from batchgen.review.app import create_app
from batchgen.review.batch import ReviewBatch

_GRACE_S: Final = 1


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            self._on_ready()


def serve(batch: ReviewBatch, *, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve until interrupted; ``on_ready`` gets the URL with the token. Port 0 takes a free one.

    Raises SettingsError if nothing can listen there.
    """
    try:
        listener = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
    except OSError as exc:
        raise SettingsError(f"--port {port}: cannot listen on {host}: {exc.strerror}") from exc
    with listener:
        shown = f"[{host}]" if ":" in host else host
        access = Access(f"{shown}:{listener.getsockname()[1]}")
        config = uvicorn.Config(
            create_app(batch, access),
            ws="none",
            lifespan="on",
            log_config=None,
            log_level="critical",
            access_log=False,
            timeout_graceful_shutdown=_GRACE_S,
            server_header=False,
            date_header=False,
        )
        server = _Server(config, on_ready=lambda: on_ready(access.url))
        asyncio.run(server.serve(sockets=[listener]))
