"""Free-disk-space check before each request: a paid response needs the space."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from batchgen.system.threads import on_disk

RESPONSE_BYTES: Final = 4 * 1024 * 1024
"""What a response and the image from it take, until a larger one has come."""
KEPT_FREE_BYTES: Final = 32 * 1024 * 1024
"""For the ledger, its journal and what other programs write meanwhile."""
_KEPT_FILES: Final = 16
_LOOK_EVERY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Look:
    """What a file system has left."""

    place: Path
    fits: int
    """How many answers more find a place there."""
    state: str
    """What is short, if anything is."""


def look(directory: Path, response_bytes: int = RESPONSE_BYTES) -> Look:
    """See how many answers fit into a directory, or into the nearest one above it that exists.

    Raises OSError.
    """
    place = nearest(directory)
    if sys.platform == "win32":
        return _by_bytes(place, shutil.disk_usage(place).free, response_bytes)
    found = os.statvfs(place)
    if found.f_flag & os.ST_RDONLY:
        return Look(place, 0, "the file system is read-only")
    if not found.f_blocks:  # one that does not know its size, as some over a network
        return Look(place, sys.maxsize, "")
    by_bytes = _by_bytes(place, found.f_bavail * found.f_frsize, response_bytes)
    if not found.f_files:  # it makes as many as there is room for
        return by_bytes
    pairs = max(0, found.f_favail - _KEPT_FILES) // 2  # a response and its image
    by_files = Look(place, pairs, f"{found.f_favail:,} more files can be made")
    return min(by_bytes, by_files, key=lambda one: one.fits)


def _by_bytes(place: Path, free: int, response_bytes: int) -> Look:
    fits = max(0, free - KEPT_FREE_BYTES) // response_bytes
    return Look(place, fits, f"{free >> 20:,} MiB are free")


def nearest(directory: Path) -> Path:
    """The directory, or the one above it that exists."""
    return next(place for place in (directory, *directory.parents) if place.exists())


class Room:
    """Says whether the answers to requests in flight would all find a place in some directories.

    It looks once a second at most, and again when the requests that were let go since then may
    have used up what was free.
    """

    def __init__(self, *directories: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._directories = directories
        self._clock = clock
        self._response_bytes = RESPONSE_BYTES
        self._look_at = clock()
        self._left = 0

    def came(self, size: int) -> None:
        """Learn from a response of so many bytes, which an image is unpacked from."""
        self._response_bytes = max(self._response_bytes, 2 * size)

    async def lacking(self, in_flight: int) -> str | None:
        """Why so many requests must not be in flight, the one that asks included; None if they may.

        Raises OSError.
        """
        now = self._clock()
        if self._left > 0 and now < self._look_at:
            self._left -= 1
            return None
        self._look_at = now + _LOOK_EVERY_S
        found = await on_disk(self._look)
        self._left = found.fits - in_flight
        if self._left >= 0:
            return None
        return (
            f"{found.place}: {found.state}, too little for the answers to {in_flight} requests;"
            " make room and run again"
        )

    def _look(self) -> Look:
        looks = [look(directory, self._response_bytes) for directory in self._directories]
        return min(looks, key=lambda one: one.fits)
