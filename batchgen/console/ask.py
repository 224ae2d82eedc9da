"""Ask a person at the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable


def can_ask() -> bool:
    """Return whether a person sees stderr and can type on stdin."""
    return bool(sys.stdin and sys.stdin.isatty() and sys.stderr and sys.stderr.isatty())


def ask(question: str, default: str) -> str:
    """Return the reply to a question; the default for an empty reply or without a person."""
    if not can_ask():
        return default
    shown = f" [{default}]" if default else ""
    sys.stderr.write(f"{question}{shown}: ")
    sys.stderr.flush()
    return sys.stdin.readline().strip() or default


def has_browser(setting: Callable[[str], str | None]) -> bool:
    """Return whether a browser has a window to open here; without one it would take the terminal.

    ``setting`` returns an environment variable. Over ssh, the person sits somewhere else.
    """
    if setting("SSH_CONNECTION"):
        return False
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(setting("DISPLAY") or setting("WAYLAND_DISPLAY"))
