"""What the endpoint's parts hand to each other: terms, orders, and what to send."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from batchgen.endpoint.rules import PictureRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the endpoint is started with and keeps. Money in micros; `key` None takes any `sk-`."""

    price: int
    balance: int | None
    key: str | None
    block_word: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A valid request, its price, and what its caller said about itself.

    `number` counts POSTs from 1.
    """

    number: int
    request_id: str
    idempotency_key: str | None
    client_request_id: str | None
    wanted: PictureRequest
    micros: int


@dataclass(frozen=True, slots=True)
class Reply:
    """What to send."""

    status: int
    body: bytes
    media_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hangup:
    """End the connection without an answer, with a TCP reset or an ordinary close."""

    reset: bool


@dataclass(frozen=True, slots=True)
class EventStream:
    """Server-sent events, in the making: whoever sends them has to read them to their end.

    The work is done and billed by reading; a Hangup among the events is the last of them.
    """

    events: AsyncGenerator[bytes | Hangup, None]
