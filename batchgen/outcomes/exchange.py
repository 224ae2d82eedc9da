"""What is known of one attempt: how far its request got, what came back, what that means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum

from batchgen.images.base64_scanner import ScannedBody
from batchgen.job import Billed, ImageRef, Outcome


class Reach(IntEnum):
    """How far an HTTP exchange got, as the connection itself saw it."""

    NOTHING = 0
    """No byte of the request was sent."""
    PARTIAL = 1
    """Some of the request was sent, but not the whole body."""
    SENT = 2
    """The whole request was handed over; no response."""
    HEADERS = 3
    """A status line and headers came; the body is incomplete."""
    COMPLETE = 4
    """The whole response came."""


class Failure(IntEnum):
    """Why an exchange ended before it was complete."""

    NONE = 0
    CONNECT = 1
    TLS = 2
    DEADLINE = 3
    NETWORK = 4
    TOO_LARGE = 5
    INTERRUPTED = 6
    """We gave up ourselves: a second signal, or a kill seen from the next start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorBody:
    """The error object of a response, each field as text and empty where absent."""

    code: str = ""
    type: str = ""
    message: str = ""
    names: tuple[str, ...] = ()
    """More codes and reasons, of an error within the error for example."""
    retry_after_s: float | None = None
    """The wait that a field of the error asks for."""
    envelope: bool = True
    """Whether it has the form of an OpenAI-compatible endpoint's own errors. Any other 5xx
    may come from a server that charged for the request."""

    def all_names(self) -> Iterator[str]:
        """Yield all codes, then the type."""
        yield from filter(None, (self.code, *self.names, self.type))


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What an adapter read from a body. All fields empty: it was no JSON at all."""

    readable: bool = False
    """The body is JSON."""
    images: tuple[ImageRef, ...] = ()
    error: ErrorBody | None = None
    task_id: str | None = None
    html: bool = False
    usage: Mapping[str, object] | None = None
    """What the request used up, where the provider bills by tokens and says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One HTTP request and what became of it."""

    reach: Reach
    failure: Failure = Failure.NONE
    detail: str = ""
    status: int | None = None
    headers: Mapping[str, str] | None = None
    """Lower-case names; only what was received."""
    upload_bytes: int | None = None
    """Size of the request's body."""
    scanned: ScannedBody | None = None
    """What there is to read of a whole body, where it was looked at while it arrived."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """The class of an attempt, and what it tells the run."""

    outcome: Outcome
    billed: Billed
    code: str = ""
    """Short and stable, for reports: ``rate_limit_exceeded``, ``deadline``, ``http_504``."""
    message: str = ""
    again: bool = False
    """A refusal of the moment: one more try is reasonable."""
    retry_after_s: float | None = None
    status: int | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """Which of an endpoint's failures may cost money, as far as it is known."""

    server_errors: Billed = Billed.NO
    """A 500 or 502 in the endpoint's own words."""
    refusals: Billed = Billed.NO
    """A response that refuses the request, for its content too."""
