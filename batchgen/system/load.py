"""How busy this process keeps the processor."""

from __future__ import annotations

import time
from typing import Final

_WINDOW_S: Final = 0.1
_BUSY_SHARE: Final = 0.9


class Load:
    """Says whether this process used most of one processor of late.

    The event loop and its threads share the interpreter's lock, so all of them together rarely use
    more than one.
    """

    __slots__ = ("_began_s", "_is_busy", "_used_s")

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self._used_s = time.process_time()
        self._is_busy = False

    def is_busy(self) -> bool:
        """Return whether it did in the last window, which lasts a tenth of a second or longer."""
        now_s = time.monotonic()
        if now_s >= self._began_s + _WINDOW_S:
            used_s = time.process_time()
            self._is_busy = used_s - self._used_s >= _BUSY_SHARE * (now_s - self._began_s)
            self._began_s, self._used_s = now_s, used_s
        return self._is_busy
