"""When paid requests bring no image: canaries first, then a row of useless attempts. No clock here.

One `KindGuard` for each provider, model and route of a run. It bounds what a run can pay without
an image on disk, whatever the provider responds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

_MOST_ROOM: Final = 1024
"""Deliveries that may be under way on top of the requests in flight, however well they go."""
_QUOTED: Final = re.compile(r"\"[^\"]*\"|'[^']*'|`[^`]*`|\u201c[^\u201d]*\u201d")
_VARYING: Final = re.compile(r"\b(?=\w*\d)[\w-]+\b")
"""Words with a digit in them: ids, sizes, counts, times."""
_SAID_CHARS: Final = 200
NOT_SENT: Final = "reference_changed"
"""Code of an attempt that ended before its request left, which says nothing of the provider."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardLimits:
    """What a run may pay without an image on disk."""

    canary: int = 3
    """Attempts of a kind that may be charged before its first image is on disk."""
    max_useless: int = 5
    """Attempts in a row without an image after which requests pause."""
    max_probes: int = 3
    """Requests that a pause risks, one at a time, before the run stops."""
    concurrency: int = 8
    """Requests in flight, at least 1."""
    probe_every_s: float = 60.0
    patience_s: float = 60.0
    """How long a paid image whose download fails is waited for before it counts as not coming."""

    @property
    def ceiling(self) -> int:
        """Charged attempts without an image that a run never exceeds after a success."""
        return self.concurrency + self.max_useless

    @property
    def width(self) -> int:
        """Attempts without an image that may be open while a row is beginning.

        Leaves the probes their part of the ceiling.
        """
        return max(self.concurrency + self.max_useless - self.max_probes, self.max_useless)


class Cause(Enum):
    """Why the guard stops a run."""

    CANARY = "canary"
    USELESS = "useless"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardStop:
    """No request of this kind may leave any more."""

    cause: Cause
    requests: int
    """Attempts without an image that led to it."""
    probes: int
    said: str
    """Code and message of the last of them."""
    reason: str = ""
    """`reason_key` of the refusals; empty for other causes."""


@dataclass(frozen=True, slots=True)
class Start:
    """The request may leave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Not yet."""

    seconds: float | None
    """Until asking again can succeed; None: not before an attempt ends."""
    why: str


Permission: TypeAlias = Start | Held | GuardStop


def reason_key(code: str, message: str) -> str:
    """Return what refusals for one reason share: code and message without what varies."""
    plain = _VARYING.sub("#", _QUOTED.sub("#", message.casefold()))
    return f"{code}: {' '.join(plain.split())}"


def said_of(code: str, message: str, status: int | None = None) -> str:
    """Return a response as a reason says it: ``429 rate_limit_exceeded: Too many requests``."""
    head = code if status is None or code == f"http_{status}" else f"{status} {code}".strip()
    text = f"{head}: {message}" if message and head else message or head
    return text if len(text) <= _SAID_CHARS else text[: _SAID_CHARS - 1] + "…"


class KindGuard:
    """The rules for one kind of request. Jobs are known by any id; times are monotonic seconds.

    An attempt is open from `try_start` until one of `saved`, `given_up`, `refused` or `free`.
    """

    def __init__(self, limits: GuardLimits, *, proven: bool) -> None:
        self.proven = proven
        """Whether this kind has brought an image in this run or in the last 24 hours."""
        self._limits = limits
        self._open: set[Hashable] = set()
        """Jobs with an attempt in flight, or paid and not yet on disk."""
        self._failing: set[Hashable] = set()
        """Of those, the jobs whose download, unpacking or placing has failed at least once."""
        self._useless = 0
        """Charged attempts that were given up since the last image but the first."""
        self._row: set[Hashable] = set()
        """Jobs whose attempts were charged and brought nothing since the last image."""
        self._refused: set[Hashable] = set()
        """Jobs refused for one reason since the last image."""
        self._refusals = 0
        """How many refusals for that reason came since the last image but the first."""
        self._reason = ""
        self._said = ""
        self._failed_at = -math.inf
        self._probe_at: float | None = None
        """When the next probe may leave; None while nothing is paused."""
        self._probe: Hashable | None = None
        self._failed_probes = 0
        self._room = self._first_room = limits.width - limits.concurrency
        self._crowded = False

    def try_start(self, job: Hashable, now: float) -> Permission:
        """Open an attempt of a job, or say how long to wait or why never."""
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
        """Whether an attempt that was opened before a pause may still be sent."""
        return self._probe_at is None or self._probe == job

    def withdrawn(self, job: Hashable) -> None:
        """Close an attempt that was never sent."""
        self._close(job)
        if job == self._probe:
            self._probe = None

    def free(self, job: Hashable, now: float) -> None:
        """Close an attempt that cost nothing and says nothing: throttled, unreachable, blocked."""
        self._close(job)
        if job == self._probe:
            self._next_probe(now)

    def refused(self, job: Hashable, reason: str, said: str, now: float) -> None:
        """Close an attempt that was refused for a reason, as `reason_key` gives it."""
        if job not in self._open:
            return
        self._close(job)
        if reason != self._reason:
            self._reason = reason
            self._refused.clear()
            self._refusals = 0
        self._refused.add(job)
        self._refusals += 1
        self._note(job, said, now)

    def failing(self, job: Hashable, said: str, now: float) -> None:
        """Note that a paid image could not be brought to disk at the first try."""
        if job not in self._open or job in self._failing:
            return
        self._failing.add(job)
        self._row.add(job)
        self._failed_at = now
        self._note(job, said, now)

    def given_up(self, job: Hashable, said: str, now: float) -> None:
        """Close an attempt that was charged, or possibly charged, and brings no image."""
        if job not in self._open:
            return
        if job not in self._failing:
            self._row.add(job)
            self._note(job, said, now)
        self._close(job)
        self._useless += 1
        self._pause_if_due(now)

    def saved(self, job: Hashable) -> bool:
        """Close an attempt whose image is verified on disk; True for the first of this kind."""
        first = not self.proven
        self.proven = True
        self._close(job)
        self._row.clear()
        self._refused.clear()
        self._failed_probes = 0
        if not first:  # canaries that were lost beside the first image count on
            self._useless = self._refusals = 0
            self._reason = ""
        self._probe = self._probe_at = None
        if self._crowded:
            # Images do arrive, and more could be on their way; this doubles the room each round.
            self._room = min(_MOST_ROOM, self._room + 1)
            self._crowded = False
        return first

    def waiting_for(self, now: float) -> str | None:
        """What requests of this kind wait for; None where they may leave."""
        held = self._held(now, look=True)
        return None if held is None else held.why

    def _held(self, now: float, *, look: bool = False) -> Held | None:
        limits, taken = self._limits, len(self._open) + self._useless
        begun = self._row or self._refused
        if not self.proven:
            if taken < limits.canary and len(self._refused) < limits.max_useless:
                return None
            return self._patience(now, f"the first image; {self._open_text()}")
        if self._probe_at is not None:
            return self._pause(now)
        width = limits.width if begun else limits.concurrency + self._room
        if taken + self._refusals < width or not self._open:
            return None
        self._crowded = self._crowded or not look
        return self._patience(now, f"images on their way to disk; {self._open_text()}")

    def _pause(self, now: float) -> Held | None:
        assert self._probe_at is not None
        why = f"{self._count()} requests in a row brought no image ({self._said})"
        if self._probe is not None:
            return Held(seconds=None, why=f"a probe under way; {why}")
        spent = len(self._open) + self._useless >= self._limits.ceiling
        if spent or self._failed_probes >= self._limits.max_probes:
            return self._patience(now, f"images of paid requests; {why}")
        left = self._probe_at - now
        if left <= 0:
            return None
        return Held(seconds=left, why=f"a probe in {math.ceil(left)} s; {why}")

    def _open_text(self) -> str:
        text = "1 request is" if len(self._open) == 1 else f"{len(self._open)} requests are"
        return f"{text} in flight or paid"

    def _patience(self, now: float, why: str) -> Held:
        """Wait for open attempts: for ever, or as long as failing ones are given."""
        hopeful = len(self._open) > len(self._failing)
        return Held(seconds=None if hopeful else max(0.0, self._patient_until - now), why=why)

    @property
    def has_failing(self) -> bool:
        """Whether an image is paid for and its download, unpacking or placing has failed."""
        return bool(self._failing)

    def is_patient(self, now: float) -> bool:
        """Whether a failing image may still count as coming."""
        return now < self._patient_until

    @property
    def _patient_until(self) -> float:
        return self._failed_at + self._limits.patience_s if self._failing else -math.inf

    def _stop(self, now: float) -> GuardStop | None:
        """Why no request may leave any more, once no open attempt is likely to bring an image."""
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
            said=self._said,
            reason=self._reason if is_refused else "",
        )

    def _count(self) -> int:
        return max(len(self._failing) + self._useless, len(self._refused))

    def _close(self, job: Hashable) -> None:
        self._open.discard(job)
        self._failing.discard(job)

    def _note(self, job: Hashable, said: str, now: float) -> None:
        """An attempt brought nothing: remember what was said, and count it where it is a probe."""
        self._said = said
        self._room = self._first_room
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
        long = max(len(self._row), len(self._refused)) >= self._limits.max_useless
        # A job may be bought twice: then there are fewer jobs than attempts, and no room is left.
        spent = not self._open and self._useless + self._refusals >= self._limits.width
        if long or spent:
            self._probe = None
            self._probe_at = now + self._limits.probe_every_s
            self._failed_probes = 0
