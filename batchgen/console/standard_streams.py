"""Make the standard streams safe for any text, closed descriptors and full disks."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress

_lost: list[OSError] = []


class _Closed(io.TextIOBase):
    """Replacement of a stdout that the caller closed: what is written to it is lost."""

    encoding = "utf-8"

    def write(self, text: str, /) -> int:
        if text:
            note_loss(OSError(errno.EBADF, "it is closed"))
        return len(text)


class _Noting(io.TextIOWrapper):
    """Replacement of a stdout whose disk may be full: an error is noted, once.

    A reader that left raises BrokenPipeError, as with an ordinary stream.
    """

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            raise
        except OSError as exc:
            note_loss(exc)
            discard_output()
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            raise
        except OSError as exc:
            note_loss(exc)
            discard_output()


def prepare_streams() -> None:
    """Let no character raise an error, and no file take the descriptor of a closed stream.

    A program that reads our output gets UTF-8, whichever code page is set; a terminal keeps its own
    encoding, with escapes for characters outside it.
    """
    _lost.clear()
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = _Closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            encoding = None if stream.isatty() else "utf-8"
            stream.reconfigure(encoding=encoding, errors="backslashreplace")
    if type(sys.stdout) is io.TextIOWrapper and not sys.stdout.isatty():
        encoding = sys.stdout.encoding
        sys.stdout = _Noting(sys.stdout.detach(), encoding=encoding, errors="backslashreplace")


def note_loss(exc: OSError) -> None:
    """Note that something could not be written to stdout, unless its reader is gone."""
    if exc.errno != errno.EPIPE:
        _lost.append(exc)


def lost_output() -> str | None:
    """Flush stdout, and return why some of it could not be written.

    None if all of it was, or if its reader is gone.
    """
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            discard_output()
        except ValueError:  # closed meanwhile, and flushed by that
            pass
    return (_lost[0].strerror or str(_lost[0])) if _lost else None


def discard_output() -> None:
    """Give the interpreter's flush at exit a target for what could not be written."""
    with suppress(OSError, ValueError, AttributeError):
        if sys.stdout.fileno() == 1:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.close(nowhere)
            sys.stdout.flush()
