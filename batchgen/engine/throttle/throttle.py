"""Let the tasks of a run wait until their request may start.

`ThrottleCore` has the rules. Neither knows what a request is, nor whether it should be retried.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Final, TypeAlias

import anyio

from batchgen.engine.throttle.core import ThrottleCore
from batchgen.engine.throttle.limits import (
    DispatchStatus,
    DispatchStopped,
    Signal,
    Stopped,
    Ticket,
    Wait,
    WaitReason,
)
from batchgen.engine.throttle.pace import Pace

LEAD_S: Final = 0.05
"""Time between the grant and the sending of a rate-limited request, to record it and connect."""
_MAX_LEAD_S: Final = 1.0
_LEAD_MARGIN: Final = 1.25
"""The lead grows to this multiple of the longest preparation, and never shrinks."""
_MIN_SHOWN_WAIT_S: Final = 3.0
"""A shorter wait for the rate shared with other runs is normal and not shown."""
_TIMER_RESOLUTION_S: Final = 0.001
"""How late an event loop may wake a sleeping task."""


ReserveStart: TypeAlias = Callable[[int, Mapping[str, float], float], Awaitable[float]]
"""Takes a number of images, the gap of each unit, and the seconds until the earliest departure."""


class Throttle:
    """One throttle for all workers of a run, first come, first served.

    ``reserve_start`` reserves a start for a number of images among all runs that share the rate
    limits of a key, with the current gaps of `ThrottleCore.intervals`; it returns the time of the
    departure on this throttle's clock. It is called only while there is a limit. The lead is part
    of the reservation: runs with different leads would not depart in turn otherwise.
    """

    def __init__(
        self,
        core: ThrottleCore,
        clock: Callable[[], float] = time.monotonic,
        *,
        reserve_start: ReserveStart | None = None,
    ) -> None:
        self._core = core
        self._clock = clock
        self._reserve_start = reserve_start
        self._lead_s = LEAD_S
        self._sent_at = -math.inf
        self._sent: set[int] = set()
        """Ids of the tickets in flight whose time to send has come."""
        self._dispatch_stopped = anyio.Event()
        self._queue = anyio.Lock()
        self._changed: anyio.Event | None = None
        self._on_stop: Callable[[], None] | None = None
        self._reserved_start: float | None = None
        """The last start that `reserve_start` returned."""

    async def start(self, images: int = 1) -> Ticket:
        """Wait until a request for ``images`` images may start.

        The ticket must be returned through `finish`. Raises DispatchStopped, in every waiting task,
        as soon as the throttle stops.
        """
        ticket = await self._granted(images)
        gaps = self._core.intervals(self._clock())
        if self._reserve_start is None or not gaps:
            return ticket
        try:
            lead_s = self._lead_s
            self._reserved_start = start = await self._reserve_start(images, gaps, lead_s)
            with anyio.move_on_after(start - lead_s - self._clock()):
                await self._dispatch_stopped.wait()
                raise DispatchStopped(self._core.status(self._clock()).stopped or "")
        except BaseException:
            self.finish(ticket, Signal.CANCELLED)
            raise
        return replace(ticket, send_at=start)

    async def wait_to_send(self, ticket: Ticket, ahead_s: float = 0.0) -> float:
        """Wait for the time to send, after all preparation on disk and the connection.

        With ``ahead_s``, return that long before the time, for another process that sends then.
        Return the seconds that are left.

        Otherwise a slow disk write or handshake before one request and a fast one before the next
        would bring the two closer together than the provider allows. Does nothing if called again.
        A cancellation is delivered at the next await of the caller.
        """
        if ticket.send_at is None or ticket.id in self._sent:
            return 0.0
        self._sent.add(ticket.id)
        late_s = self._clock() + ahead_s - ticket.send_at
        self._lead_s = min(_MAX_LEAD_S, max(self._lead_s, (self._lead_s + late_s) * _LEAD_MARGIN))
        with anyio.CancelScope(shield=True):
            while (wait_s := self._send_at(ticket.send_at) - ahead_s - self._clock()) > 0:  # noqa: ASYNC110  # a clock has no event
                # Poll in the last millisecond: an event loop may wake that late.
                await anyio.sleep(max(0.0, wait_s - _TIMER_RESOLUTION_S))
        now = self._clock()
        # A late request gets all of its time too, so that the next one keeps its distance.
        self._sent_at = now if not ahead_s else max(now + ahead_s, self._send_at(ticket.send_at))
        return self._sent_at - now

    def _send_at(self, reserved: float) -> float:
        return max(reserved, self._sent_at + self._core.least_gap_s)

    async def _granted(self, images: int) -> Ticket:
        if not self._queue.locked():
            at_once = self._core.try_start(self._clock(), images)
            if isinstance(at_once, Ticket):
                return at_once
        async with self._queue:
            while True:
                # No await between a grant and the return: a cancelled task loses no ticket.
                match self._core.try_start(self._clock(), images):
                    case Ticket() as ticket:
                        return ticket
                    case Stopped(reason=reason):
                        raise DispatchStopped(reason)
                    case Wait(seconds=seconds):
                        self._changed = anyio.Event()
                        with anyio.move_on_after(seconds):
                            await self._changed.wait()

    def finish(
        self,
        ticket: Ticket,
        signal: Signal,
        retry_after_s: float | None = None,
        error: str = "",
    ) -> None:
        """Take a ticket back with the signal of its request; see `ThrottleCore.finish`."""
        self._sent.discard(ticket.id)
        self._core.finish(ticket, signal, self._clock(), retry_after_s, error)
        self._wake()
        if self._core.stopped:
            self._end()

    @property
    def pace(self) -> Pace:
        """The rule for the gap between requests, whose value all runs of a key share."""
        return self._core.pace

    @property
    def least_gap_s(self) -> float:
        """The least time between two departures; 0.0 if bursts are allowed."""
        return self._core.least_gap_s

    @property
    def stopped(self) -> bool:
        """Whether no request may start any more."""
        return self._core.stopped

    def stop(self, reason: str) -> None:
        """Let no request start any more; waiting tasks raise DispatchStopped."""
        self._core.stop(reason)
        self._wake()
        self._end()

    def on_stop(self, callback: Callable[[], None]) -> None:
        """Set a callback for when dispatch stops; it wakes tasks that wait elsewhere."""
        self._on_stop = callback

    def count_try(self, *, repeat: bool) -> None:
        """Count a job that is about to be sent, for the first time in this run or again."""
        self._core.count_try(repeat=repeat)

    def repeat_wait_s(self) -> float:
        """Return the seconds until one more job may be repeated; 0.0 except in an outage."""
        return self._core.repeat_wait_s(self._clock())

    def status(self) -> DispatchStatus:
        """Return the current state, for display."""
        now = self._clock()
        status = self._core.status(now)
        start = self._reserved_start
        if start is None or self._core.stopped or start - now <= _MIN_SHOWN_WAIT_S:
            return status
        wait = f"{WaitReason.RATE}, shared by all runs of this key: {math.ceil(start - now)} s"
        own = status.waiting_for
        is_longer = own is None or own.startswith(WaitReason.RATE)
        return replace(status, waiting_for=wait if is_longer else own)

    def _end(self) -> None:
        self._dispatch_stopped.set()
        if self._on_stop is not None:
            self._on_stop()

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
