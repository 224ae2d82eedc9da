"""Run the endpoint as a process: its socket, its ready line, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import orjson
import uvicorn

from batchgen.simulator.app import create_app
from batchgen.simulator.connection import ReachableH11Protocol
from batchgen.simulator.faults import Behavior
from batchgen.simulator.orders import Terms
from batchgen.simulator.request_pipeline import Gateway

_GRACE_S = 10
_KEEP_ALIVE_S = 75
_ONLY_OWNER = 0o077
"""Prompts and images are private; the mask is that of this process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the endpoint listens and keeps its files. Port 0 takes any free port."""

    host: str
    port: int
    state: Path


def serve(
    place: Place, *, terms: Terms, behavior: Behavior, log: bool, stdin_lifeline: bool
) -> None:
    """Listen, print the ready line to stdout, and return after a signal to stop.

    SIGTERM, SIGINT and, with `stdin_lifeline`, the end of stdin stop it. Requests in flight finish
    and are billed, for at most 10 seconds. Raises OSError if the port is in use and ValueError for
    a damaged bill.
    """
    if log:
        logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    _make_state(place.state)
    with _listen(place.host, place.port) as listener:
        host = f"[{place.host}]" if ":" in place.host else place.host
        port = listener.getsockname()[1]
        base_url = f"http://{host}:{port}"
        ready = {
            "base_url": f"{base_url}/v1",
            "port": port,
            "pid": os.getpid(),
            "state": str(place.state.resolve()),
        }
        gateway = Gateway(state=place.state, base_url=base_url, terms=terms, behavior=behavior)
        config = uvicorn.Config(
            create_app(gateway),
            http=ReachableH11Protocol,
            ws="none",
            lifespan="on",
            log_config=None,
            log_level="info" if log else "error",
            access_log=log,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_GRACE_S,
            server_header=False,
        )
        server = _Server(config, on_ready=lambda: _announce(ready))
        if stdin_lifeline:
            threading.Thread(target=_stop_at_eof, args=(server,), daemon=True).start()
        asyncio.run(server.serve(sockets=[listener]))


def _make_state(state: Path) -> None:
    """Create the directory of the state: closed to other users, and ignored by git.

    An existing directory may be one of the user's, so that nothing is added to it.
    """
    state.parent.mkdir(parents=True, exist_ok=True)
    os.umask(_ONLY_OWNER)
    try:
        state.mkdir()
    except FileExistsError:
        return
    (state / ".gitignore").write_text("*\n", encoding="ascii")


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            self._on_ready()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=2048)


def _announce(ready: dict[str, object]) -> None:
    sys.stdout.buffer.write(orjson.dumps(ready) + b"\n")
    sys.stdout.buffer.flush()


def _stop_at_eof(server: uvicorn.Server) -> None:
    # os.read, because a daemon thread inside sys.stdin's lock would abort the interpreter's exit.
    while os.read(sys.stdin.fileno(), 4096):
        pass
    server.should_exit = True
