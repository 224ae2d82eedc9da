"""Jobs, their states, and the outcomes of their attempts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, NewType

from batchgen.money import Micros

JobId = NewType("JobId", int)
BatchId = NewType("BatchId", int)
RunId = NewType("RunId", int)
AttemptId = NewType("AttemptId", str)

OptionValue = str | int | float | bool

PATH_REASON: Final = "path_taken"
"""Start of the reason of a job that failed because a foreign file is at its path."""
REFERENCE_REASON: Final = "reference"
"""Start of the reason of a job that failed before anything was sent, because a reference image
given by URL was not available. It is retried once the image is available.
"""

ROW_REASON: Final = "row"
"""Start of the reason of a job that failed before anything was sent, because of its row. The
next run tries it again.
"""


EXT_PLACEHOLDER: Final = "{ext}"
"""Placeholder in a planned path for the extension, which only the received image decides."""


class JobState(StrEnum):
    """The seven states of a job; README.md says what each means for money."""

    PENDING = "pending"
    """Not requested yet, or may be requested again."""
    SENDING = "sending"
    """A request may be in flight."""
    PAID = "paid"
    """The response is charged; its images are not all on disk."""
    DONE = "done"
    """Every image is verified under its final name."""
    FAILED = "failed"
    """Permanent error, or no tries left."""
    BLOCKED = "blocked"
    """Refused by the provider's safety system."""
    UNCERTAIN = "uncertain"
    """Possibly charged, the response lost; waits for a decision."""


class Billed(StrEnum):
    """Whether an attempt was charged, as far as that can be known."""

    YES = "yes"
    NO = "no"
    MAYBE = "maybe"


class Outcome(StrEnum):
    """The class of an attempt, which decides what follows; `outcomes` has the rules."""

    SENDING = "sending"
    """Not over yet, or cut off by a kill and not examined since."""
    OK = "ok"
    """A response with images."""
    SAFE = "safe"
    """The provider never had the whole request; a retry is free."""
    REFUSED = "refused"
    """A response that refuses this request, and is not charged."""
    BLOCKED = "blocked"
    """Refused by the provider's safety system."""
    THROTTLED = "throttled"
    """Too many requests, or an overloaded provider: all requests wait."""
    STOP = "stop"
    """Bad key, no money, wrong URL: every other request would fail too."""
    AMBIGUOUS = "ambiguous"
    """The request was sent and no reliable response came: possibly charged."""
    SPOILED = "spoiled"
    """A success without a usable image: charged."""


class Verify(StrEnum):
    """How an image is checked before it counts."""

    STRUCTURE = "structure"
    DECODE = "decode"


class Publish(StrEnum):
    """When an image gets its final name."""

    AT_ONCE = "at_once"
    ON_ACCEPT = "on_accept"
    """After a person accepted it in review; until then it is below ``.pending/``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions:
    """How the images of a job are checked and what is kept with them.

    An option is defined here, as a key of the manifest's ``output`` and as a column of the ledger.
    """

    verify: Verify = Verify.STRUCTURE
    keep_previous: int = 1
    """Maximum number of replaced images that are kept."""
    keep_partials: bool = False
    """Keep the unfinished images of a streamed response."""
    sidecar: bool = False
    """Write a JSON file next to each image."""
    metadata: bool = False
    """Embed prompt, model and cost in each image as XMP."""
    publish: Publish = Publish.AT_ONCE


@dataclass(frozen=True, slots=True, kw_only=True)
class JobKind(OutputOptions):
    """What jobs of one job template with the same options have in common."""

    provider: str
    model: str
    options: Mapping[str, OptionValue]
    """Request parameters under the API's own names."""
    root: str
    """The output directory, absolute or relative to the manifest's directory."""
    refresh: str = "changed"
    tags: tuple[str, ...] = ()
    of_rows: bool = False
    """Made from table rows, each of which may be at fault alone."""
    is_variant: bool = False
    """One of several images of one prompt: by ``count``, or by a repeated line."""


class PlannedJob(NamedTuple):
    """One request as the manifest describes it, before it is in a ledger.

    A tuple, because a plan may have a million of them.
    """

    kind: JobKind
    key: str
    """Unique in its batch, and stable."""
    fingerprint: str
    """Hash of everything that determines the image."""
    prompt: str
    path: str
    """Below the kind's ``root``, with ``{ext}`` for the extension, separated by ``/``."""
    source: str
    """Its place, for messages: ``catalog.yaml: jobs[3]`` or ``products.csv:14``."""
    images: tuple[str, ...] = ()
    """Reference images: absolute paths; a URL if its image is not available. A plan that is staged
    has the paths as the ledger keeps them."""
    mask: str | None = None
    refused: str | None = None
    """Why it cannot be sent: the URL of its reference image or its row is at fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(OutputOptions):
    """A job of the ledger, as a worker needs it."""

    id: JobId
    key: str
    state: JobState
    fingerprint: str
    model: str
    prompt: str
    options: Mapping[str, OptionValue]
    images: tuple[str, ...]
    mask: str | None
    root: str
    path: str
    price: Micros
    """Expected cost of one request."""
    tries: int = 0
    """Refusals that allowed another try, since a person last made it pending."""
    doubts: int = 0
    """Ambiguous or spoiled attempts since a person last made it pending."""
    cuts: int = 0
    """Uploads that were cut off, since a person last made it pending."""
    has_images: bool = True
    """Whether the ledger had images of it, in any state; True where that was not looked up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRef:
    """One image of a response: a URL, or a place in the spooled response."""

    index: int
    url: str | None = None
    """None if the image is in the response itself, or is still being made."""
    task: str | None = None
    """Where to poll for the URL of an image that is still being made, below the base URL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedImage:
    """A verified image under its final name."""

    path: str
    """Relative to the job's ``root``, separated by ``/``."""
    sha256: str
    bytes: int
    width: int
    height: int
    format: str
    warnings: tuple[str, ...] = ()
    metadata_refused: str = ""
    """Why metadata could not be embedded, so that a sidecar has it; empty in any other case."""


def canonical_json(value: object) -> str:
    """The one text of a JSON value: sorted keys, no spaces, no escapes beyond need."""
    return _CANONICAL.encode(value)


# `json.dumps` makes an encoder for each call, of which a plan has some for each job.
_CANONICAL: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
