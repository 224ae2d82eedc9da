"""The two steps of a run that touch network and disk for an image: exchange, and fetch and place.

An executor decides nothing: it neither retries nor classifies, and it writes no outcome of an
attempt. The worker that gives an order has recorded the attempt before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from batchgen.engine.delivery_results import Fetched
from batchgen.http.request import ApiRequest
from batchgen.job import AttemptId, Job
from batchgen.ledger.records import DueImage
from batchgen.money import PriceTerms
from batchgen.outcomes.exchange import Exchange, Reach
from batchgen.spool.response_part import ResponsePart


class Wait(Protocol):
    """Waits for the time to send."""

    async def __call__(self, ahead_s: float = 0.0) -> float:
        """Return at that time, or ``ahead_s`` before it; return the seconds that are left."""
        ...


@dataclass(slots=True)
class Departure:
    """How far a request got, for a worker that is cancelled while it waits for the exchange."""

    reach: Reach = Reach.NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeOrder:
    """A paid request to send once. Its attempt is recorded."""

    attempt: AttemptId
    job: Job
    request: ApiRequest
    terms: PriceTerms
    """Of the price that its attempt reserves."""
    wait: Wait
    """Waits for the time to send; called after all preparation, before the first byte."""
    is_timed: bool = False
    """Whether that is a certain time, as a rate limit demands."""
    part: ResponsePart
    """Where the response is written on this machine; it may hold a small one in memory."""
    departure: Departure = field(default_factory=Departure)
    """Says that the request may be sent, until a cancelled executor knows better."""


@dataclass(frozen=True, slots=True)
class FetchOrder:
    """A paid image to bring to its output path."""

    job: Job
    image: DueImage


class NotSentError(Exception):
    """The request of an order was certainly not sent, and never will be."""


class Executor(Protocol):
    """Carries out the orders of a run."""

    async def exchange(self, order: ExchangeOrder) -> Exchange:
        """Send a request once, make its response durable, and return how far the exchange got.

        Raises NotSentError, and OSError if the response cannot be stored. Passes on cancellation.
        """
        ...

    async def fetch(self, order: FetchOrder) -> Fetched:
        """Fetch a paid image, verify it, move it to its output path and record it as saved.

        It may be repeated at no cost. Raises Conflict, OSError and LedgerWriteError.
        """
        ...
