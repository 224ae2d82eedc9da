"""Sync directories for many threads at once: one sync makes the names of all of them durable."""

from __future__ import annotations

import copy
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from batchgen.system.atomic_files import sync_directory

_MAX_KNOWN: Final = 64


@dataclass(slots=True)
class _Turn:
    """The syncs of one directory. A number counts the calls that its sync covers."""

    asked: int = 0
    covered: int = 0
    failed: int = 0
    """Calls up to this number got `error`. A later sync reports no error of an earlier one."""
    error: OSError | None = None
    counter: threading.Lock = field(default_factory=threading.Lock)
    syncing: threading.Lock = field(default_factory=threading.Lock)


class DirectorySync:
    """Syncs directories; calls that wait for the same one share the next sync."""

    def __init__(self) -> None:
        self._turns: dict[Path, _Turn] = {}
        self._lock = threading.Lock()

    def sync(self, directory: Path) -> None:
        """Return after a sync that began after this call. Raises OSError."""
        turn = self._turn(directory)
        with turn.counter:
            turn.asked += 1
            mine = turn.asked
        with turn.syncing:
            if turn.error is not None and mine <= turn.failed:
                raise copy.copy(turn.error)  # with its path, which is not in `args`
            if mine <= turn.covered:
                return
            with turn.counter:
                upto = turn.asked
            try:
                sync_directory(directory)
            except OSError as exc:
                turn.failed, turn.error = upto, exc
                raise
            turn.covered = upto

    def _turn(self, directory: Path) -> _Turn:
        with self._lock:
            turn = self._turns.get(directory)
            if turn is None:
                if len(self._turns) >= _MAX_KNOWN:
                    self._turns.clear()
                turn = self._turns[directory] = _Turn()
            return turn


_shared: Final = DirectorySync()


def sync_directory_together(directory: Path) -> None:
    """Make the names in a directory durable, with one sync for all threads that wait for it.

    Raises OSError.
    """
    _shared.sync(directory)
