"""What the throttle and its callers say to each other: limits, signals, tickets and reasons."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final, TypeAlias

UNREACHABLE: Final = "unreachable"
"""Stop reason: nothing was reached for `Limits.unreachable_s`."""
BREAKER: Final = "breaker"
"""Stop reason: the breaker's probes stayed without a trustworthy answer."""
OUTAGE: Final = "outage"
"""Stop reason: the provider answered every probe of half an hour with an error of its own."""
RETRY_AFTER: Final = "retry_after"
"""Stop reason: the provider asked for a longer wait than `Limits.max_retry_after_s`."""
THROTTLED: Final = "throttled"
"""Stop reason: no request succeeded for `Limits.max_throttled_s`, and 429 or 503 came all along."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a run may ask of its provider."""

    concurrency: int = 8
    """Requests in flight, at least 1."""
    requests_per_minute: float | None = None
    images_per_minute: float | None = None
    burst: int = 1
    """What the provider takes at once on top of the even rate, in requests and in images alike."""
    max_probes: int = 3
    """Requests that an open breaker risks before it stops the run."""
    unreachable_s: float = 300.0
    max_retry_after_s: float = 3600.0
    """The longest wait asked by the provider that is sat out; a longer one stops the run."""
    max_throttled_s: float = 1800.0
    """How long throttled responses may go on without one success before the run stops."""


class Signal(Enum):
    """What the end of a request says about the provider."""

    OK = "ok"
    THROTTLED = "throttled"
    """Answered: too many requests, or overloaded."""
    UNREACHABLE = "unreachable"
    """Not connected: refused, no such host."""
    ERRORED = "errored"
    """Answered: an error of the provider's own, for no fault of the request."""
    AMBIGUOUS = "ambiguous"
    """Handed over, but without a trustworthy answer."""
    NEUTRAL = "neutral"
    """Answered in any other way, as by refusing this one request."""
    CANCELLED = "cancelled"
    """Never sent."""


class Hold(StrEnum):
    """What a start waits for; the value is the sentence's beginning in a status."""

    SLOT = "requests in flight"
    RATE = "rate limit"
    COOL_DOWN = "cool-down after"
    UNREACHABLE = "provider unreachable"
    BREAKER = "breaker"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """Permission for one request, to be handed back with what became of it."""

    id: int
    """Counts up from 0 in the order of starts."""
    images: int
    probe: bool
    """The only request let through to see whether the provider is back."""
    leaves_at: float | None = None
    """On the throttle's clock, where a rate is to be kept to the millisecond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Not yet."""

    seconds: float | None
    """Until asking again can succeed; None: not before a request in flight ends."""
    why: Hold


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """Never again in this run."""

    reason: str


Decision: TypeAlias = Ticket | Wait | Stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The throttle at one moment, for a person."""

    in_flight: int
    width: int
    """How many may be in flight now; less than asked for after the provider throttled."""
    waiting_for: str | None
    """Why nothing starts just now, as `rate limit: 12 s`; None where only slots may be short."""
    stopped: str | None
    said: str = ""
    """Code and message of the last response that was no success; empty before the first."""


class DispatchStopped(Exception):
    """No request may start any more; `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"dispatch has stopped: {reason}")
        self.reason: Final = reason
