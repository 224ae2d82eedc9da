"""Failpoints: named steps of the protocol at which a test can kill the process.

`hit` costs one lookup in an empty dict while no failpoint is armed.
"""

from __future__ import annotations

import os
import signal
from enum import StrEnum
from typing import Final

_KILL: Final = getattr(signal, "SIGKILL", signal.SIGTERM)
"""Windows has no SIGKILL; there SIGTERM ends a process at once."""


class Point(StrEnum):
    """A failpoint, in protocol order."""

    LEDGER_MADE = "ledger-made"
    """The new ledger is complete, but still under its temporary name."""
    MIGRATED = "migrated"
    """The new schema is written, but not committed."""
    BACKED_UP = "backed-up"
    """The copy of the old ledger is complete, but still under its temporary name."""
    APPROVED = "approved"
    """Every check passed and the user confirmed; nothing is written."""
    ENROLLED = "enrolled"
    """The plan and the run are written, but not committed."""
    RECOVERING = "recovering"
    """An open attempt was found; nothing about it is written yet."""
    RECOVERED = "recovered"
    """An open attempt is settled; others may be open."""
    MOVED = "moved"
    """Images are at their new paths; the ledger still has the old ones."""
    BLOCKER_MOVED = "set-aside"
    """An image at the target path of another one was moved to ``.moving/``."""
    RESERVED = "reserved"
    """The attempt is recorded; nothing was sent."""
    INTENT_PUT = "intent-put"
    """The intent of the attempt is in the bucket; nothing was sent."""
    BODY_SENT = "body-sent"
    """The connection took the last byte of the request."""
    RESPONSE_BEGUN = "response-begun"
    """The response headers have arrived."""
    SPOOLED = "spooled"
    """The whole response is on disk, but not in the ledger."""
    RESPONSE_PUT = "response-put"
    """The whole response is in the bucket; the driver does not know."""
    GROUPED = "grouped"
    """A group of steps is written to the ledger, but not committed."""
    RECEIVED = "received"
    """The paid images are recorded in the ledger."""
    COPYING = "copying"
    """The copy of another job's image is recorded; the file does not exist yet."""
    KEPT = "kept"
    """The previous file at the output path is kept under ``.previous/``."""
    VERIFIED = "verified"
    """An actor has verified the image; the driver does not know."""
    PLACING = "placing"
    """The image is verified and about to get its output path. That is recorded, unless the image
    keeps its temporary name as well."""
    STAGED = "staged"
    """An actor has put the image under its final or staging name; the driver does not know."""
    PLACED = "placed"
    """The image is at its output path; the ledger does not have it as saved yet."""
    SAVED = "saved"
    """The image is recorded as saved; its spooled response still exists."""
    PUBLISHING = "publishing"
    """The published image is kept; the accepted one is about to take its final name."""
    NAMED = "named"
    """The accepted object has its final name in the bucket, and still waits below ``.pending/``."""
    PUBLISHED = "published"
    """The accepted image has its final name; the ledger does not have that yet."""


_remaining: Final[dict[Point, int]] = {}
"""How many hits an armed failpoint takes before it kills; the last one does."""


def hit(point: Point) -> None:
    """Pass a failpoint, or kill the process there if it is armed."""
    if point in _remaining:
        _remaining[point] -= 1
        if not _remaining[point]:
            os.kill(os.getpid(), _KILL)


def arm(text: str | None) -> None:
    """Kill the process at a failpoint, given as ``POINT[:HITS]`` such as ``spooled:3``.

    None disarms. Raises ValueError for an unknown point or a number of hits below 1.
    """
    _remaining.clear()
    if text is None:
        return
    point, _, hits = text.partition(":")
    number = int(hits or 1)
    if number < 1:
        raise ValueError(f"failpoint {text}: number of hits: {number}; expected at least 1")
    _remaining[Point(point)] = number
