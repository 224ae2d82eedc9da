"""Values that describe one attempt: how far its request got, the response, and its class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum

from batchgen.images.base64_scanner import ScannedBody
from batchgen.job import Billed, ImageRef, Outcome


class Reach(IntEnum):
    """How far an HTTP exchange got, as observed on the connection."""

    NOTHING = 0
    """No byte of the request was sent."""
    PARTIAL = 1
    """Some of the request was sent, but not the whole body."""
    SENT = 2
    """The whole request was sent, and no response arrived."""
    HEADERS = 3
    """The status line and headers arrived, but not the whole body."""
    COMPLETE = 4
    """The whole response arrived."""


class Failure(IntEnum):
    """The reason why an exchange ended before it was complete."""

    NONE = 0
    CONNECT = 1
    TLS = 2
    DEADLINE = 3
    NETWORK = 4
    TOO_LARGE = 5
    INTERRUPTED = 6
    """batchgen gave up: a second signal, or a kill that the next run found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorBody:
    """The error object of a response. Fields are text, and empty if absent."""

    code: str = ""
    type: str = ""
    message: str = ""
    names: tuple[str, ...] = ()
    """More codes and reasons, such as those of an error nested in the error."""
    retry_after_s: float | None = None
    """The wait that a field of the error requests."""
    envelope: bool = True
    """Whether it has the form of errors that OpenAI-compatible endpoints send themselves. Any other
    5xx may come from a server that charged for the request."""

    def all_names(self) -> Iterator[str]:
        """Yield all codes, and then the type."""
        yield from filter(None, (self.code, *self.names, self.type))


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task that a provider accepted instead of returning an image."""

    id: str
    url: str = ""
    """Where the provider says that it can be polled; absolute, relative or empty."""
    is_named: bool = True
    """Whether the response itself describes a task. Otherwise only a 202 makes its id one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """The contents of a response body. Most fields are empty if the body is not JSON."""

    readable: bool = False
    """The body is JSON, or an image."""
    images: tuple[ImageRef, ...] = ()
    error: ErrorBody | None = None
    task: Task | None = None
    html: bool = False
    text: str = ""
    """One line for people of a body without a known error: its message, title or plain text."""
    usage: Mapping[str, object] | None = None
    """The tokens that the request used, if the provider reports them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One HTTP request and its result."""

    reach: Reach
    failure: Failure = Failure.NONE
    detail: str = ""
    status: int | None = None
    headers: Mapping[str, str] | None = None
    """Headers of the response, with lower-case names."""
    upload_bytes: int | None = None
    """Size of the request body."""
    scanned: ScannedBody | None = None
    """The complete response body without its inline images, if it was scanned on arrival."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """The class of an attempt, with its reason."""

    outcome: Outcome
    billed: Billed
    code: str = ""
    """Short and stable code for reports: ``rate_limit_exceeded``, ``deadline``, ``http_504``."""
    message: str = ""
    again: bool = False
    """The refusal is temporary: one more try is reasonable."""
    retry_after_s: float | None = None
    request_gap_s: float | None = None
    """Mean seconds between requests that the limit headers of a 429 allow."""
    status: int | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """The failures for which an endpoint is known to charge."""

    server_errors: Billed = Billed.NO
    """A 500 or 502 with the endpoint's own error object."""
    refusals: Billed = Billed.NO
    """A response that refuses the request, or its content."""
