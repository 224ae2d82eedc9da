"""Tells what the machine refuses from a bug of ours."""

from __future__ import annotations

import errno
import sqlite3
from typing import Final

from batchgen.errors import BatchgenError, ExitCode, StoppedError

_REFUSALS: Final = {
    errno.EDQUOT,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOSPC,
    errno.EROFS,
}


def refusal(exc: BaseException) -> StoppedError | None:
    """What to say of a disk that is full or broken, or of files that can't be opened any more.

    None for any other exception.
    """
    # Of its kinds of DatabaseError only these are the file's or the disk's, not a bug of ours.
    if isinstance(exc, sqlite3.OperationalError) or type(exc) is sqlite3.DatabaseError:
        return StoppedError(f"ledger: {exc}; what was written before is safe")
    if isinstance(exc, OSError) and exc.errno in _REFUSALS:
        return StoppedError(f"disk: {exc}; what was written before is safe")
    return None


def end_of(error: BaseException) -> tuple[str, ExitCode]:
    """Return why a run stopped that an exception ended, and its exit code."""
    if not isinstance(error, Exception):
        return "cancelled by its program", ExitCode.INTERRUPTED
    known = error if isinstance(error, BatchgenError) else refusal(error)
    if known is not None:
        return str(known), known.exit_code
    return f"bug: {error!r}; please report it", ExitCode.BUG
