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

from batchgen.system.threads import in_disk_thread

RESPONSE_BYTES: Final = 4 * 1024 * 1024
"""Space for a response and its image, until a larger response has arrived."""
KEPT_FREE_BYTES: Final = 32 * 1024 * 1024
"""Reserve for the ledger, its journal and what other programs write meanwhile."""
_KEPT_FILES: Final = 16
_MEASURE_EVERY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class FreeSpace:
    """The free space of a file system."""

    directory: Path
    responses: int
    """How many more responses fit."""
    limit: str
    """The scarce resource and how much of it is free, for messages; may be empty."""


def measure(directory: Path, response_bytes: int = RESPONSE_BYTES) -> FreeSpace:
    """Return how many responses fit into a directory, or into its nearest existing parent.

    Raises OSError.
    """
    existing = nearest_existing(directory)
    if sys.platform == "win32":
        return _by_bytes(existing, shutil.disk_usage(existing).free, response_bytes)
    found = os.statvfs(existing)
    if found.f_flag & os.ST_RDONLY:
        return FreeSpace(existing, 0, "the file system is read-only")
    if not found.f_blocks:  # some network file systems do not report their size
        return FreeSpace(existing, sys.maxsize, "")
    by_bytes = _by_bytes(existing, found.f_bavail * found.f_frsize, response_bytes)
    if not found.f_files:  # a file system without a fixed number of inodes
        return by_bytes
    pairs = max(0, found.f_favail - _KEPT_FILES) // 2  # a response and its image
    by_files = FreeSpace(existing, pairs, f"{found.f_favail:,} more files can be created")
    return min(by_bytes, by_files, key=lambda one: one.responses)


def _by_bytes(existing: Path, free: int, response_bytes: int) -> FreeSpace:
    responses = max(0, free - KEPT_FREE_BYTES) // response_bytes
    return FreeSpace(existing, responses, f"{free >> 20:,} MiB free")


def nearest_existing(directory: Path) -> Path:
    """Return the directory, or the nearest directory above it that exists."""
    return next(path for path in (directory, *directory.parents) if path.exists())


class DiskSpace:
    """A guard that checks whether the responses of all requests in flight would fit on disk.

    It measures once a second at most, and earlier if the requests started since the last
    measurement could have used up the free space.
    """

    def __init__(self, *directories: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._directories = directories
        self._clock = clock
        self._response_bytes = RESPONSE_BYTES
        self._measure_at = clock()
        self._left = 0

    def note_response(self, size: int) -> None:
        """Adapt the expected size to a response of ``size`` bytes and the image in it."""
        self._response_bytes = max(self._response_bytes, 2 * size)

    async def shortage(self, in_flight: int) -> str | None:
        """Return why ``in_flight`` requests, the new one included, do not fit; None if they do.

        Raises OSError.
        """
        now = self._clock()
        if self._left > 0 and now < self._measure_at:
            self._left -= 1
            return None
        self._measure_at = now + _MEASURE_EVERY_S
        found = await in_disk_thread(self._measure)
        self._left = found.responses - in_flight
        if self._left >= 0:
            return None
        return (
            f"{found.directory}: {found.limit}, not enough for the responses to {in_flight}"
            " requests; free up disk space and run again"
        )

    def _measure(self) -> FreeSpace:
        found = [measure(directory, self._response_bytes) for directory in self._directories]
        return min(found, key=lambda one: one.responses)
