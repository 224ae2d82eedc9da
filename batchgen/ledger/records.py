"""Values that the steps of a run read from the ledger."""

from __future__ import annotations

from dataclasses import dataclass

from batchgen.job import AttemptId, Job, RunId
from batchgen.money import Micros


@dataclass(frozen=True, slots=True)
class Reserved:
    """The attempt is recorded and its price is reserved; the request may be sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetReached:
    """The price does not fit into a budget; nothing was written."""

    max_cost: Micros
    used: Micros
    period: str = "run"
    """``run``, ``day`` or ``month``; days and months are in UTC."""
    price_known: bool = True
    """False if the price is unknown: a job of unknown price fits into no budget."""


@dataclass(frozen=True, slots=True)
class NotPending:
    """The job is not pending any more; nothing was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAttempt:
    """An attempt without a recorded end: its process was killed while the request was in flight."""

    id: AttemptId
    job: Job
    run_id: RunId
    spool: str | None
    """Identity of the spool of its run; None if the run recorded none."""
    fingerprint: str
    """Fingerprint of its request; the job may have changed since."""
    price: Micros


@dataclass(frozen=True, slots=True, kw_only=True)
class DueImage:
    """A paid image that is not on disk yet."""

    id: int
    attempt_id: AttemptId
    position: int
    """Index of the image in the response."""
    rank: int
    """Index among the images of the response that were recorded; 0 is the requested one."""
    url: str | None
    task: str | None
    """Task to poll for the URL while the provider still generates the image."""
    response: str | None
    """Name of the spooled response that holds the image if no URL leads to it."""
    expires_at: str | None
    root: str
    path: str | None
    """Path that was recorded before the image was renamed to it; None if it did not get that far,
    or if its temporary file proves where it is."""
    sha256: str | None
    answered_at: str
    """Time of the response."""
    tries: int
    """Failed downloads so far, in all runs."""
    trouble: str | None
    """Reason of the last failed download."""
    not_before: str | None
    """Time until which the image host asked to wait."""
    copy_of: str | None
    """Attempt whose saved image this one copies; None for an image of its own."""
    replaces: str | None
    """Size and format of the good image that this one replaces, such as ``1024x1024 png``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OldImage:
    """A saved image of a job from an earlier attempt."""

    id: int
    root: str
    path: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFinished:
    """A job whose last image is saved, and the images that were replaced."""

    attempt_id: AttemptId
    replaced: tuple[OldImage, ...]
    has_spool_file: bool
    """Whether its response may be in the spool; it is not if the ledger had it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """The batch, run, model and cost of the attempt that produced an image."""

    batch: str
    run: int
    provider: str
    model: str
    request_id: str | None
    cost: Micros
    made_at: str
    is_current: bool
    """Whether the job still plans the same image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTotals:
    """Sums of money of one run, in micros."""

    estimate: Micros
    max_cost: Micros | None
    max_waste: Micros
    reserved: Micros
    charged: Micros
    maybe: Micros
    wasted: Micros
