"""Commands of batchgen at a terminal of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support import rig


def at_terminal(
    *arguments: object,
    cwd: Path,
    replies: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """Run a command whose streams are a terminal; return its exit code and what it showed.

    ``replies`` has the texts to type, by the questions that precede them. Skips the test where the
    platform has no pseudo terminals.
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
                    os.write(ours, waiting.pop(question).encode())
    os.close(ours)
    assert not waiting, f"never asked: {sorted(waiting)}\n{shown!r}"
    return process.returncode, shown.decode(errors="replace")
