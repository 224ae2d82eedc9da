"""Named steps of the protocol, at which a test can have the process killed.

``reach`` costs one look into an empty dict while nothing is armed.
"""

from __future__ import annotations

import os
import signal
from enum import StrEnum
from typing import Final

_KILL: Final = getattr(signal, "SIGKILL", signal.SIGTERM)
"""Windows ends a process at once for either."""


class Point(StrEnum):
    """A point of the protocol, by its place in the order."""

    LEDGER_MADE = "ledger-made"
    """The new ledger is whole, and not yet under its name."""
    MIGRATED = "migrated"
    """The new schema is written, and not yet committed."""
    BACKED_UP = "backed-up"
    """The copy of the old ledger is whole, and not yet under its name."""
    APPROVED = "approved"
    """Every check is passed and the person has agreed; nothing is written."""
    ENROLLED = "enrolled"
    """The plan and the run are written, and not yet committed."""
    RECOVERING = "recovering"
    """An open attempt was found, and nothing is written of it yet."""
    RECOVERED = "recovered"
    """An open attempt is settled; others may be open."""
    MOVED = "moved"
    """Images have their new places, and the ledger knows of the old ones."""
    SET_ASIDE = "set-aside"
    """An image that is in the way of another is in ``.moving/``."""
    RESERVED = "reserved"
    """The attempt is on record, and nothing was sent."""
    BODY_SENT = "body-sent"
    """The connection took the last byte of the request."""
    RESPONSE_BEGUN = "response-begun"
    """The head of the response is here."""
    SPOOLED = "spooled"
    """The whole response is on disk, and not yet in the ledger."""
    GROUPED = "grouped"
    """A group of steps is written to the ledger, and not yet committed."""
    RECEIVED = "received"
    """What was paid for is in the ledger."""
    COPYING = "copying"
    """A copy of another job's image is on record, and not yet made."""
    KEPT = "kept"
    """What has the final name is kept below ``.previous/``."""
    PLACING = "placing"
    """The image is verified, and the ledger knows where it goes."""
    PLACED = "placed"
    """The image stands under its name, and the job is not yet done."""
    SAVED = "saved"
    """The image is in the ledger, and what it no longer needs is still there."""


_left: Final[dict[Point, int]] = {}
"""How often an armed point may still be passed."""


def reach(point: Point) -> None:
    """Pass by a point, or end there."""
    if point in _left:
        _left[point] -= 1
        if not _left[point]:
            os.kill(os.getpid(), _KILL)


def arm(text: str | None) -> None:
    """End the process as it reaches ``POINT[:TIMES]``, such as ``spooled:3``, for the third time.

    None disarms. Raises ValueError for what names no point, or no number from 1.
    """
    _left.clear()
    if text is None:
        return
    point, _, times = text.partition(":")
    number = int(times or 1)
    if number < 1:
        raise ValueError(f"a point can't be reached for the {number}th time")
    _left[Point(point)] = number
