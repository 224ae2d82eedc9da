"""What the endpoint's parts hand to each other: terms, orders, and what to send."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from batchgen.simulator.billing import Purchase
from batchgen.simulator.faults import Behaviour, Fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the endpoint is started with and keeps. Money in micros; `key` None takes any `sk-`."""

    price: int
    balance: int | None
    key: str | None
    block_word: str


class Wanted(Protocol):
    """What every request says that costs money."""

    @property
    def model(self) -> str: ...
    @property
    def prompt(self) -> str: ...
    @property
    def n(self) -> int: ...


WantedT = TypeVar("WantedT", bound=Wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order(Generic[WantedT]):
    """A valid request, its price, and what its caller said about itself.

    `number` counts POSTs from 1. What is `billed_at_once` is billed before anything is made.
    """

    number: int
    request_id: str
    idempotency_key: str | None
    client_request_id: str | None
    wanted: WantedT
    micros: int
    billed_at_once: bool = False

    def purchase(self, fault: Fault | None) -> Purchase:
        """What the bill says of it."""
        return Purchase(
            request_id=self.request_id,
            idempotency_key=self.idempotency_key,
            client_request_id=self.client_request_id,
            prompt=self.wanted.prompt,
            model=self.wanted.model,
            n=self.wanted.n,
            fault=fault,
        )


Make = Callable[[Order[WantedT], Behaviour, Fault | None], Awaitable[bytes]]
"""Does the work of an order and writes the body of its response."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What to send."""

    status: int
    body: bytes
    media_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hangup:
    """End the connection without a response, with a TCP reset or an ordinary close."""

    reset: bool


@dataclass(frozen=True, slots=True)
class EventStream:
    """Server-sent events, in the making: whoever sends them has to read them to their end.

    The work is done and billed by reading; a Hangup among the events is the last of them.
    """

    events: AsyncGenerator[bytes | Hangup, None]


Sent = Reply | Hangup | EventStream


class Events(Protocol):
    """What a stream sends, made one by one."""

    def partials(self) -> list[Callable[[], bytes]]:
        """The makers of the events that come before the work is done, in order."""

    def completed(self) -> list[bytes]:
        """The events of the finished work."""


MakeEvents = Callable[[Order[WantedT], Behaviour, Fault | None], Events]
