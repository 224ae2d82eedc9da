"""Requests as adapters build them, before the client adds the key."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRequest:
    """A request built by a provider's adapter; the client adds the key when it sends it."""

    method: str
    url: str
    body: Body
    headers: Mapping[str, str] = field(default_factory=dict)
    route: str = "images"
    """The adapter that reads the response; the spool stores it."""
