"""One run a batch: a lock that the operating system drops when its holder dies, however it dies."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from batchgen.errors import BatchLockedError, LedgerError

_OFFSET_BITS: Final = 62


@contextmanager
def batch_lock(ledger: Path, batch: str) -> Iterator[None]:
    """Hold the batch of that name in this ledger. Raises BatchLockedError at once if it is held.

    All batches of a ledger share one lock file; each locks a byte of its own, told by its name.
    The lock is the process's: within one process, only one batch of a ledger may be held at a time.
    Raises LedgerError where the folder refuses the file, or its file system knows no locks.
    """
    file = ledger.resolve()  # a link to a ledger shares the lock of the ledger
    path = file.with_name(file.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    except OSError as exc:
        raise LedgerError(f"{path}: the lock can't be made: {exc.strerror}") from exc
    try:
        if not _take(handle, path, batch):
            raise BatchLockedError(batch, path)
        yield
    finally:
        os.close(handle)


def _take(handle: int, path: Path, batch: str) -> bool:
    try:
        return _lock(handle, _offset(batch))
    except OSError as exc:
        raise LedgerError(f"{path}: this file system can't lock: {exc.strerror}") from exc


def _offset(batch: str) -> int:
    digest = hashlib.sha256(batch.encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - _OFFSET_BITS)


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int, offset: int) -> bool:
        os.lseek(handle, offset % 2**31, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _lock(handle: int, offset: int) -> bool:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
        except (BlockingIOError, PermissionError):
            return False
        return True
