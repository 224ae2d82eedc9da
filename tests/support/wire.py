"""Servers for tests that misbehave byte by byte, on real sockets of loopback."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import ssl
import struct
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Received:
    """A request as it came."""

    line: str
    headers: Mapping[str, str]
    """Lower-case names."""
    body: bytes


class Connection:
    """One accepted connection, in the hands of a test's script."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    async def head(self) -> tuple[str, dict[str, str]]:
        """Read the request line and the headers."""
        text = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = text.rstrip().split("\r\n")
        pairs = (item.partition(":") for item in fields)
        return line, {name.lower(): value.strip() for name, _, value in pairs}

    async def request(self) -> Received:
        """Read one whole request."""
        line, headers = await self.head()
        body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return Received(line, headers, body)

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)
        await self._writer.drain()

    async def gone(self) -> None:
        """Read and drop until the client has left."""
        while await self.reader.read(65536):
            pass

    def reset(self) -> None:
        """Break the connection off with RST."""
        sock: socket.socket = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


Script = Callable[[Connection], Awaitable[None]]


@dataclass
class Server:
    """A running server and what it has seen."""

    port: int
    scheme: str
    connections: int = 0
    requests: list[Received] = field(default_factory=list)
    seen: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the first request was read to its end."""

    @property
    def url(self) -> str:
        """Its URL, without a slash at the end."""
        return f"{self.scheme}://127.0.0.1:{self.port}"


@asynccontextmanager
async def serve(
    script: Callable[[Connection, Server], Awaitable[None]], context: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    """Run the script for each connection, which is closed with FIN after it."""
    tasks: set[asyncio.Task[None]] = set()
    server = Server(0, "https" if context else "http")

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        server.connections += 1
        closed = False
        try:
            # Cancelled is what is left over when the test is done.
            with suppress(ConnectionError, EOFError, ssl.SSLError, asyncio.CancelledError):
                await script(Connection(reader, writer), server)
                writer.close()
                await writer.wait_closed()
                closed = True
        finally:
            if not closed:
                writer.transport.abort()
            tasks.discard(task)

    listener = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def answering(*parts: bytes) -> Callable[[Connection, Server], Awaitable[None]]:
    """Read a request, send these bytes, close."""

    async def script(connection: Connection, server: Server) -> None:
        await receive(connection, server)
        for part in parts:
            await connection.send(part)

    return script


async def receive(connection: Connection, server: Server) -> Received:
    """Read a request and note it."""
    request = await connection.request()
    server.requests.append(request)
    server.seen.set()
    return request


def response(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    """Return a whole response; underscores in the names of headers become dashes."""
    fields = {"Content-Length": str(len(body))} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode("latin-1") + body


def free_port() -> int:
    """Return a free port on loopback."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def open_files() -> int:
    """How many file descriptors this process holds."""
    directory = Path("/dev/fd")
    if not directory.is_dir():
        pytest.skip("this platform does not list its file descriptors")
    return len(os.listdir(directory))  # noqa: PTH208  # the count is wanted, and no Path for each


@dataclass(frozen=True)
class Certificate:
    """A certificate that only these tests trust."""

    file: Path
    key: Path

    def server(self) -> ssl.SSLContext:
        """For the server that shows it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.file, self.key)
        return context

    def trusting(self) -> ssl.SSLContext:
        """For a client that knows it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.file)
        return context


def certificate(directory: Path, *names: str) -> Certificate:
    """Make a self-signed certificate for host names. Skips the test where openssl is missing."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("needs the openssl program to make a certificate")
    made = Certificate(directory / "certificate.pem", directory / "key.pem")
    command = [program, "req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=batchgen tests"]
    command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-addext", "subjectAltName=" + ",".join(names)]
    command += ["-keyout", str(made.key), "-out", str(made.file)]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    return made
