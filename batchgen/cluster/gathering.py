"""Orders, or reports, that wait for each other, so that one call carries several."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

_GATHER_S: Final = 0.02
"""Nothing next to a request, and less work for all."""
_GATHER_BUSY_S: Final = 0.04
_BUSY_GROUP: Final = 4
"""A group of this many says that the next will have as many, and more for a longer wait."""
PATIENT_S: Final = 0.2
"""How long those wait that no request waits for. In a busy run, others take them along before."""


class Gathering(Generic[T]):
    """What waits for its call. Use it inside one event loop."""

    def __init__(self, due: Callable[[], None]) -> None:
        """``due`` is called when the first of them has waited long enough."""
        self._due = due
        self._waiting: list[T] = []
        self._urgent = 0
        self._gather_s = _GATHER_S
        self._timer: asyncio.TimerHandle | None = None

    def add(self, one: T, *, is_urgent: bool) -> None:
        """Let one wait; an urgent one for a moment only."""
        self._waiting.append(one)
        self._urgent += is_urgent
        wait_s = self._gather_s if is_urgent else PATIENT_S
        if self._timer is not None:
            if self._timer.when() <= asyncio.get_running_loop().time() + wait_s:
                return
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._due)

    def remove(self, one: T) -> bool:
        """Let one wait no longer; return whether it did."""
        try:
            self._waiting.remove(one)
        except ValueError:
            return False
        return True

    def take(self) -> list[T]:
        """Return all that wait; they wait no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._gather_s = _GATHER_S if self._urgent < _BUSY_GROUP else _GATHER_BUSY_S
        found, self._waiting, self._urgent = self._waiting, [], 0
        return found
