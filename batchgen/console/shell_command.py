"""Commands that a person copies into a shell."""

from __future__ import annotations

import shlex
from pathlib import Path


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
