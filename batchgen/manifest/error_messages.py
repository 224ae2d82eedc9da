"""What pydantic finds wrong with a manifest, in plain words and with what would be right."""

from __future__ import annotations

import re
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, NamedTuple

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from batchgen.manifest.model import (
    FileRows,
    JobEntry,
    JobSpec,
    Limits,
    Manifest,
    Notifier,
    Output,
    ProviderSpec,
    SqliteRows,
)
from batchgen.manifest.positions import SECRET
from batchgen.manifest.yaml_reader import DocPath
from batchgen.manifest.yaml_scalars import Ambiguous, Null
from batchgen.text import closest_match

NO_KEYS_HERE: Final = (
    "API keys do not belong in a manifest, which is stored and shared; put the key into the"
    " environment or a .env file next to the manifest"
)
_SECRET_KEYS: Final = frozenset({"apikey", "authorization", "accesstoken", "secretkey"})

_EXPECTED: Final = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "union_tag_not_found": "text or a mapping",
}
_BOUNDS: Final = {
    "greater_than": ("gt", "must be more than"),
    "greater_than_equal": ("ge", "must be at least"),
    "less_than_equal": ("le", "must be at most"),
}
_OPTION_NAMES: Final = frozenset(
    {
        "size", "quality", "background", "moderation", "output_format", "output_compression",
        "input_fidelity", "style", "response_format", "user", "stream", "partial_images", "seed",
    }
)  # fmt: skip
"""Request parameters that people put one level too high."""


class Explanation(NamedTuple):
    """What is wrong at a place of the document."""

    path: DocPath
    message: str
    at_key: bool = False


def explain(error: ErrorDetails) -> Explanation:
    """Put one of pydantic's errors into words."""
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    path = document_path(error["loc"])
    if kind == "extra_forbidden":
        name = str(path[-1])
        return Explanation(path, unknown_key(name, _model_at(error["loc"][:-1])), at_key=True)
    if kind == "missing":
        return Explanation(path, "is missing")
    if path[-1:] == ("[key]",):
        return Explanation(path[:-1], str(context["error"]), at_key=True)
    if isinstance(value, Null) and kind != "value_error":
        return Explanation(path, "is empty; write a value, or remove the key")
    if kind == "value_error":
        return Explanation(path, str(context["error"]))
    if kind in ("string_too_short", "too_short"):
        return Explanation(path, "is empty")
    if kind in _BOUNDS:
        bound, words = _BOUNDS[kind]
        return Explanation(path, f"{words} {context[bound]:,g}, got {shown(value)}")
    expected = _EXPECTED.get(kind) or context.get("expected", "something else").replace("'", "")
    return Explanation(path, f"expected {expected}, got {shown(value)}{_remedy(kind, path, value)}")


def document_path(loc: tuple[int | str, ...]) -> DocPath:
    """Pydantic's place without the names of the branches it tried in unions."""
    if loc[:1] == ("jobs",):
        return loc[:2] + loc[3:]
    return loc[:1] + loc[2:] if loc[:1] in (("provider",), ("rows",)) else loc


def _model_at(loc: tuple[int | str, ...]) -> type[BaseModel]:
    """Return the class of the mapping at one of pydantic's places."""
    named: dict[int | str, type[BaseModel]] = {
        "provider": ProviderSpec,
        "limits": Limits,
        "output": Output,
        "on_finish": Notifier,
        "rows": SqliteRows if loc[-1:] == ("query",) else FileRows,
    }
    for part in reversed(loc):
        if part in named:
            return named[part]
    return JobEntry if loc else Manifest


def shown(value: object) -> str:
    """Return a short text of a value for a message."""
    match value:
        case Null():
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int() | Decimal() | float():
            return f"the number {value}"
        case Ambiguous(text):
            return f"{_cut(text)}, which YAML readers take for different things"
        case str():
            return f"the text {_cut(value)!r}"
        case list():
            return "a list"
    return "a mapping"


def _cut(text: str) -> str:
    text = SECRET.sub("***", text)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _remedy(kind: str, path: DocPath, value: Any) -> str:
    """Return what to do about a wrong type, if that is clear."""
    written = value.text if isinstance(value, Ambiguous) else value
    if kind == "string_type" and not isinstance(value, list | dict):
        text = str(written).lower() if isinstance(value, bool) else _cut(str(written))
        before = f"{path[-1]}:" if path and isinstance(path[-1], str) else "-"
        return f"; quote it: {before} '{text}'"
    if kind in ("int_type", "float_type") and isinstance(written, str):
        if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]+(\.[0-9]+)?\s*", value):
            return "; leave out the quotes"
        return "; write it in decimal digits, like 12"
    if kind == "list_type" and not isinstance(value, dict):
        return "; put each entry on a line of its own after '- '"
    return ""


@lru_cache(maxsize=1024)
def unknown_key(name: str, model: type[BaseModel]) -> str:
    """Report that a mapping has no such key, with the nearest match."""
    if is_secret(name):
        return NO_KEYS_HERE
    unknown = f"unknown key {_cut(name)!r}"
    legal = list(model.model_fields)
    if issubclass(model, JobSpec) and (place := _right_place(name, model)):
        return f"{unknown}; {place}"
    if meant := closest_match(name, model.model_fields):
        return f"{unknown}; did you mean {meant!r}?"
    if " " in name.strip():
        return f"{unknown}; if it is part of a text with ': ' or ', ' in it, quote the whole text"
    return f"{unknown}; known here: {', '.join(legal)}"


def _right_place(name: str, model: type[JobSpec]) -> str:
    if name == "n":
        return "count: says how many images to make"
    if name in _OPTION_NAMES:
        return f"it belongs below options: as 'options: {{{name}: ...}}'"
    if name in Output.model_fields:
        return "it belongs below output:"
    if model is JobEntry and name in Manifest.model_fields:
        return "it is a key of the whole manifest; move it to the top level"
    if name in Limits.model_fields:
        return "it belongs below limits:, at the top of the manifest"
    return ""


def is_secret(name: str) -> bool:
    """Return whether a key of this name would hold an API key."""
    return re.sub("[^a-z]", "", name.lower()) in _SECRET_KEYS
