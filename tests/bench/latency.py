"""A deliberately slow but cheap endpoint, for many requests in flight.

Each response names the image at ``--response``, after ``--latency`` seconds. With
``--per-minute`` a strict bucket of ``--burst`` returns 429 for requests over it. ``--jitter``
delays each request by up to as many seconds before the bucket counts it, as a network does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from tests.bench.measure import SERVER_CORE, on_core

_END_OF_HEAD: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"
_LIMITED: Final = json.dumps(
    {"error": {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}}
)


@dataclass(frozen=True)
class Latency:
    """A running endpoint."""

    url: str

    @property
    def base_url(self) -> str:
        """Base URL for the clients."""
        return f"{self.url}/v1"

    def mark(self) -> int:
        """How many requests have come."""
        return len(self._came(0))

    def bought_since(self, mark: int) -> list[float]:
        """When each request came since the mark that was not refused, in seconds since 1970."""
        return [at for at, accepted in self._came(mark) if accepted]

    def refused_since(self, mark: int) -> list[float]:
        """When each request came since the mark that was answered with 429."""
        return [at for at, accepted in self._came(mark) if not accepted]

    def most_in_flight(self) -> int:
        """Return the largest number of requests held at the same time."""
        return int(self._ask("/most"))

    def _came(self, mark: int) -> list[tuple[float, bool]]:
        return [(at, accepted) for at, accepted in self._ask(f"/came/{mark}")]

    def _ask(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=20) as response:
            return json.load(response)


@contextmanager
def latency(image_url: str, seconds: float, *switches: str) -> Iterator[Latency]:
    """Start an endpoint on a free port; stopped at the end."""
    command = [sys.executable, "-m", "tests.bench.latency", "--response", image_url]
    with subprocess.Popen(
        [*command, "--latency", str(seconds), *switches],
        stdout=subprocess.PIPE,
        preexec_fn=on_core(SERVER_CORE),
    ) as process:
        assert process.stdout is not None
        try:
            yield Latency(process.stdout.readline().decode().strip())
        finally:
            process.terminate()
            process.wait(20)


@dataclass(slots=True)
class _Bucket:
    """A token bucket, refilled evenly; None without a limit."""

    per_minute: float | None
    burst: float
    tokens: float = 0.0
    filled_at: float = 0.0

    def take(self, now: float) -> bool:
        if self.per_minute is None:
            return True
        filled = self.tokens + (now - self.filled_at) * self.per_minute / 60
        self.tokens, self.filled_at = min(self.burst, filled), now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class _State:
    def __init__(self, options: argparse.Namespace) -> None:
        body = json.dumps({"created": 1_764_000_000, "data": [{"url": options.response}]})
        self.latency_s: float = options.latency
        self.jitter_s: float = options.jitter
        self.response = _response("200 OK", body)
        self.limited = _response("429 Too Many Requests", _LIMITED)
        self.bucket = _Bucket(options.per_minute, options.burst)
        self.came: list[tuple[float, bool]] = []
        self.in_flight = self.most = 0


class _Connection(asyncio.Protocol):
    """One connection; a request's body is skipped, and its response sent when its time has come."""

    def __init__(self, state: _State) -> None:
        self._state = state
        self._received = bytearray()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(_END_OF_HEAD)) >= 0:
            head = bytes(self._received[:end])
            whole = end + len(_END_OF_HEAD) + _length(head)
            if len(self._received) < whole:
                return
            del self._received[:whole]
            delay_s = random.uniform(0, self._state.jitter_s)
            if delay_s and head.startswith(b"POST "):
                asyncio.get_running_loop().call_later(delay_s, self._reply, head)
            else:
                self._reply(head)

    def _reply(self, head: bytes) -> None:
        state = self._state
        if not head.startswith(b"POST "):
            self._transport.write(_response(*self._counters(head.split(b" ", 2)[1].decode())))
            return
        now = time.time()
        accepted = state.bucket.take(now)
        state.came.append((now, accepted))
        if not accepted:
            self._transport.write(state.limited)
            return
        state.in_flight += 1
        state.most = max(state.most, state.in_flight)
        asyncio.get_running_loop().call_later(state.latency_s, self._finish)

    def _finish(self) -> None:
        self._state.in_flight -= 1
        if not self._transport.is_closing():
            self._transport.write(self._state.response)

    def _counters(self, path: str) -> tuple[str, str]:
        _, _, mark = path.partition("/came/")
        if mark:
            return "200 OK", json.dumps(self._state.came[int(mark) :])
        if path == "/most":
            return "200 OK", json.dumps(self._state.most)
        return "404 Not Found", "{}"


def _length(head: bytes) -> int:
    lowered = head.lower()
    at = lowered.find(_LENGTH)
    return int(lowered[at + len(_LENGTH) :].split(b"\r\n", 1)[0]) if at >= 0 else 0


def _response(status: str, body: str) -> bytes:
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


async def _serve(state: _State) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(state), "127.0.0.1", 0, backlog=4096)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--response", required=True)
    parser.add_argument("--latency", type=float, required=True)
    parser.add_argument("--per-minute", type=float)
    parser.add_argument("--burst", type=float, default=1.0)
    parser.add_argument("--jitter", type=float, default=0.0)
    asyncio.run(_serve(_State(parser.parse_args())))
