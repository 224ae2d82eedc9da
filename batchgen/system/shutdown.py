"""Turn signals into shutdown: the first drains the run, the second cancels everything."""

from __future__ import annotations

import asyncio
import math
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import Final

import anyio

CTRL_C: Final = "Ctrl-C"
"""Reason of a run that SIGINT stopped; other signals have their own name."""
_REASONS: Final = {signal.SIGINT: CTRL_C}
_SIGNALS: Final = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    if hasattr(signal, name)
)


@contextmanager
def _receive(numbers: Sequence[signal.Signals]) -> Iterator[AsyncIterator[signal.Signals]]:
    """Yield an iterator of signals as they arrive; their default actions are off meanwhile.

    Raises ValueError outside of the main thread.
    """
    with ExitStack() as stack:
        try:
            signals = stack.enter_context(anyio.open_signal_receiver(*numbers))
        except NotImplementedError:  # event loops on Windows have no add_signal_handler
            signals = stack.enter_context(_receive_by_handler(numbers))
        yield signals


@contextmanager
def _receive_by_handler(
    numbers: Sequence[signal.Signals],
) -> Iterator[AsyncIterator[signal.Signals]]:
    loop = asyncio.get_running_loop()
    send, receive = anyio.create_memory_object_stream[signal.Signals](math.inf)

    def hand_over(number: int) -> None:
        with suppress(anyio.ClosedResourceError):  # the run ended at the same moment
            send.send_nowait(signal.Signals(number))

    def arrived(number: int, frame: FrameType | None) -> None:
        # Python runs this on the loop's thread while the loop may sleep, so wake the loop.
        loop.call_soon_threadsafe(hand_over, number)

    before = {number: signal.signal(number, arrived) for number in numbers}
    try:
        with send, receive:
            yield receive
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Shutdown:
    """The shutdown state of a run.

    ``begin(reason)`` is the first signal: no request starts, and those in flight have ``grace_s``
    seconds to finish. ``abort()`` is the second signal, or the end of the grace period: everything
    is cancelled. With ``signals`` off, only the embedding program calls them.
    """

    def __init__(
        self, grace_s: float, on_drain: Callable[[str], None], *, signals: bool = True
    ) -> None:
        self.grace_s = grace_s
        self._signals = signals
        self.signal_number: int | None = None
        """The first signal received, for the exit code."""
        self._on_drain = on_drain
        self._asked = anyio.Event()
        self._scope: anyio.CancelScope | None = None

    @property
    def asked(self) -> bool:
        """Whether the run was requested to end."""
        return self._asked.is_set()

    def guard(self, scope: anyio.CancelScope) -> None:
        """Set the scope that `abort` cancels."""
        self._scope = scope

    def begin(self, reason: str) -> None:
        """Drain: start no new requests."""
        self._asked.set()
        self._on_drain(reason)

    def abort(self) -> None:
        """Cancel the requests in flight; they are recorded as uncertain."""
        self._asked.set()
        if self._scope is not None:
            self._scope.cancel()

    async def pause(self, seconds: float) -> bool:
        """Sleep and return True; return False as soon as the run is requested to end."""
        with anyio.move_on_after(seconds):
            await self._asked.wait()
        return not self.asked

    async def watch(self) -> None:
        """Turn signals into ``begin`` and ``abort`` until cancelled.

        A signal that the parent process set to be ignored stays ignored, as SIGHUP under ``nohup``.
        """
        if not self._signals:
            return
        handled = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        with _receive(handled) as signals:
            async with anyio.create_task_group() as tasks:
                async for number in signals:
                    if self.signal_number is None:
                        self.signal_number = int(number)
                        self.begin(_REASONS.get(number, signal.Signals(number).name))
                        tasks.start_soon(self._end_of_grace)
                    else:
                        self.abort()

    async def _end_of_grace(self) -> None:
        await anyio.sleep(self.grace_s)
        self.abort()
