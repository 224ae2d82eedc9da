"""Vocabulary of the throttle and its callers: limits, signals, tickets and stop reasons."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final, TypeAlias

UNREACHABLE: Final = "unreachable"
"""Stop reason: no connection succeeded for `DispatchLimits.unreachable_s`."""
BREAKER: Final = "breaker"
"""Stop reason: the responses to the probes of the circuit breaker were lost as well."""
OUTAGE: Final = "outage"
"""Stop reason: for half an hour every probe returned a provider-side error."""
RETRY_AFTER: Final = "retry_after"
"""Stop reason: the provider requested a longer wait than `DispatchLimits.max_retry_after_s`."""
THROTTLED: Final = "throttled"
"""Stop reason: for `DispatchLimits.max_throttled_s` only 429 or 503, and no success."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchLimits:
    """Limits on how fast a run sends requests, and how long it bears failures."""

    concurrency: int = 8
    """Requests in flight, at least 1."""
    requests_per_minute: float | None = None
    images_per_minute: float | None = None
    burst: int = 1
    """Requests, and images, that the provider accepts at once on top of the even rate."""
    max_probes: int = 3
    """Probes that an open circuit breaker sends before it stops the run."""
    unreachable_s: float = 300.0
    max_retry_after_s: float = 3600.0
    """Longest requested wait that a run accepts; a longer one stops the run."""
    max_throttled_s: float = 1800.0
    """How long throttled responses may continue without a success before the run stops."""


class Signal(Enum):
    """Evidence about the provider from the end of a request."""

    OK = "ok"
    THROTTLED = "throttled"
    """Response: too many requests, or overloaded."""
    UNREACHABLE = "unreachable"
    """No connection: refused, unknown host."""
    ERRORED = "errored"
    """Response: a provider-side error, not caused by the request."""
    AMBIGUOUS = "ambiguous"
    """Sent, but without a trustworthy response."""
    NEUTRAL = "neutral"
    """Any other response, such as a refusal of this request."""
    CANCELLED = "cancelled"
    """Never sent."""


class WaitReason(StrEnum):
    """Why a request waits; the value starts the text of a status."""

    SLOT = "requests in flight"
    RATE = "rate limit"
    COOL_DOWN = "cool-down after"
    UNREACHABLE = "provider unreachable"
    BREAKER = "breaker"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """Permission for one request, to be returned with its signal."""

    id: int
    """Sequence number in the order of starts, from 0."""
    images: int
    probe: bool
    """Whether this is the single request that tests whether the provider has recovered."""
    send_at: float | None = None
    """Time to send, on the throttle's clock; None to send at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """The request must wait."""

    seconds: float | None
    """Time until trying again can succeed; None: not before a request in flight ends."""
    reason: WaitReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """No more requests in this run."""

    reason: str


Decision: TypeAlias = Ticket | Wait | Stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchStatus:
    """State of the throttle, for display."""

    in_flight: int
    width: int
    """Current limit of requests in flight; below the configured one after throttling."""
    waiting_for: str | None
    """Why no request starts, such as `rate limit: 12 s`; None if only slots are short."""
    stopped: str | None
    per_minute: float | None = None
    """Requests per minute as learned from 429s; None if a rate is declared or none was learned."""
    last_error: str = ""
    """Code and message of the last unsuccessful response; empty before the first."""
    too_long_s: float | None = None
    """The wait that the provider requested and that ended dispatch, in seconds."""


class DispatchStopped(Exception):
    """Raised when no request may start any more; `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"dispatch has stopped: {reason}")
        self.reason: Final = reason
