"""What happens during a run, for whoever listens. A listener is told, never asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from batchgen.job import Billed, JobState, Outcome
from batchgen.money import Micros


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptStarted:
    """The attempt is on record and its request leaves."""

    key: str
    attempt: str
    price: Micros


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEnded:
    """The attempt's end is on record, and where its job goes."""

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
    """All images of the job are on disk."""

    key: str
    paths: tuple[str, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobHeld:
    """The job goes no further in this run."""

    key: str
    state: JobState
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadRetried:
    """A download failed and is tried again; that costs nothing."""

    key: str
    reason: str
    wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """An attempt that a killed run left open was looked at."""

    key: str
    attempt: str
    outcome: Outcome
    state: JobState


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping:
    """No new request starts any more; what is in flight finishes."""

    reason: str


RunEvent = (
    AttemptStarted | AttemptEnded | JobDone | JobHeld | DownloadRetried | Recovered | Stopping
)
Observer = Callable[[RunEvent], None]


def silent(event: RunEvent) -> None:
    """Listen to nothing."""
