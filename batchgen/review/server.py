"""The review server as a process: its socket, its URL, and how it ends."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    with _listening(host, port) as listener:
        asyncio.run(_server(batch, listener, on_ready).serve(sockets=[listener]))


@contextmanager
def serving(batch: ReviewBatch, host: str = "127.0.0.1") -> Iterator[str]:
    """Serve in a thread until the block ends; yield the URL with the token.

    Raises SettingsError if nothing can listen there.
    """
    ready, url = threading.Event(), list[str]()

    def on_ready(found: str) -> None:
        url.append(found)
        ready.set()

    with _listening(host, 0) as listener:
        server = _server(batch, listener, on_ready)

        def work() -> None:
            try:
                asyncio.run(server.serve(sockets=[listener]))
            finally:
                ready.set()

        thread = threading.Thread(target=work)
        thread.start()
        try:
            ready.wait()
            if not url:
                raise SettingsError(f"{host}: the review page could not be served")
            yield url[0]
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        listener = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
    except OSError as exc:
        raise SettingsError(f"--port {port}: cannot listen on {host}: {exc.strerror}") from exc
    with listener:
        yield listener


def _server(
    batch: ReviewBatch, listener: socket.socket, on_ready: Callable[[str], None]
) -> uvicorn.Server:
    host, port = listener.getsockname()[:2]
    access = Access(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
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
    return _Server(config, on_ready=lambda: on_ready(access.url))
