"""Allow one run per batch: a lock that the operating system releases when its holder dies."""

from __future__ import annotations

import hashlib
import os
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from batchgen.errors import BatchLockedError, LedgerError
from batchgen.ledger.busy import Patience
from batchgen.ledger.file_aliases import check_single_name
from batchgen.ledger.owners import read_open_runs, refuse_while_owned
from batchgen.system.process_owner import BatchOwner, Life
from batchgen.system.process_table import began_at, command_of, inode_of, this_process, user_of

_OFFSET_BITS: Final = 62
LOCK_SUFFIX: Final = ".lock"
_MAX_LOOK_S: Final = 2.0
"""A refusal must not wait for the ledger: the process that it names may be the one that is stopped
in the middle of a commit."""
_MOMENT_S: Final = 2.0
"""How long a process that is not a run is waited for: the review page holds a batch for moments."""
_PAUSE_S: Final = 0.05


@dataclass(slots=True)
class _LockFile:
    """A lock file that this process has open, once for all batches.

    POSIX locks belong to the process and the file: closing any handle of the file drops them all,
    so it is opened once and closed with its last batch.
    """

    handle: int
    batches: set[str] = field(default_factory=set)


_open_files: Final[dict[tuple[int, str], _LockFile]] = {}
"""Keyed by process, since a fork inherits no locks, and by inode, since a file may have several
names.
"""
_registry: Final = threading.Lock()


@contextmanager
def batch_lock(ledger: Path, batch: str, *, take_over: bool = False) -> Iterator[None]:
    """Hold the batch of that name in this ledger. Raises BatchLockedError if it is held.

    A run is not waited for, another command for two seconds.

    All batches of a ledger share one lock file; each locks a byte of its own, chosen by its name.
    A run of the batch that may be alive although its lock is free (on another host, or with another
    lock file) is refused too; ``take_over`` says that a run that cannot be seen from here is dead.
    Raises LedgerError where the directory refuses the file, or its file system knows no locks.
    """
    ledger = ledger.resolve()
    check_single_name(ledger)
    path = _lock_path(ledger)
    identity = _acquire(path, ledger, batch)
    try:
        here = this_process(lock=identity)
        refuse_while_owned(
            read_open_runs(ledger, batch), here, datetime.now(UTC), take_over=take_over
        )
        yield
    finally:
        _release(identity, batch)


def held_lock(ledger: Path, batch: str) -> str:
    """Return the identity of the lock file by which this process holds a batch; empty if none."""
    with _registry:
        for (process, identity), file in _open_files.items():
            if process == os.getpid() and batch in file.batches and _is_of(identity, ledger):
                return identity
    return ""


def _is_of(identity: str, ledger: Path) -> bool:
    return inode_of(_lock_path(ledger.resolve())) == identity


def owner_of(ledger: Path, batch: str) -> BatchOwner | None:
    """Return who runs a batch now, or holds it for another command; None for a free batch.

    A run without an end and without an owner was killed. Takes no lock and writes nothing. Where
    the ledger itself stays locked, the lock file alone says which process it is.
    """
    ledger = ledger.resolve()
    path = _lock_path(ledger)
    pid = _pid_of(path, batch)
    here = this_process(lock="" if pid is not None else inode_of(path))
    now = datetime.now(UTC)
    runs = read_open_runs(ledger, batch, Patience(wait_s=_MAX_LOOK_S))
    seen = [run.seen(here, now) for run in runs]
    living = [one for one in seen if one.life is not Life.DEAD]
    if pid is None:
        return living[0] if living else None
    if pid <= 0:
        # In another namespace or on another host, only the run's row identifies the owner.
        if seen:
            return replace(seen[0], life=Life.ALIVE)
        unknown = replace(here.me, pid=0, user="", command="")
        return BatchOwner(batch=batch, owner=unknown, life=Life.ALIVE, since=None)
    for one in living:
        if one.owner.pid == pid:
            return one
    owner = replace(here.me, pid=pid, user=user_of(pid), command=command_of(pid))
    return BatchOwner(batch=batch, owner=owner, life=Life.ALIVE, since=began_at(pid))


def _pid_of(path: Path, batch: str) -> int | None:
    """Return the process that holds a batch; 0 where it cannot be seen, None where none does."""
    with _registry:
        file = _open_files.get((os.getpid(), inode_of(path)))
        if file is not None:
            return os.getpid() if batch in file.batches else _holder(file.handle, batch)
        try:
            handle = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except OSError:
            return None
        try:
            return _holder(handle, batch)
        finally:
            os.close(handle)


def _lock_path(ledger: Path) -> Path:
    return ledger.with_name(ledger.name + LOCK_SUFFIX)


def _acquire(path: Path, ledger: Path, batch: str) -> str:
    end = time.monotonic() + _MOMENT_S
    while True:
        identity = _try_to_acquire(path, batch)
        if identity is not None:
            return identity
        found = owner_of(ledger, batch)
        if time.monotonic() > end or (found is not None and found.heartbeat is not None):
            break
        time.sleep(_PAUSE_S)
    if found is None:  # it was released a moment ago, or its holder cannot be named
        text = f"{batch} is in use by another process (lock {path}); nothing was changed"
        raise BatchLockedError(text)
    raise BatchLockedError(found.refusal(datetime.now().astimezone()))


def _try_to_acquire(path: Path, batch: str) -> str | None:
    """Take the lock of a batch and return the identity of its file; None if it is held."""
    with _registry:
        identity, file = _opened(path)
        try:
            if batch not in file.batches and _take(file.handle, path, batch):
                file.batches.add(batch)
                return identity
        finally:
            _close_if_unused(identity, file)
    return None


def _opened(path: Path) -> tuple[str, _LockFile]:
    identity = inode_of(path)
    file = _open_files.get((os.getpid(), identity))
    if file is None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        except OSError as exc:
            raise LedgerError(f"{path}: the lock can't be made: {exc.strerror}") from exc
        identity = inode_of(handle)
        file = _open_files.setdefault((os.getpid(), identity), _LockFile(handle))
    return identity, file


def _close_if_unused(identity: str, file: _LockFile) -> None:
    if not file.batches:
        del _open_files[os.getpid(), identity]
        os.close(file.handle)


def _release(identity: str, batch: str) -> None:
    with _registry:
        file = _open_files.get((os.getpid(), identity))
        if file is not None:
            file.batches.discard(batch)
            _lock(file.handle, _offset(batch), take=False)
            _close_if_unused(identity, file)


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

    def _lock(handle: int, offset: int, *, take: bool = True) -> bool:
        os.lseek(handle, offset % 2**31, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK if take else msvcrt.LK_UNLCK, 1)
        except OSError:
            return False
        return True

    def _holder(handle: int, batch: str) -> int | None:
        """Return 0: Windows does not reveal the holder of a lock."""
        return None

else:
    import fcntl

    def _lock(handle: int, offset: int, *, take: bool = True) -> bool:
        command = fcntl.LOCK_EX | fcntl.LOCK_NB if take else fcntl.LOCK_UN
        try:
            fcntl.lockf(handle, command, 1, offset)
        except (BlockingIOError, PermissionError):
            return False
        return True

    # ``struct flock`` of fcntl(2): on macOS the type comes last.
    _LINUX_64: Final = sys.platform == "linux" and sys.maxsize > 2**32
    _FLOCK: Final = "hhqqi4x" if _LINUX_64 else "qqihh" if sys.platform == "darwin" else ""

    def _holder(handle: int, batch: str) -> int | None:
        """Return the process that holds the lock; 0 if it cannot be seen, None if it is free."""
        try:
            return _get_lock(handle, _offset(batch)) if _FLOCK else None
        except OSError:
            return None

    def _get_lock(handle: int, offset: int) -> int | None:
        kind, whence = fcntl.F_WRLCK, os.SEEK_SET
        if _LINUX_64:
            asked = struct.pack(_FLOCK, kind, whence, offset, 1, 0)
            found, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(handle, fcntl.F_GETLK, asked))
        else:
            asked = struct.pack(_FLOCK, offset, 1, 0, kind, whence)
            _, _, pid, found, _ = struct.unpack(_FLOCK, fcntl.fcntl(handle, fcntl.F_GETLK, asked))
        return None if found == fcntl.F_UNLCK else max(0, int(pid))
