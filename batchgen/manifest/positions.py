"""Find the values of a manifest in its file, for messages that lead to the right line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Final

from batchgen.errors import Fault
from batchgen.manifest.yaml_reader import DocPath, Spot, locate

MAX_MESSAGE_CHARS: Final = 600

SECRET: Final = re.compile(
    r"""
    (?<! [A-Za-z0-9_-] )
    (?: sk- (?= [A-Za-z0-9_-]* [A-Z0-9] ) [A-Za-z0-9_-]{16,}
      | AIza [A-Za-z0-9_-]{35}
      | [Bb]earer [ ] [A-Za-z0-9._~+/=-]{16,}
    )
    """,
    re.VERBOSE,
)
"""API keys as OpenAI and its gateways, Google, and HTTP write them. Lower-case words joined by
dashes, like a slug that begins with ``sk-``, are not keys."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,60}")


def show_path(path: DocPath) -> str:
    """Return a path as a person would write it: ``jobs[3].options.size``."""
    shown = ""
    for part in path:
        if isinstance(part, int):
            shown += f"[{part}]"
        elif _NAME.fullmatch(part) and not SECRET.match(part):
            shown += f".{part}"
        else:
            part = SECRET.sub("***", part)
            shown += f"[{part[:60]!r}]"
    return shown.removeprefix(".")


class Places:
    """Finds the line and column of a document's values; needed only if one is wrong."""

    def __init__(
        self, file: str, text: str, *, renamed: Mapping[DocPath, str] = MappingProxyType({})
    ) -> None:
        self.file = file
        self._text = text
        self._renamed = renamed
        """How keys that were read under another name are written, by the path of that name."""

    def fault(self, path: DocPath, message: str, *, at_key: bool = False) -> Fault:
        """Return a fault at a value, at its key, or at the nearest mapping or list around it."""
        spot = key = self._top
        for depth, part in enumerate(path, 1):
            part = self._renamed.get(path[:depth], part)
            if isinstance(spot.within, dict) and part in spot.within:
                key, spot = spot.within[str(part)]
            elif isinstance(spot.within, list) and isinstance(part, int):
                if part >= len(spot.within):
                    break
                key = spot = spot.within[part]
            else:
                break
        else:
            if at_key:
                spot = key
        return self.fault_at(spot.line, spot.column, path, message)

    def fault_at(self, line: int, column: int, path: DocPath, message: str) -> Fault:
        """Return a fault at a known place; its message is short and shows no API key."""
        message = SECRET.sub("***", message)
        if len(message) > MAX_MESSAGE_CHARS:
            message = f"{message[:MAX_MESSAGE_CHARS]}..."
        return Fault(
            file=self.file,
            line=line,
            column=column,
            path=show_path(path),
            message=message,
        )

    @cached_property
    def _top(self) -> Spot:
        return locate(self._text)
