"""Signals: the first drains, the second ends at once. Nothing here knows what a job is."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Final

import anyio

_SIGNALS: Final = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class Shutdown:
    """What was asked of the run from outside.

    ``begin(reason)`` is the first signal: no new request, those in flight finish within
    ``grace_s``. ``abort()`` is the second, or the end of the grace: everything is cancelled.
    With ``signals`` off, only the caller's own program says so.
    """

    def __init__(
        self, grace_s: float, on_drain: Callable[[str], None], *, signals: bool = True
    ) -> None:
        self.grace_s = grace_s
        self._signals = signals
        self.signal_number: int | None = None
        """The first signal that came, for the exit code."""
        self._on_drain = on_drain
        self._asked = anyio.Event()
        self._scope: anyio.CancelScope | None = None

    @property
    def asked(self) -> bool:
        """Whether the run was asked to end."""
        return self._asked.is_set()

    def guard(self, scope: anyio.CancelScope) -> None:
        """Name the scope that ``abort`` cancels."""
        self._scope = scope

    def begin(self, reason: str) -> None:
        """Drain: nothing new starts."""
        self._asked.set()
        self._on_drain(reason)

    def abort(self) -> None:
        """Cancel what is still in flight; it is written down as uncertain."""
        self._asked.set()
        if self._scope is not None:
            self._scope.cancel()

    async def pause(self, seconds: float) -> bool:
        """Sleep and give True, or False as soon as the run is asked to end."""
        with anyio.move_on_after(seconds):
            await self._asked.wait()
        return not self.asked

    async def watch(self) -> None:
        """Turn signals into ``begin`` and ``abort`` until cancelled.

        What the caller has us ignore stays ignored: ``nohup`` does so with SIGHUP.
        """
        if not self._signals:
            return
        heeded = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        with anyio.open_signal_receiver(*heeded) as signals:
            async with anyio.create_task_group() as tasks:
                async for number in signals:
                    if self.signal_number is None:
                        self.signal_number = int(number)
                        self.begin(f"signal {signal.Signals(number).name}")
                        tasks.start_soon(self._end_of_grace)
                    else:
                        self.abort()

    async def _end_of_grace(self) -> None:
        await anyio.sleep(self.grace_s)
        self.abort()
