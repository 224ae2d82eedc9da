"""Pages that a command writes: whole or not at all, and never over a file that is not ours."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Final

from batchgen.errors import SettingsError

_HEAD_BYTES: Final = 2_000


def check_own(page: Path, *, kind: str) -> None:
    """Refuse to replace a file that is not a page of this kind, such as ``gallery``.

    The template of each kind has the mark in its head. Raises SettingsError.
    """
    mark = f'<meta name="generator" content="batchgen {kind}">'.encode()
    try:
        with page.open("rb") as stream:
            is_own = mark in stream.read(_HEAD_BYTES)
    except FileNotFoundError:
        return
    if not is_own:
        raise SettingsError(f"{page}: is not a {kind} of batchgen; name another place with -o")


def replace_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident():x}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
