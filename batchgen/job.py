"""What a job is, the states it passes through, and what one attempt at it came to."""

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
"""Begins the reason of a job that failed because a stranger's file stands in its place."""
REFERENCE_REASON: Final = "reference"
"""Begins the reason of a job that failed before anything was sent, for want of a reference image
that is given by address. It is asked for again by itself once the image is there."""

ROW_REASON: Final = "row"
"""Begins the reason of a job that failed before anything was sent, since its row is at fault. The
next run tries it again."""


EXT_PLACEHOLDER: Final = "{ext}"
"""Stands in a planned path for the extension, which only the answered image decides."""


class JobState(StrEnum):
    """The seven states of a job; what each means for money is in README.md."""

    PENDING = "pending"
    """Nobody asked yet, or it may be asked again."""
    SENDING = "sending"
    """A request may be on its way."""
    PAID = "paid"
    """Answered and billed; its images are not all on disk."""
    DONE = "done"
    """Every image is verified under its final name."""
    FAILED = "failed"
    """Hopeless, or its tries are used up."""
    BLOCKED = "blocked"
    """Refused by the provider's safety system."""
    UNCERTAIN = "uncertain"
    """Maybe billed, the response lost; held for a person."""


class Billed(StrEnum):
    """Whether an attempt cost money, as far as it can be known."""

    YES = "yes"
    NO = "no"
    MAYBE = "maybe"


class Outcome(StrEnum):
    """The class of what happened to one attempt (reliability sheet, section 2.4)."""

    SENDING = "sending"
    """Not over yet, or cut off by a kill and not looked at since."""
    OK = "ok"
    """Answered with images."""
    SAFE = "safe"
    """The provider never had the whole request; it is free to ask again."""
    REFUSED = "refused"
    """A response that refuses this request, and is not billed."""
    BLOCKED = "blocked"
    """Refused by the provider's safety system."""
    THROTTLED = "throttled"
    """Too many requests, or an overloaded gateway: everybody waits."""
    STOP = "stop"
    """Bad key, no money, wrong URL: no other request can fare better."""
    AMBIGUOUS = "ambiguous"
    """The request was handed over and no trustworthy answer came: maybe billed."""
    SPOILED = "spoiled"
    """A success that holds no usable image: billed."""


class Verify(StrEnum):
    """How an image is checked before it counts."""

    STRUCTURE = "structure"
    DECODE = "decode"


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
    """Made of a table's rows, of which each may be at fault alone."""
    is_variant: bool = False
    """One of several images that are wanted of one prompt: by ``count``, or by a repeated line."""


class PlannedJob(NamedTuple):
    """One request's worth of work as the manifest describes it, before any ledger knows it.

    A tuple, since a million are made.
    """

    kind: JobKind
    key: str
    """Unique in its batch and stable for ever."""
    fingerprint: str
    """Hash of all that determines the image."""
    prompt: str
    path: str
    """Below the kind's ``root``, with ``{ext}`` for the extension, separated by ``/``."""
    source: str
    """Where it stands, for messages: ``catalog.yaml: jobs[3]`` or ``products.csv:14``."""
    images: tuple[str, ...] = ()
    """Reference images: absolute paths; an address where its image is not there."""
    mask: str | None = None
    refused: str | None = None
    """Why nothing can be sent for it: its reference image's URL or its row is at fault."""


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
    """What one request for it is expected to cost."""
    tries: int
    """Answered refusals that allowed another try, since it was last made pending by a person."""
    doubts: int
    """Ambiguous or spoiled attempts since it was last made pending by a person."""
    cuts: int = 0
    """Uploads that were cut off, since it was last made pending by a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRef:
    """One image of a response: an address, or a place in the spooled response."""

    index: int
    url: str | None = None
    """None where the image stands in the response itself, or is still being made."""
    task: str | None = None
    """Where to ask for the address of an image that is still being made, below the base URL."""


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


def canonical_json(value: object) -> str:
    """The one text of a JSON value: sorted keys, no spaces, no escapes beyond need."""
    return _CANONICAL.encode(value)


# `json.dumps` makes an encoder for each call, of which a plan has some for each job.
_CANONICAL: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
