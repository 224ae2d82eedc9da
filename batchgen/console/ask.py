"""Ask a person at the terminal."""

from __future__ import annotations

import sys


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
