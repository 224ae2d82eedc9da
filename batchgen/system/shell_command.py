"""Commands that a person copies into a shell."""

from __future__ import annotations

import shlex
from contextvars import ContextVar
from pathlib import Path
from typing import Final

_DB: Final[ContextVar[str | Path | None]] = ContextVar("db", default=None)
"""What --db must name in commands about batches. Messages of all layers hold such commands, and
most of these know a batch only by its name."""


def name_ledger(db: str | Path | None) -> None:
    """Set the ledger of `batch_command`; None for one that commands find without --db."""
    _DB.set(db)


def batch_command(*words: str | Path) -> str:
    """Return a command about a batch of the ledger in use, with --db where it needs that."""
    db = _DB.get()
    return shell_command(*words, *(() if db is None else ("--db", db)))


def shell_command(*words: str | Path) -> str:
    """Return a command of batchgen as a person types it: quoted, with the shortest paths."""
    texts = (shortest(word) if isinstance(word, Path) else word for word in words)
    return shlex.join(["batchgen", *texts])


def shortest(path: Path) -> str:
    """Return a path in its shortest form relative to the current directory."""
    here = current_directory()
    return str(path.relative_to(here)) if here and path.is_relative_to(here) else str(path)


def current_directory() -> Path | None:
    """Return the current directory; None if it has been removed."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return None
