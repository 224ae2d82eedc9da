"""A proxy in front of an S3 server: it drops conditions, loses responses, or refuses."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass
class Behavior:
    """What the proxy does with the requests of a test."""

    drop_conditions: bool = False
    """As an old store, which ignores If-None-Match and If-Match."""
    lose_responses: int = 0
    """This many PUT requests are carried out and answered with 503."""
    refuse_puts: bool = False
    """PUT requests are answered with 403 and not carried out."""
    refuse_gets: bool = False
    """GET and HEAD requests are answered with 403."""
    is_down: bool = False
    """All requests are answered with 503 and not carried out, as during a restart."""
    only: str = ""
    """Concerns only requests whose URL contains this text."""
    requests: list[str] = field(default_factory=list)
    """Method, URL and status of each request."""
    watch: Callable[[bytes], None] | None = None
    """Receives the headers and the body of each request."""


@contextmanager
def s3_proxy(endpoint: str, behavior: Behavior) -> Iterator[str]:
    """Start a proxy and yield its URL; stopped at the end."""
    target = urlsplit(endpoint).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _forward(self) -> None:
            size = int(self.headers.get("content-length") or 0)
            body = self.rfile.read(size)
            if behavior.watch is not None:
                behavior.watch(self.path.encode() + self.headers.as_bytes() + body)
            concerned = behavior.only in self.path
            dropped = {"if-none-match", "if-match"} if behavior.drop_conditions else set[str]()
            headers = {k: v for k, v in self.headers.items() if k.lower() not in dropped}
            if concerned and behavior.is_down:
                self._reply(503, {}, b"<Error><Code>ServiceUnavailable</Code></Error>")
                return
            if self.command == "PUT" and concerned and behavior.refuse_puts:
                self._reply(403, {}, b"<Error><Code>AccessDenied</Code></Error>")
                return
            if self.command in ("GET", "HEAD") and concerned and behavior.refuse_gets:
                self._reply(403, {}, b"<Error><Code>AccessDenied</Code></Error>")
                return
            connection = http.client.HTTPConnection(target, timeout=60)
            try:
                connection.request(self.command, self.path, body, headers)
                response = connection.getresponse()
                data = response.read()
            finally:
                connection.close()
            if self.command == "PUT" and concerned and behavior.lose_responses:
                behavior.lose_responses -= 1
                self._reply(503, {}, b"<Error><Code>SlowDown</Code></Error>")
                return
            self._reply(response.status, dict(response.getheaders()), data)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _forward

        def _reply(self, status: int, headers: dict[str, str], data: bytes) -> None:
            behavior.requests.append(f"{self.command} {self.path} {status}")
            self.send_response(status)
            is_head = self.command == "HEAD"
            for name, value in headers.items():
                if name.lower() not in {"transfer-encoding", "connection", "server", "date"} and (
                    is_head or name.lower() != "content-length"
                ):
                    self.send_header(name, value)
            if not is_head:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if not is_head:
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(20)
