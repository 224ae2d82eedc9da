"""`batchgen guide`: print the pages of the user guide that the wheel contains."""

from __future__ import annotations

import json
import re
import sys
from difflib import get_close_matches
from importlib.resources import files
from typing import Final

from batchgen.console.progress import write_line
from batchgen.errors import ExitCode, SettingsError

_PACKAGE: Final = "batchgen.guide"
_FIRST: Final = "evening"
"""The page to begin with."""
_COMMENT: Final = re.compile(r"^<!-- .* -->\n", re.MULTILINE)
"""Markers of the blocks that our tests run."""


def topics() -> dict[str, str]:
    """Return each topic with its summary, the first paragraph of its page; the first one first."""
    pages = (file.name for file in files(_PACKAGE).iterdir())
    names = sorted(name.removesuffix(".md") for name in pages if name.endswith(".md"))
    names.sort(key=lambda name: name != _FIRST)
    return {name: _page(name).split("\n\n", 2)[1] for name in names}


def guide(topic: str | None, *, as_json: bool = False) -> ExitCode:
    """Print one page, or the list of topics when ``topic`` is None.

    Raises SettingsError for an unknown topic.
    """
    known = topics()
    if topic is None and as_json:
        listed = [{"topic": name, "summary": summary} for name, summary in known.items()]
        write_line(sys.stdout, json.dumps({"topics": listed}))
        return ExitCode.DONE
    if topic is None:
        width = max(map(len, known))
        lines = [f"{name:{width}}  {summary}" for name, summary in known.items()]
        write_line(sys.stdout, "\n".join([*lines, "next: batchgen guide TOPIC"]))
        return ExitCode.DONE
    if topic not in known:
        close = get_close_matches(topic.lower(), known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(known)}"
        raise SettingsError(f"guide: unknown topic: {topic[:100]}; {hint}")
    text = _page(topic).rstrip("\n")
    record = {"topic": topic, "summary": known[topic], "text": text}
    write_line(sys.stdout, json.dumps(record) if as_json else text)
    return ExitCode.DONE


def _page(topic: str) -> str:
    text = files(_PACKAGE).joinpath(f"{topic}.md").read_text(encoding="utf-8")
    return _COMMENT.sub("", text)
