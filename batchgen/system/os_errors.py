"""Distinguish failures of the machine from bugs in batchgen."""

from __future__ import annotations

import errno
import sqlite3
from typing import Final

from batchgen.errors import BatchgenError, ExitCode, StoppedError

_MACHINE_ERRNOS: Final = {
    errno.EDQUOT,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOSPC,
    errno.EROFS,
}


def as_stopped_error(exc: BaseException) -> StoppedError | None:
    """Return the error to report for a full or broken disk, or for too many open files.

    None for any other exception.
    """
    # Among SQLite's DatabaseErrors only these come from the file or the disk; others are bugs.
    if isinstance(exc, sqlite3.OperationalError) or type(exc) is sqlite3.DatabaseError:
        return StoppedError(f"ledger: {exc}; what was written before is safe")
    if isinstance(exc, OSError) and exc.errno in _MACHINE_ERRNOS:
        return StoppedError(f"disk: {exc}; what was written before is safe")
    return None


def stop_reason_of(error: BaseException) -> tuple[str, ExitCode]:
    """Return why an exception ended a run, and the exit code."""
    if not isinstance(error, Exception):
        return "cancelled by its program", ExitCode.INTERRUPTED
    known = error if isinstance(error, BatchgenError) else as_stopped_error(error)
    if known is not None:
        return str(known), known.exit_code
    return f"bug: {error!r}; please report it", ExitCode.BUG
