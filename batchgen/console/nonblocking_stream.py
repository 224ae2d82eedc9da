"""Write to standard output and error without waiting for their reader, which may have stopped."""

from __future__ import annotations

import atexit
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TextIO

from batchgen.console.standard_streams import note_loss

_HELD_LINES: Final = 10_000
_SETTLE_S: Final = 2.0
_GATHER_S: Final = 0.01
"""Seconds that the first of several lines waits for the others. Waking a thread per line would
cost the event loop more than all its other output work.
"""
PATIENCE_S: Final = 600.0
"""Seconds that the end of the process waits for a reader that takes nothing."""
_CHUNK_BYTES: Final = getattr(select, "PIPE_BUF", 512)


class Outlet:
    """A stream written by its own thread, so that nothing else waits for its reader.

    It buffers up to ``held`` writes and drops more; ``dropped_line`` makes the line that reports
    their number. All else is as in the stream itself.
    """

    def __init__(
        self, stream: TextIO, dropped_line: Callable[[int], str], *, held: int = _HELD_LINES
    ) -> None:
        self._stream = stream
        self._dropped_line = dropped_line
        self._most = held
        self._held: list[bytes] = []
        self._awake = False
        self._writing = False
        self._taken = 0
        self._gone = False
        self._changed = threading.Condition()
        self._dropped = 0
        threading.Thread(target=self._run, name="outlet", daemon=True).start()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Buffer the text, or drop it."""
        with self._changed:
            if len(self._held) >= self._most:
                self._dropped += 1
                return len(text)
            if self._dropped:
                self._held.append(self._encoded(self._dropped_line(self._dropped) + "\n"))
                self._dropped = 0
            self._held.append(self._encoded(text))
            if not self._awake:
                self._awake = True
                self._changed.notify_all()
        return len(text)

    def _encoded(self, text: str) -> bytes:
        # Replacement characters are better than an exception for a name outside the encoding.
        return text.encode(self._stream.encoding or "utf-8", "backslashreplace")

    def flush(self) -> None:
        """Do nothing: no text is held back."""

    def settle(self, seconds: float = _SETTLE_S) -> bool:
        """Wait a while until all is written, and return whether it is."""
        with self._changed:
            return self._changed.wait_for(self._is_idle, seconds)

    def finish(self, patience_s: float = PATIENCE_S) -> None:
        """Wait until all is written, as long as the reader takes anything now and then."""
        taken = -1
        with suppress(KeyboardInterrupt):
            while not self.settle(patience_s) and taken != self._taken:
                taken = self._taken

    def _is_idle(self) -> bool:
        return not (self._held or self._writing)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._awake = False
                self._changed.wait_for(lambda: self._held)
                self._awake = True
            time.sleep(_GATHER_S)
            with self._changed:
                data, self._held = b"".join(self._held), []
                self._writing = True
            if not self._gone:
                self._write(data)
            with self._changed:
                self._writing = False
                self._changed.notify_all()

    def _write(self, data: bytes) -> None:
        # Bypass Python's own buffer, whose lock would be held when the process wants to end.
        rest = memoryview(data)
        handle = self._stream.fileno()
        while rest:
            try:
                rest = rest[os.write(handle, rest[:_CHUNK_BYTES]) :]
            except BlockingIOError:  # as the parent process may have set it
                select.select([], [handle], [])
            except OSError as exc:  # the reader is gone, or the disk is full
                self._gone = True
                if handle == 1:
                    note_loss(exc)
                return
            self._taken += 1


_outlets: dict[int, Outlet] = {}


def unhurried(stream: TextIO | None, dropped_line: Callable[[int], str]) -> TextIO | None:
    """Return the stream, or its outlet if it is this process's standard output or error.

    ``dropped_line`` as in Outlet. The end of the process waits for what is still to be written.
    """
    handle = _standard(stream)
    if stream is None or handle is None or sys.platform == "win32":
        return stream
    if handle not in _outlets:
        stream.flush()
        _outlets[handle] = Outlet(stream, dropped_line)
        atexit.register(_outlets[handle].finish)
    return _outlets[handle]  # type: ignore[return-value]  # all else is the stream's own


def outlet_of(stream: TextIO | None) -> TextIO | None:
    """Return the outlet that still writes earlier lines to a stream, and must get later ones
    too.
    """
    outlet = _outlets.get(_standard(stream) or 0)
    if outlet is None or outlet.settle(0):
        return None
    return outlet  # type: ignore[return-value]  # as above


def _standard(stream: TextIO | None) -> int | None:
    with suppress(AttributeError, OSError, ValueError):
        handle = stream.fileno() if stream is not None else None
        return handle if handle in (1, 2) else None
    return None
