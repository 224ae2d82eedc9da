"""Commands of batchgen at a terminal of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.support import rig

Reply: TypeAlias = str | Callable[[], str]
"""What to type, or a function that returns it."""


def screen(directory: Path) -> tuple[dict[str, str], Path]:
    """Return an environment with a browser, and the file to which that writes the URL."""
    url = directory / "url"
    script = directory / "browser"
    script.write_text(f"#!/bin/sh\nprintf %s \"$1\" > '{url}'\n", encoding="utf-8")
    script.chmod(0o755)
    return {"DISPLAY": ":99", "BROWSER": str(script), "SSH_CONNECTION": ""}, url


def at_terminal(
    *arguments: object,
    cwd: Path,
    replies: Mapping[str, Reply] | None = None,
    env: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """Run a command whose streams are a terminal; return its exit code and what it showed.

    ``replies`` has the text to type for each question; a function is called while the command
    waits. Skips the test where the platform has no pseudo terminals.
    """
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    waiting = dict(replies or {})
    shown = b""
    with subprocess.Popen(
        [sys.executable, "-m", "batchgen", *map(str, arguments)],
        cwd=cwd,
        env=rig.environment(env),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        with suppress(OSError):  # as Linux ends a terminal without a writer
            while piece := os.read(ours, 65536):
                shown += piece
                for question in [one for one in waiting if one.encode() in shown]:
                    reply = waiting.pop(question)
                    os.write(ours, (reply if isinstance(reply, str) else reply()).encode())
    os.close(ours)
    assert not waiting, f"never asked: {sorted(waiting)}\n{shown!r}"
    return process.returncode, shown.decode(errors="replace")
