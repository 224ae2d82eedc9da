"""Requests as adapters build them, before the client adds the key."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Protocol


class Body(Protocol):
    """A request body that each attempt can stream from the start."""

    @property
    def headers(self) -> Mapping[str, str]:
        """``Content-Length`` and ``Content-Type``."""

    def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield the bytes, from the start. Raises OSError."""


@dataclass(frozen=True, slots=True)
class BytesBody:
    """A body held in memory."""

    data: bytes
    content_type: str = "application/json"

    @property
    def headers(self) -> Mapping[str, str]:
        """``Content-Length`` and ``Content-Type``."""
        return {"Content-Type": self.content_type, "Content-Length": str(len(self.data))}

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield the bytes in one piece."""
        yield self.data


@dataclass(frozen=True, slots=True)
class TimedBody:
    """A body whose first byte waits, after the connection is open; the head waits with it."""

    body: Body
    wait: Callable[[], Awaitable[object]]

    @property
    def headers(self) -> Mapping[str, str]:
        """``Content-Length`` and ``Content-Type``."""
        return self.body.headers

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Wait, then yield the bytes, from the start. Raises OSError."""
        await self.wait()
        async with aclosing(self.body.stream()) as pieces:
            async for piece in pieces:
                yield piece


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRequest:
    """A request built by a provider's adapter; the client adds the key when it sends it."""

    method: str
    url: str
    body: Body
    headers: Mapping[str, str] = field(default_factory=dict)
    route: str = "images"
    """The adapter that reads the response; the spool stores it."""
