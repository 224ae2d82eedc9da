"""Serve scripted responses to POST requests, and files, on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

NO_HEADERS: Mapping[str, str] = {}


class Scripted:
    """A server with scripted responses to each POST, which also serves files."""

    def __init__(self) -> None:
        self.posts: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.gets: list[str] = []
        self.get_headers: list[dict[str, str]] = []
        self.files: dict[str, bytes | int | Callable[[], bytes]] = {}
        self.get_reply_headers: dict[str, str] = {}
        self.content_type = "application/json"
        self.headers: dict[str, str] = {}
        """More headers of each response."""
        self.cut = 0
        """Bytes at the end of a response that are announced and never sent."""
        self.reply: Callable[[], tuple[int, bytes]] = lambda: (200, b"{}")
        self.base = ""

    def response(self, *items: dict[str, Any]) -> None:
        """Respond with these items as ``data``."""
        self.reply = lambda: (200, json.dumps({"created": 1, "data": items}).encode())

    def url(self, name: str) -> str:
        """Return the URL of a file."""
        return f"{self.base}/{name}"


@contextmanager
def scripted() -> Iterator[Scripted]:
    """A scripted server on loopback."""
    script = Scripted()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            script.posts.append(json.loads(body))
            script.paths.append(self.path)
            self._send(*script.reply(), cut=script.cut)

        def do_GET(self) -> None:
            if self.path in ("/api/pricing", "/v1/models"):
                return self._send(404, b"no")
            script.gets.append(self.path)
            script.get_headers.append(dict(self.headers))
            found = script.files.get(self.path.lstrip("/"), 404)
            if isinstance(found, int):
                return self._send(found, b"no", headers=script.get_reply_headers)
            body = found() if callable(found) else found
            return self._send(200, body, headers=script.get_reply_headers)

        def _send(
            self, status: int, body: bytes, cut: int = 0, headers: Mapping[str, str] = NO_HEADERS
        ) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", script.content_type)
            self.send_header("Content-Length", str(len(body)))
            for name, value in script.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[: len(body) - cut])

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    script.base = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield script
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
