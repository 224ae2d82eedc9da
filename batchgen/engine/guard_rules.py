"""Rules that limit how much a run pays without getting images. They take the time as an argument.

There is one `KindGuard` for each provider, model and route. At first it admits a few canary
requests. After the first image it pauses after several useless attempts in a row, sends probes, and
stops the run if those fail too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

_MAX_EXTRA: Final = 1024
"""Maximum number of deliveries in progress on top of the requests in flight."""
_QUOTED: Final = re.compile(r"\"[^\"]*\"|'[^']*'|`[^`]*`|\u201c[^\u201d]*\u201d")
_VARYING: Final = re.compile(r"\b(?=\w*\d)[\w-]+\b")
"""Words with a digit: ids, sizes, counts, times."""
_MAX_ERROR_CHARS: Final = 200
REFERENCE_CHANGED: Final = "reference_changed"
ORDER_LOST: Final = "order_lost"
NOT_SENT: Final = frozenset({REFERENCE_CHANGED, ORDER_LOST})
"""Codes of attempts that ended before anything was sent; they say nothing about the provider."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardLimits:
    """Limits on what a run pays without an image on disk."""

    canary: int = 3
    """Attempts of a kind that may be charged before its first image is on disk."""
    max_useless: int = 5
    """Consecutive attempts without an image after which requests pause."""
    max_probes: int = 3
    """Probes of a pause, one at a time, before the run stops."""
    concurrency: int = 8
    """Requests in flight, at least 1."""
    probe_every_s: float = 60.0
    patience_s: float = 60.0
    """How long to wait for a paid image whose download fails before it counts as lost."""

    @property
    def ceiling(self) -> int:
        """Maximum number of charged attempts without an image after a success."""
        return self.concurrency + self.max_useless

    @property
    def width(self) -> int:
        """Open attempts that are allowed after the first useless one.

        It leaves the probes their part of the ceiling.
        """
        return max(self.concurrency + self.max_useless - self.max_probes, self.max_useless)


class Cause(Enum):
    """Why the guard stops a run."""

    CANARY = "canary"
    USELESS = "useless"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardStop:
    """No request of this kind may be sent any more."""

    cause: Cause
    requests: int
    """Attempts without an image that led to the stop."""
    probes: int
    last_error: str
    """Code and message of the last of them."""
    reason: str = ""
    """`reason_key` of the refusals; empty for other causes."""


@dataclass(frozen=True, slots=True)
class Start:
    """The request may be sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The request must wait."""

    seconds: float | None
    """Time until trying again can succeed; None: not before an attempt ends."""
    reason: str


Permission: TypeAlias = Start | Held | GuardStop


def reason_key(code: str, message: str) -> str:
    """Return the code and message of a refusal without varying parts, to compare reasons."""
    plain = _VARYING.sub("#", _QUOTED.sub("#", message.casefold()))
    return f"{code}: {' '.join(plain.split())}"


def error_text(code: str, message: str, status: int | None = None) -> str:
    """Return an error on one line: ``429 rate_limit_exceeded: Too many requests``."""
    head = code if status is None or code == f"http_{status}" else f"{status} {code}".strip()
    text = f"{head}: {message}" if message and head else message or head
    return text if len(text) <= _MAX_ERROR_CHARS else text[: _MAX_ERROR_CHARS - 1] + "…"


class KindGuard:
    """The rules for one kind of request. Job ids are opaque; times are monotonic seconds.

    An attempt is open from `try_start` until one of `saved`, `given_up`, `refused` or `free`.
    """

    def __init__(self, limits: GuardLimits, *, proven: bool) -> None:
        self.proven = proven
        """Whether this kind returned an image in this run or in the last 24 hours."""
        self._limits = limits
        self._open: set[Hashable] = set()
        """Jobs with an attempt in flight, or with a paid image that is not on disk yet."""
        self._failing: set[Hashable] = set()
        """Open jobs whose download, unpacking or placing has failed at least once."""
        self._useless = 0
        """Charged attempts given up since the last image. The first image does not reset it."""
        self._fruitless: set[Hashable] = set()
        """Jobs that were charged without an image since the last image."""
        self._refused: set[Hashable] = set()
        """Jobs refused for the same reason since the last image."""
        self._refusals = 0
        """Refusals for that reason since the last image. The first image does not reset it."""
        self._reason = ""
        self._last_error = ""
        self._failed_at = -math.inf
        self._probe_at: float | None = None
        """When the next probe may be sent; None while not paused."""
        self._probe: Hashable | None = None
        self._failed_probes = 0
        self._extra = self._initial_extra = limits.width - limits.concurrency
        self._crowded = False

    def try_start(self, job: Hashable, now: float) -> Permission:
        """Open an attempt of a job, or return how long to wait or why to stop."""
        stop = self._stop(now)
        if stop is not None:
            return stop
        held = self._held(now)
        if held is not None:
            return held
        self._open.add(job)
        if self._probe_at is not None:
            self._probe = job
        return Start()

    def may_leave(self, job: Hashable) -> bool:
        """Return whether an attempt that was opened before a pause may still be sent."""
        return self._probe_at is None or self._probe == job

    def withdrawn(self, job: Hashable) -> None:
        """Close an attempt that was never sent."""
        self._close(job)
        if job == self._probe:
            self._probe = None

    def free(self, job: Hashable, now: float) -> None:
        """Close a free attempt that proves nothing: throttled, unreachable, blocked."""
        self._close(job)
        if job == self._probe:
            self._next_probe(now)

    def refused(self, job: Hashable, reason: str, error: str, now: float) -> None:
        """Close a refused attempt; ``reason`` is its `reason_key`."""
        if job not in self._open:
            return
        self._close(job)
        if reason != self._reason:
            self._reason = reason
            self._refused.clear()
            self._refusals = 0
        self._refused.add(job)
        self._refusals += 1
        self._note_failure(job, error, now)

    def failing(self, job: Hashable, error: str, now: float) -> None:
        """Record that the first try to bring a paid image to disk failed."""
        if job not in self._open or job in self._failing:
            return
        self._failing.add(job)
        self._fruitless.add(job)
        self._failed_at = now
        self._note_failure(job, error, now)

    def given_up(self, job: Hashable, error: str, now: float) -> None:
        """Close an attempt that was charged, or possibly charged, without an image."""
        if job not in self._open:
            return
        if job not in self._failing:
            self._fruitless.add(job)
            self._note_failure(job, error, now)
        self._close(job)
        self._useless += 1
        self._pause_if_due(now)

    def saved(self, job: Hashable) -> bool:
        """Close an attempt whose image is verified on disk; True for the first of this kind."""
        first = not self.proven
        self.proven = True
        self._close(job)
        self._fruitless.clear()
        self._refused.clear()
        self._failed_probes = 0
        if not first:  # canaries that failed before the first image still count
            self._useless = self._refusals = 0
            self._reason = ""
        self._probe = self._probe_at = None
        if self._crowded:
            # Images arrive, so allow more deliveries; this doubles the number each round.
            self._extra = min(_MAX_EXTRA, self._extra + 1)
            self._crowded = False
        return first

    def waiting_for(self, now: float) -> str | None:
        """Return what requests of this kind wait for; None if they may be sent."""
        held = self._held(now, peek=True)
        return None if held is None else held.reason

    def _held(self, now: float, *, peek: bool = False) -> Held | None:
        limits, taken = self._limits, len(self._open) + self._useless
        begun = self._fruitless or self._refused
        if not self.proven:
            if taken < limits.canary and len(self._refused) < limits.max_useless:
                return None
            return self._wait_for_open(now, f"the first image; {self._open_text()}")
        if self._probe_at is not None:
            return self._pause(now)
        width = limits.width if begun else limits.concurrency + self._extra
        if taken + self._refusals < width or not self._open:
            return None
        self._crowded = self._crowded or not peek
        return self._wait_for_open(now, f"images being delivered; {self._open_text()}")

    def _pause(self, now: float) -> Held | None:
        assert self._probe_at is not None
        reason = f"{self._count()} requests in a row returned no image ({self._last_error})"
        if self._probe is not None:
            return Held(seconds=None, reason=f"a probe in flight; {reason}")
        spent = len(self._open) + self._useless >= self._limits.ceiling
        if spent or self._failed_probes >= self._limits.max_probes:
            return self._wait_for_open(now, f"images of paid requests; {reason}")
        left = self._probe_at - now
        if left <= 0:
            return None
        return Held(seconds=left, reason=f"a probe in {math.ceil(left)} s; {reason}")

    def _open_text(self) -> str:
        text = "1 request is" if len(self._open) == 1 else f"{len(self._open)} requests are"
        return f"{text} in flight or paid"

    def _wait_for_open(self, now: float, reason: str) -> Held:
        """Wait for open attempts; if all of them fail, only for the time they are given."""
        may_arrive = len(self._open) > len(self._failing)
        return Held(
            seconds=None if may_arrive else max(0.0, self._patient_until - now), reason=reason
        )

    @property
    def has_failing(self) -> bool:
        """Whether a paid image exists whose download, unpacking or placing has failed."""
        return bool(self._failing)

    def is_patient(self, now: float) -> bool:
        """Return whether a failing image may still be expected."""
        return now < self._patient_until

    @property
    def _patient_until(self) -> float:
        return self._failed_at + self._limits.patience_s if self._failing else -math.inf

    def _stop(self, now: float) -> GuardStop | None:
        """Return why to stop, once no open attempt is likely to produce an image."""
        limits = self._limits
        if len(self._open) > len(self._failing) or self.is_patient(now):
            return None
        refused = len(self._refused) >= limits.max_useless
        taken = len(self._failing) + self._useless
        if not self.proven:
            if taken >= limits.canary:
                return self._stopped(Cause.CANARY)
            return self._stopped(Cause.REFUSED) if refused else None
        if self._probe_at is None:
            return None
        if self._failed_probes < limits.max_probes and taken < limits.ceiling:
            return None
        return self._stopped(Cause.REFUSED if refused else Cause.USELESS)

    def _stopped(self, cause: Cause) -> GuardStop:
        is_refused = cause is Cause.REFUSED
        return GuardStop(
            cause=cause,
            requests=len(self._refused) if is_refused else len(self._failing) + self._useless,
            probes=self._failed_probes,
            last_error=self._last_error,
            reason=self._reason if is_refused else "",
        )

    def _count(self) -> int:
        return max(len(self._failing) + self._useless, len(self._refused))

    def _close(self, job: Hashable) -> None:
        self._open.discard(job)
        self._failing.discard(job)

    def _note_failure(self, job: Hashable, error: str, now: float) -> None:
        """Record a failed attempt and its error; count it if it is a probe."""
        self._last_error = error
        self._extra = self._initial_extra
        if job == self._probe:
            self._failed_probes += 1
            self._next_probe(now)
        self._pause_if_due(now)

    def _next_probe(self, now: float) -> None:
        self._probe = None
        self._probe_at = now + self._limits.probe_every_s

    def _pause_if_due(self, now: float) -> None:
        if not self.proven or self._probe_at is not None:
            return
        is_long = max(len(self._fruitless), len(self._refused)) >= self._limits.max_useless
        # A job may be rebought: then the width is used up by fewer jobs than attempts.
        is_spent = not self._open and self._useless + self._refusals >= self._limits.width
        if is_long or is_spent:
            self._probe = None
            self._probe_at = now + self._limits.probe_every_s
            self._failed_probes = 0
