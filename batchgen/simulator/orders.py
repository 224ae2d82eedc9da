"""Values passed between the parts of the endpoint: terms, orders, responses."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from batchgen.simulator.billing import Purchase
from batchgen.simulator.faults import Behavior, Fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Fixed settings. Money in micro-dollars; `key` None accepts any key that starts with `sk-`."""

    price: int
    balance: int | None
    key: str | None
    block_word: str


class Wanted(Protocol):
    """What every request that costs money has."""

    @property
    def model(self) -> str: ...
    @property
    def prompt(self) -> str: ...
    @property
    def n(self) -> int: ...


WantedT = TypeVar("WantedT", bound=Wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order(Generic[WantedT]):
    """A valid request, its price, and how its client identified it.

    `number` counts POSTs from 1. If `billed_at_once`, the charge precedes the work.
    """

    number: int
    request_id: str
    idempotency_key: str | None
    client_request_id: str | None
    wanted: WantedT
    micros: int
    billed_at_once: bool = False

    def purchase(self, fault: Fault | None) -> Purchase:
        """Return the purchase for the bill."""
        return Purchase(
            request_id=self.request_id,
            idempotency_key=self.idempotency_key,
            client_request_id=self.client_request_id,
            prompt=self.wanted.prompt,
            model=self.wanted.model,
            n=self.wanted.n,
            fault=fault,
        )


Make = Callable[[Order[WantedT], Behavior, Fault | None], Awaitable[bytes]]
"""Does the work of an order and returns the response body."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole response."""

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
    """Server-sent events, generated while they are read; the reader must exhaust them.

    Reading does and bills the work. A Hangup can only be the last event.
    """

    events: AsyncGenerator[bytes | Hangup, None]


Sent = Reply | Hangup | EventStream


class Events(Protocol):
    """The events of a stream, generated one by one."""

    def partials(self) -> list[Callable[[], bytes]]:
        """Return functions that make the events before the work is done, in order."""

    def completed(self) -> list[bytes]:
        """Return the events of the finished work."""


MakeEvents = Callable[[Order[WantedT], Behavior, Fault | None], Events]
