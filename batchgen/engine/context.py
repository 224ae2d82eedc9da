"""The services and counters that all parts of a run share."""

from __future__ import annotations

import os
import time
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from batchgen.engine.events import Noticed, Observer
from batchgen.engine.progress_guard import ProgressGuard
from batchgen.engine.stop_reasons import BUG
from batchgen.engine.throttle.limits import DispatchStatus
from batchgen.engine.throttle.throttle import Throttle
from batchgen.job import AttemptId, BatchId, Job, RunId
from batchgen.ledger.records import DueImage
from batchgen.ledger.writer import LedgerWriter
from batchgen.providers.profile import Profile
from batchgen.spool.redaction import Redactor
from batchgen.spool.spool import Spool
from batchgen.storage.stores import Stores
from batchgen.system.disk_space import DiskSpace

_MAX_INTERNAL_ERRORS: Final = 3


@dataclass(slots=True)
class RunTally:
    """What a run has counted so far."""

    jobs_done: int = 0
    jobs_at_fault: int = 0
    """Jobs that wait for a fix, such as a reference image that changed after planning."""
    has_image: bool = False
    """Whether any request of this run returned an image."""
    internal_errors: list[str] = field(default_factory=list)
    """Tracebacks of bugs."""
    noticed: set[str] = field(default_factory=set)
    """Topics of the notices that were shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """The services that all workers and deliveries of a run share."""

    batch: BatchId
    run: RunId
    ledger: LedgerWriter
    spool: Spool
    profile: Profile
    base_url: str
    throttle: Throttle
    guard: ProgressGuard
    disk_space: DiskSpace
    observe: Observer
    base: Path
    """The manifest's directory; output directories are relative to it."""
    overwrite: bool = False
    redactor: Redactor | None = None
    """Hides the API key in what a later run reads; None without one."""
    stores: Stores | None = None
    """Set where an output directory of the batch is, or was, in a bucket."""
    tally: RunTally = field(default_factory=RunTally)

    def dispatch_status(self) -> DispatchStatus:
        """Return the state of dispatch; what requests wait for includes the progress guard."""
        found = self.throttle.status()
        return replace(found, waiting_for=self.guard.waiting_for() or found.waiting_for)

    def notice(self, topic: str, message: str) -> None:
        """Show a message, once in a run for each topic."""
        if topic not in self.tally.noticed:
            self.tally.noticed.add(topic)
            self.observe(Noticed(message=message))

    def record_internal_error(self, exc: Exception) -> None:
        """Keep a bug for the end of the run; several of them stop it before they cost more."""
        errors = self.tally.internal_errors
        errors.append("".join(traceback.format_exception(exc, limit=-8)))
        if len(errors) >= _MAX_INTERNAL_ERRORS:
            self.throttle.stop(f"{BUG}: {exc!r}; please report it")


@dataclass(frozen=True, slots=True)
class PaidJob:
    """A job whose images are paid for and not on disk yet."""

    job: Job
    due: tuple[DueImage, ...]
    is_left: bool = False
    """Whether an earlier try, or an earlier run, may have placed an image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requeue:
    """A job that is pending again and may be sent again after ``wait_s`` seconds."""

    job: Job
    wait_s: float


def new_attempt_id() -> AttemptId:
    """Return a unique id that sorts by time, so that the ledger's indexes grow at their end."""
    return AttemptId(f"{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}")
