"""Events of a run. Observers receive them; their return value is not used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from batchgen.job import Billed, JobState, Outcome
from batchgen.money import Micros


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptStarted:
    """An attempt is recorded and its request is about to be sent."""

    key: str
    attempt: str
    price: Micros


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEnded:
    """The outcome of an attempt and the new state of its job are recorded."""

    key: str
    attempt: str
    outcome: Outcome
    billed: Billed
    price: Micros
    state: JobState
    code: str = ""
    message: str = ""
    request_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDone:
    """All images of a job are on disk."""

    key: str
    paths: tuple[str, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobHeld:
    """A job makes no further progress in this run."""

    key: str
    state: JobState
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadRetried:
    """A download failed and will be retried, at no cost."""

    key: str
    reason: str
    wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """An attempt that a killed run left open was settled."""

    key: str
    attempt: str
    outcome: Outcome
    state: JobState


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping:
    """Dispatch stops: no new request starts, those in flight finish."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Noticed:
    """Something that concerns many images, and is said once in a run."""

    message: str


RunEvent = (
    AttemptStarted
    | AttemptEnded
    | JobDone
    | JobHeld
    | DownloadRetried
    | Recovered
    | Stopping
    | Noticed
)
Observer = Callable[[RunEvent], None]


def silent(event: RunEvent) -> None:
    """Ignore an event."""
