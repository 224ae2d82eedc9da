"""Colors on a terminal: red for failures, yellow for what needs a decision, bold for money.

https://no-color.org and https://force-color.org: NO_COLOR turns colors off, FORCE_COLOR turns
them on without a terminal. If both are set, NO_COLOR counts, as in Python itself.
"""

from __future__ import annotations

import re
import sys
from enum import StrEnum
from typing import Final, TextIO

from batchgen.session.settings import color_setting


class Style(StrEnum):
    """Parameters of the escape sequence SGR (ECMA-48, 8.3.117)."""

    BOLD = "1"
    RED = "31"
    GREEN = "32"
    YELLOW = "33"


_RULES: Final = (
    (r"(?m)^ +[\d,]+  (failed|blocked)\b.*$", Style.RED),
    (r"(?m)^ +[\d,]+  (uncertain|sending|paid)\b.*$", Style.YELLOW),
    (r"(?m)^  (run \d+ )?(stopped: .*|was killed .*)$", Style.RED),
    (r"(?m)^warning: .*$", Style.YELLOW),
    (r"possible \$(?!0\.00\b)[\d,.]*\d", Style.YELLOW),
    (r"(?<=charged )\$[\d,.]*\d", Style.BOLD),
    (r"(?m)(?<=^next: ).*?(?=   #|$)", Style.BOLD),
)
"""Compiled when they are first used: most output is not shown in color."""
_HEAD: Final = r"(?m)^(.*: )([\d,]+) of ([\d,]+) jobs? done"


def is_colored(stream: TextIO | None) -> bool:
    """Return whether to write escape sequences to a stream."""
    if stream is None:
        return False
    setting = color_setting()
    if setting is not None:
        return setting
    return stream.isatty() and sys.platform != "win32"


def styled(text: str, style: Style | None, *, on: bool = True) -> str:
    """Return the text in a style; unchanged without one."""
    return f"\x1b[{style}m{text}\x1b[0m" if on and style is not None else text


def highlighted(text: str) -> str:
    """Return a status, summary or plan with its important parts in color."""
    for pattern, style in _RULES:
        text = re.sub(pattern, lambda found, style=style: styled(found[0], style), text)  # type: ignore[misc]
    return re.sub(_HEAD, _head, text)


def shown(text: str, stream: TextIO | None) -> str:
    """Return the text as a stream shows it: highlighted where it shows colors."""
    return highlighted(text) if is_colored(stream) else text


def _head(found: re.Match[str]) -> str:
    style = Style.GREEN if found[2] == found[3] else Style.BOLD
    return found[1] + styled(found[0].removeprefix(found[1]), style)
