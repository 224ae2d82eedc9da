"""Signals: the first drains, the second ends at once. Nothing here knows what a job is."""

from __future__ import annotations

import asyncio
import math
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import Final

import anyio

_SIGNALS: Final = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    if hasattr(signal, name)
)


@contextmanager
def _receive(numbers: Sequence[signal.Signals]) -> Iterator[AsyncIterator[signal.Signals]]:
    """Give the signals as they arrive, in place of what they do otherwise.

    Raises ValueError outside of the main thread.
    """
    with ExitStack() as stack:
        try:
            signals = stack.enter_context(anyio.open_signal_receiver(*numbers))
        except NotImplementedError:  # the loops of Windows have no add_signal_handler
            signals = stack.enter_context(_receive_by_handler(numbers))
        yield signals


@contextmanager
def _receive_by_handler(
    numbers: Sequence[signal.Signals],
) -> Iterator[AsyncIterator[signal.Signals]]:
    loop = asyncio.get_running_loop()
    send, receive = anyio.create_memory_object_stream[signal.Signals](math.inf)

    def hand_over(number: int) -> None:
        with suppress(anyio.ClosedResourceError):  # the run ended in the same moment
            send.send_nowait(signal.Signals(number))

    def arrived(number: int, frame: FrameType | None) -> None:
        # Python runs this between two steps of the loop's thread: the loop itself must be woken.
        loop.call_soon_threadsafe(hand_over, number)

    before = {number: signal.signal(number, arrived) for number in numbers}
    try:
        with send, receive:
            yield receive
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
        with _receive(heeded) as signals:
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
