"""The progress guard of a run: no money flows without images.

`KindGuard` holds the rules; `ProgressGuard` lets workers wait for them, and writes to the ledger
what the next run has to know.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import anyio

from batchgen.engine.guard_rules import (
    NOT_SENT,
    Cause,
    GuardLimits,
    GuardStop,
    Held,
    KindGuard,
    Start,
    reason_key,
    said_of,
)
from batchgen.engine.throttle.limits import DispatchStopped
from batchgen.engine.throttle.throttle import Throttle
from batchgen.job import Billed, Job, Outcome, RunId
from batchgen.ledger.guard import forget_canary, keep_canary, reopen_refused
from batchgen.ledger.ledger import utc_now
from batchgen.ledger.writer import LedgerWriter
from batchgen.outcomes.classify import Classification
from batchgen.providers.profile import Profile

GUARD: Final = "guard"
"""How the reason of a run begins that the guard stopped."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What one working image proves something about."""

    provider: str
    model: str
    route: str


class _Kind:
    """The rules of one kind, and those who wait for them, first come, first served."""

    def __init__(self, kind: Kind, rules: KindGuard) -> None:
        self.kind = kind
        self.rules = rules
        self.turn = anyio.Lock()
        self.changed = anyio.Event()
        self.waiting = 0


class ProgressGuard:
    """Lets paid requests leave while images arrive.

    ``proven`` holds model and route of what brought an image in the last 24 hours.
    """

    def __init__(
        self,
        limits: GuardLimits,
        throttle: Throttle,
        profile: Profile,
        *,
        proven: set[tuple[str, str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._throttle = throttle
        self._profile = profile
        self._proven = proven
        self._clock = clock
        self._kinds: dict[str, _Kind] = {}
        self._stop: tuple[Kind, GuardStop] | None = None
        throttle.when_stopped(self._wake_all)

    async def admit(self, job: Job) -> None:
        """Wait until an attempt at a job may be paid for.

        One of the methods below must close it. Raises DispatchStopped.
        """
        held = self._of(job)
        if not held.turn.locked() and self._try(held, job) is None:
            return
        held.waiting += 1
        try:
            async with held.turn:
                while (wait := self._try(held, job)) is not None:
                    held.changed = anyio.Event()
                    with anyio.move_on_after(wait.seconds):
                        await held.changed.wait()
        finally:
            held.waiting -= 1

    def may_leave(self, job: Job) -> bool:
        """Whether a request that was admitted before a pause may still be sent."""
        return self._of(job).rules.may_leave(job.id)

    def withdrawn(self, job: Job) -> None:
        """Close an attempt that was never sent."""
        held = self._of(job)
        held.rules.withdrawn(job.id)
        held.changed.set()

    def concluded(self, job: Job, classification: Classification) -> None:
        """Take note of a response; what was paid for stays open until it is on disk or given up."""
        held, now = self._of(job), self._clock()
        said = said_of(classification.code, classification.message, classification.status)
        if classification.outcome is Outcome.OK:
            return
        if classification.billed is not Billed.NO:
            held.rules.given_up(job.id, said, now)
        elif classification.code == NOT_SENT:
            held.rules.withdrawn(job.id)
        elif classification.outcome is Outcome.REFUSED and not classification.again:
            reason = reason_key(classification.code, classification.message)
            held.rules.refused(job.id, reason, said, now)
        else:
            held.rules.free(job.id, now)
        held.changed.set()

    def failing(self, job: Job, reason: str) -> None:
        """Take note that a paid image is not on disk after the first try."""
        held = self._of(job)
        held.rules.failing(job.id, said_of("", reason), self._clock())
        held.changed.set()

    def given_up(self, job: Job, reason: str = "not saved") -> None:
        """Close a paid attempt that brings no image in this run; nothing where it is closed."""
        held = self._of(job)
        held.rules.given_up(job.id, said_of("", reason), self._clock())
        held.changed.set()

    async def saved(self, job: Job, ledger: LedgerWriter) -> None:
        """Take note of an image that is verified on disk. Raises LedgerWriteError."""
        held = self._of(job)
        first = held.rules.saved(job.id)
        held.changed.set()
        if first:
            kind = held.kind
            await ledger(
                lambda ledger: keep_canary(
                    ledger.conn, kind.provider, kind.model, kind.route, utc_now()
                )
            )

    async def settle(self, run: RunId, ledger: LedgerWriter) -> None:
        """Write what a stop means: canaries first in the next run, and refused jobs pending again.

        Nothing where another reason ended the run. Raises LedgerWriteError.
        """
        if self._stop is None:
            return
        kind, stop = self._stop

        def is_shared(code: str, message: str) -> bool:
            return reason_key(code, message) == stop.reason

        await ledger(
            lambda ledger: forget_canary(ledger.conn, kind.provider, kind.model, kind.route)
        )
        if stop.cause is Cause.REFUSED:
            await ledger(lambda ledger: reopen_refused(ledger.conn, run, is_shared, utc_now()))

    @property
    def waited(self) -> bool:
        """Whether the guard stopped the run after it had waited for downloads that fail."""
        rules, now = [held.rules for held in self._kinds.values()], self._clock()
        failing = any(rule.has_failing for rule in rules)
        return self._stop is not None and failing and not any(r.is_patient(now) for r in rules)

    def waiting_for(self) -> str | None:
        """What requests wait for, for a person; None where none has to wait for the guard."""
        for held in self._kinds.values():
            why = held.rules.waiting_for(self._clock()) if held.waiting else None
            if why is not None:
                return why
        return None

    def _of(self, job: Job) -> _Kind:
        held = self._kinds.get(job.model)
        if held is None:
            route = self._profile.route_of(job.model).value
            kind = Kind(self._profile.name, job.model, route)
            rules = KindGuard(self._limits, proven=(job.model, route) in self._proven)
            held = self._kinds[job.model] = _Kind(kind, rules)
        return held

    def _try(self, held: _Kind, job: Job) -> Held | None:
        if self._throttle.stopped:
            raise DispatchStopped(self._throttle.status().stopped or "")
        match held.rules.try_start(job.id, self._clock()):
            case Start():
                return None
            case Held() as wait:
                return wait
            case GuardStop() as stop:
                self._stop = (held.kind, stop)
                self._throttle.stop(stop_text(held.kind, stop))
                raise DispatchStopped(stop_text(held.kind, stop))

    def _wake_all(self) -> None:
        for held in self._kinds.values():
            held.changed.set()


def stop_text(kind: Kind, stop: GuardStop) -> str:
    """Return one sentence: how many requests, what happened, what came last, and what to do."""
    probes = {0: "", 1: ", 1 probe included"}.get(stop.probes, f", {stop.probes} probes included")
    last = f"the last response: {stop.said}" if stop.said else "there was no response"
    of_kind = f"{kind.model} at {kind.provider}"
    match stop.cause:
        case Cause.CANARY:
            first = "request" if stop.requests == 1 else f"{stop.requests} paid requests"
            return (
                f"{GUARD}: the first {first} for {of_kind} brought no image; {last}; check the"
                " model, its options and the provider, then run again"
            )
        case Cause.USELESS:
            return (
                f"{GUARD}: {stop.requests} paid requests in a row for {of_kind} brought no"
                f" image{probes}; {last}; check the provider and the network, then run again"
            )
        case Cause.REFUSED:
            return (
                f"{GUARD}: {stop.requests} requests in a row for {of_kind} were refused for one"
                f" reason{probes}; {last}; remove the reason, then run again: the jobs are pending"
            )
