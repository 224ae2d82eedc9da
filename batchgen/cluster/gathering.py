"""How long orders, and reports, wait for others, so that one call carries several."""

from __future__ import annotations

from typing import Final

_GATHER_S: Final = 0.02
"""Nothing next to a request, and less work for all."""
_GATHER_BUSY_S: Final = 0.04
_BUSY_GROUP: Final = 4
"""A group of this many says that the next will have as many, and more for a longer wait."""


def gather_s(previous: int = 0) -> float:
    """Return how long the first of a group waits; ``previous`` is the size of the group before."""
    return _GATHER_S if previous < _BUSY_GROUP else _GATHER_BUSY_S
