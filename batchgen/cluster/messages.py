"""What a driver and its actors send each other. No message holds a secret.

The driver plans, keeps the ledger and gives orders; an actor carries them out. Before an actor
sends a paid request it puts the intent of the attempt, create-only; before it reports a response it
puts the response. See `batchgen.cluster.intents` for both objects.
"""

from __future__ import annotations

import hashlib
import hmac
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from batchgen.engine.verification import Embedded
from batchgen.http.network_settings import NetworkSettings
from batchgen.job import AttemptId, Job, Verify
from batchgen.ledger.records import DueImage, Provenance
from batchgen.outcomes.download_policy import FetchLater, FetchResult, FetchSpoiled
from batchgen.outcomes.exchange import Failure, Reach
from batchgen.version import __version__

STAGING_PREFIX: Final = "staging/"
MAX_REPORTED_BYTES: Final = 64 << 20
"""Largest response that travels in a report because the bucket refused it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorSettings:
    """What an actor needs to know before its first order."""

    root: str
    """The output directory: the URL of a bucket."""
    storage: tuple[str | None, str | None]
    """Endpoint and region of the bucket, where the manifest sets them."""
    key_variable: str | None
    """The environment variable of the actor that holds the API key; None if no key is secret."""
    open_key: str | None
    """A key that is not secret."""
    network: NetworkSettings
    epoch: int
    """Of the driver's lease. An actor refuses orders of an older one."""
    silent_s: float = 30.0
    """An actor that has not heard from its driver for this time finishes what it holds and ends."""
    failpoint: str | None = None
    """Where a test has this actor killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """What an actor needs for the orders of one run."""

    base_url: str
    deadline_s: float
    downloads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeting:
    """What an actor says of itself before the first order."""

    node: str
    batchgen: str
    python: str
    key_digest: str
    """Of the key and the nonce of the driver; empty without a key."""
    problem: str = ""
    """Why it can carry out no order; empty if it can."""

    def difference(self, ours: Greeting) -> str:
        """Return why orders of a driver like ``ours`` cannot be carried out; empty if they can."""
        if self.problem:
            return self.problem
        if self.batchgen != ours.batchgen:
            return f"batchgen {self.batchgen}; expected {ours.batchgen}, as on the driver"
        if self.python != ours.python:
            return f"Python {self.python}; expected {ours.python}, as on the driver"
        if self.key_digest != ours.key_digest:
            return "its API key differs from that of the driver; expected the same key"
        return ""


@dataclass(frozen=True, slots=True)
class Beat:
    """The reply of an actor to a sign of life of its driver."""

    clock_s: float
    """The time of the clock of its process."""
    is_leaving: bool = False
    """Whether its node is being drained: it should get no more requests."""


def greeting(node: str, key: str | None, nonce: bytes, problem: str = "") -> Greeting:
    """Return the greeting of this process."""
    digest = hmac.new(nonce, key.encode(), hashlib.sha256).hexdigest() if key else ""
    version = ".".join(platform.python_version_tuple()[:2])
    return Greeting(
        node=node, batchgen=__version__, python=version, key_digest=digest, problem=problem
    )


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference image inside a request, which the actor has from the bucket."""

    name: str
    """Its object."""
    sha256: str
    size: int
    base64: bool
    """Whether the request has it as base64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SendOrder:
    """A paid request to send once, as soon as the intents of its message are put."""

    attempt: AttemptId
    intent: bytes
    """Its line of the intents."""
    method: str
    url: str
    headers: Mapping[str, str]
    content_type: str
    pieces: tuple[bytes | Reference, ...]
    """The body."""
    route: str
    base_url: str
    """What a relative URL of an image refers to."""
    verify: Verify
    free: tuple[str, ...] = ()
    """Nothing is sent if an object has one of these names."""
    is_timed: bool = False
    """Whether it waits for a `DepartOrder` once it is connected."""


@dataclass(frozen=True, slots=True)
class DepartOrder:
    """When the request of a timed order leaves."""

    attempt: AttemptId
    at: float
    """On the clock of the actor."""
    gap_s: float = 0.0
    """The least time since the departure before it of the same actor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SendReport:
    """How far a request got, and where its response is."""

    refused: str = ""
    """Why the request was not sent; empty if it was."""
    is_taken: bool = False
    """Whether that is an object at the path of its image."""
    storage_failed: str = ""
    """What the bucket said when it refused the intent or the response."""
    reach: Reach = Reach.NOTHING
    failure: Failure = Failure.NONE
    detail: str = ""
    status: int | None = None
    headers: Mapping[str, str] | None = None
    upload_bytes: int | None = None
    text: bytes | None = None
    """The body without inline images, if it is short; the rest is in the bucket."""
    size: int = 0
    """Bytes of the body."""
    file: bytes | None = None
    """The spool file of a response that is not in the bucket."""
    late_s: float = 0.0
    """How long after the time of its `DepartOrder` the request left."""
    fetching: tuple[tuple[int, str | None], ...] = ()
    """Positions and URLs of images that the actor fetches now; an `ImageReport` follows for each.
    The URL of an image in its response is None."""


@dataclass(frozen=True, slots=True)
class Special:
    """What an actor needs for an image that gets metadata, or that is to replace another."""

    job: Job
    image: DueImage
    origin: Provenance | None
    """For the metadata of the image; None if it gets none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchMessage:
    """A paid image to fetch and verify. The actor has it until it puts it."""

    attempt: AttemptId
    position: int
    url: str | None
    """Absolute; None for an image in its response."""
    response: str
    """The object of its response."""
    verify: Verify
    is_video: bool
    special: Special | None = None
    """None for most images."""


@dataclass(frozen=True, slots=True)
class PutOrder:
    """A verified image to put into the bucket."""

    attempt: AttemptId
    position: int
    name: str
    create: bool
    """Whether no object may be there."""


@dataclass(frozen=True, slots=True)
class VerifiedImage:
    """A verified image that the actor has."""

    found: Embedded


@dataclass(frozen=True, slots=True)
class NotFetched:
    """The actor leaves the image to the driver."""

    reason: str


@dataclass(frozen=True, slots=True)
class PutReport:
    """Whether the object has the image."""

    problem: str = ""
    """Why not; empty if it has."""
    is_taken: bool = False
    """Whether another object is there."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The actor has a bug: what became of the order is unknown."""

    error: str


@dataclass(frozen=True, slots=True)
class ImageReport:
    """What became of an image that the actor fetched before the driver ordered it."""

    position: int
    report: FetchReport


Order: TypeAlias = SendOrder | DepartOrder | FetchMessage | PutOrder
FetchReport: TypeAlias = VerifiedImage | NotFetched | FetchResult | FetchLater | FetchSpoiled
Report: TypeAlias = SendReport | FetchReport | PutReport | Failed
AnyReport: TypeAlias = Report | ImageReport
URGENT: Final = (SendOrder, DepartOrder)
"""Orders that a request waits for: it keeps its slot until they are reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What a driver gives to an actor in one call."""

    epoch: int
    key_variable: str | None
    """The variable of the key to send."""
    intents: str
    """The object of the intents of all requests in it; empty without one."""
    numbered: tuple[tuple[int, Order], ...]
    """Each report has the number of its order."""


def staging_name(attempt: AttemptId, position: int, extension: str) -> str:
    """Return the name of an image that is to replace an object."""
    return f"{STAGING_PREFIX}{attempt}-{position}.{extension}"
