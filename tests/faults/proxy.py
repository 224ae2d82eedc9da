"""A TCP proxy on loopback that slows down, slices, limits, cuts, resets or swallows what passes."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

_PIECE_BYTES = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class Weather:
    """What a connection meets; bytes are counted from its beginning."""

    latency_s: float = 0.0
    """Before each piece of the response."""
    bytes_per_s: float = 0.0
    """Bytes per second of the response; 0 is unlimited."""
    slice_bytes: int = _PIECE_BYTES
    """The largest piece in which anything is passed on."""
    request_bytes: int | None = None
    """Bytes that pass to the server before the connection is cut."""
    response_bytes: int | None = None
    """Bytes that pass back before the connection is cut."""
    reset: bool = False
    """Cut by RST and not by FIN."""
    slow_close_s: float = 0.0
    """Delay until the client sees the end of the response."""
    silent: bool = False
    """Nothing passes, and neither side notices."""


CLEAR = Weather()


@dataclass
class Passed:
    """What went through one connection."""

    request_bytes: int = 0
    response_bytes: int = 0


class _CutError(Exception):
    pass


class Proxy:
    """A running proxy. ``forecast`` gives each connection, by its number, its weather."""

    def __init__(self, upstream_port: int) -> None:
        self.port = 0
        self.forecast: Callable[[int], Weather] = lambda _: CLEAR
        self.passed: list[Passed] = []
        self._upstream_port = upstream_port
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Its URL, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    def down(self) -> None:
        """Refuse new connections, and reset those that are open."""
        self._do(self._down)

    def up(self) -> None:
        """Take connections again, at the same port."""
        self._do(self._up)

    def _do(self, act: Callable[[], Coroutine[None, None, None]]) -> None:
        asyncio.run_coroutine_threadsafe(act(), self._loop).result(10)

    async def _up(self) -> None:
        if self._server is not None:
            return
        # Bound by hand, so that the port is the same one again.
        listener = socket.socket()
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            listener.setsockopt(socket.SOL_SOCKET, option, 1)
        # Else the kernel takes megabytes of what will never pass.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _PIECE_BYTES)
        listener.bind(("127.0.0.1", self.port))
        self._server = await asyncio.start_server(self._accept, sock=listener)
        self.port = listener.getsockname()[1]

    async def _down(self) -> None:
        if self._server is not None:
            for listener in self._server.sockets:
                self._loop.remove_reader(listener.fileno())
            await asyncio.sleep(0.01)  # what was accepted just now needs its server for a moment
            self._server.close()
            self._server = None
        for writer in tuple(self._open):
            _abort(writer)

    async def _stop(self) -> None:
        await self._down()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(OSError, asyncio.CancelledError):
                await self._carry(reader, writer)
        finally:
            self._tasks.discard(task)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        weather, passed = self.forecast(len(self.passed)), Passed()
        self.passed.append(passed)
        self._open.add(writer)
        reset = False
        try:
            if weather.silent:
                while await reader.read(_PIECE_BYTES):
                    pass
                return
            to_server = await asyncio.open_connection("127.0.0.1", self._upstream_port)
            try:
                await self._both_ways((reader, writer), to_server, weather, passed)
            except* (_CutError, OSError):
                reset = weather.reset
            finally:
                await _end(to_server[1], reset=False)
        finally:
            self._open.discard(writer)
            await _end(writer, reset=reset)

    async def _both_ways(
        self,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        weather: Weather,
        passed: Passed,
    ) -> None:
        for _, writer in (client, server):
            writer.transport.set_write_buffer_limits(0)  # what is drained is with the kernel

        async def request() -> None:
            while data := await client[0].read(weather.slice_bytes):
                data = _allowed(data, passed.request_bytes, weather.request_bytes)
                server[1].write(data)
                await server[1].drain()
                passed.request_bytes += len(data)
                if passed.request_bytes == weather.request_bytes:
                    raise _CutError
            raise _CutError

        async def response() -> None:
            while data := await server[0].read(weather.slice_bytes):
                pause_s = len(data) / weather.bytes_per_s if weather.bytes_per_s else 0.0
                await asyncio.sleep(weather.latency_s + pause_s)
                data = _allowed(data, passed.response_bytes, weather.response_bytes)
                client[1].write(data)
                await client[1].drain()
                passed.response_bytes += len(data)
                if passed.response_bytes == weather.response_bytes:
                    raise _CutError
            await asyncio.sleep(weather.slow_close_s)
            raise _CutError

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(request())
            tasks.create_task(response())


def _allowed(data: bytes, passed: int, most: int | None) -> bytes:
    return data if most is None else data[: most - passed]


def _abort(writer: asyncio.StreamWriter) -> None:
    sock: socket.socket = writer.get_extra_info("socket")
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _end(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    if reset:
        _abort(writer)
    else:
        writer.close()
    with suppress(OSError):
        await writer.wait_closed()


@contextmanager
def proxy(upstream_port: int) -> Iterator[Proxy]:
    """Run a proxy in a thread of its own, so that a test may wait for a process meanwhile."""
    made = Proxy(upstream_port)
    thread = threading.Thread(target=made._loop.run_forever, name="proxy")
    thread.start()
    try:
        made.up()
        yield made
    finally:
        made._do(made._stop)
        made._loop.call_soon_threadsafe(made._loop.stop)
        thread.join(10)
        made._loop.close()
