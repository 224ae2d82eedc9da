"""The lease of a batch in a bucket: one driver at a time, on any machine.

The lease is the object ``lock/BATCH.json``. A driver acquires it before it gives the first order,
and holds it until the end of the run::

    driver = Driver(take_over=spec.overrides.take_over)
    lease = acquire(store, "catalog", driver, notice=presenter.notice)
    with lease:
        lease.on_lost(lambda reason: loop.call_soon_threadsafe(drain, reason))
        ...
        lease.check()  # before each order; raises StoppedError once the lease is lost
        order = Order(epoch=lease.epoch, ...)

All of it blocks or runs in threads of its own; nothing here needs an event loop. The store must
honor conditional puts, which `check_stores` finds out before the money.

The object is created create-only and renewed by its tag every ten seconds. Another driver may take
it after it saw the same tag for 40 seconds; it adds one to the epoch. No driver compares wall
clocks of two machines. A holder counts its lease as lost when another driver has it, and also 30
seconds after the start of its last renewal that succeeded: less than any other driver waits.
`Lease.check` compares that time too, so a process that was stopped or a machine that slept gives no
order after it wakes. An order that had left before is recognized by its epoch.

The object stays when a lease is released, so that epochs only grow.
"""

from __future__ import annotations

import os
import shlex
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Self

from batchgen.cluster.lease_record import (
    FoundLease,
    LeaseRecord,
    lease_name,
    read_lease,
    swap_lease,
)
from batchgen.errors import BatchLockedError, SettingsError, StoppedError
from batchgen.storage.store import Store
from batchgen.system.process_owner import Here, Life, Owner, life_of
from batchgen.system.process_table import this_process

_MAX_TRIES: Final = 20
"""Of a put that another driver was faster than; each try reads the lease again."""
_TOKEN_BYTES: Final = 16
# Unlike the monotonic clock of Linux, these run while the machine sleeps.
_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTimes:
    """Seconds. ``hold_s`` must be less than ``lapse_s``."""

    renew_s: float = 10.0
    hold_s: float = 30.0
    """A holder without a renewal for this time counts its lease as lost."""
    lapse_s: float = 40.0
    """An unchanged lease may be taken after this time."""
    poll_s: float = 2.0
    """How often a waiting driver looks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """Who acquires a lease."""

    here: Here = field(default_factory=this_process)
    take_over: bool = False
    """Whether to take the lease of a holder that cannot be seen from here, even if it renews it.

    The first order waits until that holder, if it lives, counts the lease as lost. The lease says
    so meanwhile: if this driver ends early, the next one waits.
    """


def acquire(
    store: Store,
    batch: str,
    driver: Driver | None = None,
    *,
    notice: Callable[[str], None] | None = None,
    times: LeaseTimes | None = None,
) -> Lease:
    """Acquire the lease of a batch; it is renewed from now on.

    A lease that was released, and that of a dead process of this machine, is taken at once. Any
    other one is watched for 40 seconds, or taken over and then waited for as long; ``notice``
    receives one sentence about that. Raises BatchLockedError if its holder renews it or is seen
    alive, and SettingsError if the bucket fails.
    """
    acquisition = _Acquisition(store, batch, driver or Driver(), times or LeaseTimes())
    try:
        return acquisition.acquire(notice or _ignore)
    except OSError as exc:
        raise SettingsError(
            f"{store.url}/{lease_name(batch)}: the lease of the batch cannot be acquired:"
            f" {exc.strerror or exc}; nothing was sent"
        ) from exc


class _Acquisition:
    """One attempt to acquire a lease."""

    def __init__(self, store: Store, batch: str, driver: Driver, times: LeaseTimes) -> None:
        self._store = store
        self._batch = batch
        self._driver = driver
        self._times = times
        self._name = lease_name(batch)
        self._token = os.urandom(_TOKEN_BYTES).hex()

    def acquire(self, notice: Callable[[str], None]) -> Lease:
        for _ in range(_MAX_TRIES):
            found = read_lease(self._store, self._name)
            is_free = found is None or not found.record.waits
            if found is not None and found.record.is_held:
                is_free = self._wait_until_free(found, notice)
            lease = self._put_after(found, waits=not is_free)
            if lease is not None:
                if found is not None and not is_free:
                    self._outlast(lease, found.record.owner, notice)
                return lease
        raise BatchLockedError(
            f"{self._place}: other runs are acquiring {_title(self._batch)} too;"
            " nothing was changed"
        )

    @property
    def _place(self) -> str:
        return f"{self._store.url}/{self._name}"

    def _wait_until_free(self, found: FoundLease, notice: Callable[[str], None]) -> bool:
        """Return when the lease may be taken, and whether its holder gives no orders any more.

        Raises BatchLockedError if its holder lives.
        """
        holder = found.record.owner
        life = _life_seen_here(holder, self._driver.here)
        if life is Life.ALIVE:
            raise BatchLockedError(self._refusal(found, "which is alive"))
        if life is Life.DEAD or self._driver.take_over:
            return life is Life.DEAD and not found.record.waits
        lapse_s = self._times.lapse_s
        notice(
            f"{_title(self._batch)} was last run by {holder}, and that run has not ended;"
            f" waiting up to {lapse_s:.0f} s to see whether it is alive (lease {self._place})"
        )
        end = _now() + lapse_s
        while _now() < end:
            time.sleep(max(0.0, min(self._times.poll_s, end - _now())))
            seen = self._store.info(self._name)
            if seen is None or seen.e_tag != found.tag:
                after = read_lease(self._store, self._name)
                if after is None or not after.record.is_held:
                    return True
                raise BatchLockedError(self._refusal(after, "which renewed its lease just now"))
        return True

    def _outlast(self, lease: Lease, holder: Owner, notice: Callable[[str], None]) -> None:
        """Wait until a holder whose lease was taken counts it as lost, if it is only paused.

        As long as for a lease that lapses: what it ordered at its last moment has left by then.
        """
        lapse_s = self._times.lapse_s
        try:
            notice(
                f"{_title(self._batch)} is taken over from {holder}; waiting {lapse_s:.0f} s, after"
                " which that run sends nothing more, even if it is alive"
            )
            if lease.lost.wait(lapse_s):
                raise BatchLockedError(f"{lease.reason}; nothing was changed")
        except BaseException:
            lease.release()  # the next driver waits in its place
            raise
        lease.end_wait()

    def _refusal(self, found: FoundLease, how: str) -> str:
        owner = found.record.owner
        command = f" ({owner.command})" if owner.command else ""
        look = " ".join(["batchgen status", *map(shlex.quote, filter(None, [self._batch]))])
        return (
            f"{_title(self._batch)} is being run by {owner}{command}, {how} ({self._place});"
            f" nothing was changed. Look on that machine: {look}"
        )

    def _put_after(self, found: FoundLease | None, *, waits: bool) -> Lease | None:
        """Write our record in place of the one that was found; None if another was faster."""
        record = LeaseRecord(
            epoch=1 if found is None else found.record.epoch + 1,
            token=self._token,
            renewals=0,
            is_held=True,
            owner=self._driver.here.me,
            waits=waits,
        )
        began = _now()
        tag = swap_lease(self._store, self._name, record, None if found is None else found.tag)
        if tag is None:
            return None
        return Lease(
            store=self._store,
            batch=self._batch,
            acquired=FoundLease(record=record, tag=tag),
            times=self._times,
            began=began,
        )


class Lease:
    """A lease that this process has. Leave its context, or call `release`, at the end of a run."""

    def __init__(
        self, *, store: Store, batch: str, acquired: FoundLease, times: LeaseTimes, began: float
    ) -> None:
        self.batch = batch
        self.epoch: Final = acquired.record.epoch
        self.lost: Final = threading.Event()
        """Set when the lease is lost, and never cleared."""
        self.reason = ""
        """Why it is lost."""
        self._store = store
        self._times = times
        self._last = acquired
        self._held_until = began + times.hold_s
        self._waits = acquired.record.waits
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[str], None]] = []
        self._threads = [
            threading.Thread(target=work, name=f"lease-{work.__name__}", daemon=True)
            for work in (self._renew, self._watch)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    @property
    def is_held(self) -> bool:
        """Whether the lease is held at this moment."""
        if self._ended.is_set():
            return False
        if _now() >= self._held_until:
            self._lose(self._silence)
            return False
        return True

    def check(self) -> None:
        """Raise StoppedError unless the lease is held. Call it before each order."""
        if not self.is_held:
            raise StoppedError(self.reason or f"the lease of {_title(self.batch)} was released")

    def end_wait(self) -> None:
        """Note, with the next renewal, that no earlier holder can send any more."""
        self._waits = False

    def on_lost(self, callback: Callable[[str], None]) -> None:
        """Call back once with the reason when the lease is lost, on another thread or now."""
        with self._lock:
            if not self.lost.is_set():
                self._callbacks.append(callback)
                return
        callback(self.reason)

    def release(self) -> None:
        """Give up the lease: the next driver need not wait. A failure only makes it wait."""
        if self._ended.is_set():
            return
        self._ended.set()
        # A renewal in flight would change the tag; one that hangs is not waited for.
        self._threads[0].join(timeout=self._times.hold_s)
        if self.lost.is_set() or self._threads[0].is_alive():
            return
        record = replace(self._next_record(), is_held=False)
        with suppress(OSError):
            swap_lease(self._store, self._place, record, self._last.tag)

    @property
    def _place(self) -> str:
        return lease_name(self.batch)

    @property
    def _silence(self) -> str:
        return (
            f"lease: the lease of {_title(self.batch)} could not be renewed for"
            f" {self._times.hold_s:.0f} s ({self._store.url}); another machine may run it now"
        )

    def _renew(self) -> None:
        while not self._ended.wait(self._times.renew_s):
            try:
                self._renew_once()
            except OSError:
                continue  # `_watch` ends a lease that is not renewed in time
            except SettingsError as exc:
                self._lose(f"lease: {exc}")

    def _next_record(self) -> LeaseRecord:
        last = self._last.record
        return replace(last, renewals=last.renewals + 1, waits=self._waits)

    def _renew_once(self) -> None:
        began, record = _now(), self._next_record()
        tag = swap_lease(self._store, self._place, record, self._last.tag)
        if tag is not None:
            self._last = FoundLease(record=record, tag=tag)
            self._held_until = began + self._times.hold_s
            return
        found = read_lease(self._store, self._place)
        if found is not None and found.record.token == record.token:
            self._last = found  # the response to an earlier renewal was lost
            return
        who = "was deleted" if found is None else f"was taken by {found.record.owner}"
        self._lose(f"lease: the lease of {_title(self.batch)} {who} ({self._store.url})")

    def _watch(self) -> None:
        while self.is_held:
            self._ended.wait(max(0.001, self._held_until - _now()))

    def _lose(self, reason: str) -> None:
        with self._lock:
            if self.lost.is_set() or self._ended.is_set():
                return
            self.reason = reason
            self.lost.set()
            self._ended.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(reason)


def _title(batch: str) -> str:
    return batch or "the ledger"


def _life_seen_here(owner: Owner, here: Here) -> Life:
    """Return whether a process of this machine lives; unknown for one of another machine."""
    now = datetime.now(UTC)
    return life_of(owner, now, here=here, now=now)


def _now() -> float:
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


def _ignore(text: str) -> None:
    pass
