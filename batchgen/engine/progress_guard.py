"""The progress guard of a run: stop paying if no images arrive.

`KindGuard` has the rules. `ProgressGuard` lets workers wait for them, and records in the ledger
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
    error_text,
    reason_key,
)
from batchgen.engine.throttle.limits import DispatchStopped
from batchgen.engine.throttle.throttle import Throttle
from batchgen.job import Billed, Job, Outcome, RunId
from batchgen.ledger.guard import delete_canary, record_canary, reopen_refused_jobs
from batchgen.ledger.writer import LedgerWriter
from batchgen.outcomes.classify import Classification
from batchgen.providers.profile import Profile

GUARD: Final = "guard"
"""Prefix of the stop reason of a run that the guard stopped."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of request: an image of one kind proves that the kind works."""

    provider: str
    model: str
    route: str


class _KindState:
    """The rules of one kind and the queue of its waiting workers, first come, first served."""

    def __init__(self, kind: Kind, rules: KindGuard) -> None:
        self.kind = kind
        self.rules = rules
        self.queue = anyio.Lock()
        self.changed = anyio.Event()
        self.waiting = 0


@dataclass(frozen=True, slots=True)
class _Stopped:
    """Which kind stopped the run, and why."""

    state: _KindState
    stop: GuardStop
    was_proven: bool
    """Whether the kind had returned an image before it stopped."""

    @property
    def is_refuted(self) -> bool:
        """Whether the first image of the kind was saved after all, by a download in progress."""
        return self.state.rules.proven and not self.was_proven


class ProgressGuard:
    """Admits paid requests while images arrive.

    ``proven`` has the model and route of each kind that returned an image in the last 24 hours.
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
        self._kinds: dict[str, _KindState] = {}
        self._stop: _Stopped | None = None
        throttle.on_stop(self._wake_all)

    async def admit(self, job: Job) -> None:
        """Wait until an attempt at a job may be paid for, and open it.

        One of the other methods must close the attempt. Raises DispatchStopped.
        """
        state = self._state_of(job)
        if not state.queue.locked() and self._try_to_start(state, job) is None:
            return
        state.waiting += 1
        try:
            async with state.queue:
                while (wait := self._try_to_start(state, job)) is not None:
                    state.changed = anyio.Event()
                    with anyio.move_on_after(wait.seconds):
                        await state.changed.wait()
        finally:
            state.waiting -= 1

    def may_leave(self, job: Job) -> bool:
        """Return whether a request that was admitted before a pause may still be sent."""
        return self._state_of(job).rules.may_leave(job.id)

    def withdrawn(self, job: Job) -> None:
        """Close an attempt that was never sent."""
        state = self._state_of(job)
        state.rules.withdrawn(job.id)
        state.changed.set()

    def concluded(self, job: Job, classification: Classification) -> None:
        """Record the class of an attempt; a paid one stays open until it is saved or given up."""
        state, now = self._state_of(job), self._clock()
        error = error_text(classification.code, classification.message, classification.status)
        if classification.outcome is Outcome.OK:
            return
        if classification.billed is not Billed.NO:
            state.rules.given_up(job.id, error, now)
        elif classification.code in NOT_SENT:
            state.rules.withdrawn(job.id)
        elif classification.outcome is Outcome.REFUSED and not classification.again:
            reason = reason_key(classification.code, classification.message)
            state.rules.refused(job.id, reason, error, now)
        else:
            state.rules.free(job.id, now)
        state.changed.set()

    def failing(self, job: Job, reason: str) -> None:
        """Record that a paid image is not on disk after the first try."""
        state = self._state_of(job)
        state.rules.failing(job.id, error_text("", reason), self._clock())
        state.changed.set()

    def given_up(self, job: Job, reason: str = "not saved") -> None:
        """Close a paid attempt that has no image in this run, unless it is closed already."""
        state = self._state_of(job)
        state.rules.given_up(job.id, error_text("", reason), self._clock())
        state.changed.set()

    async def saved(self, job: Job, ledger: LedgerWriter) -> None:
        """Record an image that is verified on disk. Raises LedgerWriteError."""
        state = self._state_of(job)
        first = state.rules.saved(job.id)
        state.changed.set()
        if first:
            kind = state.kind
            await ledger.run(record_canary, kind.provider, kind.model, kind.route)

    async def settle(self, run: RunId, ledger: LedgerWriter) -> None:
        """Record the consequences of a stop; do nothing if something else ended the run.

        The next run starts with canaries again unless the first image was saved after the stop, and
        refused jobs are pending again. Raises LedgerWriteError.
        """
        if self._stop is None:
            return
        kind, stop = self._stop.state.kind, self._stop.stop

        def is_shared(code: str, message: str) -> bool:
            return reason_key(code, message) == stop.reason

        if not self._stop.is_refuted:
            await ledger.run(delete_canary, kind.provider, kind.model, kind.route)
        if stop.cause is Cause.REFUSED:
            await ledger.run(reopen_refused_jobs, run, is_shared)

    @property
    def waited(self) -> bool:
        """Whether the guard stopped the run after it had waited for failing downloads."""
        rules, now = [state.rules for state in self._kinds.values()], self._clock()
        failing = any(rule.has_failing for rule in rules)
        return self._stop is not None and failing and not any(r.is_patient(now) for r in rules)

    def waiting_for(self) -> str | None:
        """Return what requests wait for, for display; None if none waits for the guard."""
        for state in self._kinds.values():
            reason = state.rules.waiting_for(self._clock()) if state.waiting else None
            if reason is not None:
                return reason
        return None

    def _state_of(self, job: Job) -> _KindState:
        state = self._kinds.get(job.model)
        if state is None:
            route = self._profile.route_of(job.model).value
            kind = Kind(self._profile.name, job.model, route)
            rules = KindGuard(self._limits, proven=(job.model, route) in self._proven)
            state = self._kinds[job.model] = _KindState(kind, rules)
        return state

    def _try_to_start(self, state: _KindState, job: Job) -> Held | None:
        if self._throttle.stopped:
            raise DispatchStopped(self._throttle.status().stopped or "")
        match state.rules.try_start(job.id, self._clock()):
            case Start():
                return None
            case Held() as wait:
                return wait
            case GuardStop() as stop:
                self._stop = _Stopped(state, stop, was_proven=state.rules.proven)
                self._throttle.stop(stop_text(state.kind, stop))
                raise DispatchStopped(stop_text(state.kind, stop))

    def _wake_all(self) -> None:
        for state in self._kinds.values():
            state.changed.set()


def stop_text(kind: Kind, stop: GuardStop) -> str:
    """Return the stop reason: number of requests, cause, last error and remedy."""
    probes = {0: "", 1: ", 1 probe included"}.get(stop.probes, f", {stop.probes} probes included")
    last = f"the last response: {stop.last_error}" if stop.last_error else "there was no response"
    of_kind = f"{kind.model} at {kind.provider}"
    match stop.cause:
        case Cause.CANARY:
            first = "request" if stop.requests == 1 else f"{stop.requests} paid requests"
            return (
                f"{GUARD}: the first {first} for {of_kind} returned no image; {last}; check the"
                " model, its options and the provider, then run again"
            )
        case Cause.USELESS:
            return (
                f"{GUARD}: {stop.requests} paid requests in a row for {of_kind} returned no"
                f" image{probes}; {last}; check the provider and the network, then run again"
            )
        case Cause.REFUSED:
            return (
                f"{GUARD}: {stop.requests} requests in a row for {of_kind} were refused for the"
                f" same reason{probes}; {last}; fix it, then run again: the jobs are pending"
            )
