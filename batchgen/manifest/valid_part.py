"""Keep the sound part of a manifest with errors, so that its templates can be checked as well.

Nothing is ever made from such a part: it serves to report all errors in one pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, TypeAlias

from pydantic import ValidationError

from batchgen.manifest.model import JobEntry, Manifest
from batchgen.manifest.yaml_reader import DocPath
from batchgen.manifest.yaml_scalars import Value
from batchgen.text import closest_match

PLACEHOLDER: Final = "x"
"""The prompt of jobs without one of their own."""
_NAMES: Final = frozenset({"rows", "matrix", "values"})
"""Without these, every name in a template would be unknown."""

_Object: TypeAlias = dict[str, Value]


class SoundPart(NamedTuple):
    """A manifest without what is wrong in it."""

    manifest: Manifest
    renamed: Mapping[DocPath, str]
    """How misspelled keys are written, by the path of the name that was meant."""


def sound_part(document: _Object, errors: Iterable[DocPath]) -> SoundPart | None:
    """Return the manifest without what is wrong in it, with misspelled keys under their names.

    None if the rest says too little about its templates.
    """
    kept, renamed = _copy(document), dict[DocPath, str]()
    if not isinstance(kept, dict) or not all(_without(kept, path, renamed) for path in errors):
        return None
    try:
        return SoundPart(Manifest.model_validate(kept), renamed)
    except ValidationError:
        return None


def _copy(value: Value) -> Value:
    if isinstance(value, dict):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list) else value


def _without(document: _Object, path: DocPath, renamed: dict[DocPath, str]) -> bool:
    """Remove what is at a path, or the nearest thing around it. Return whether the rest helps."""
    if path in (("rows",), ("matrix",)) and "prompt" not in document:
        document["prompt"] = PLACEHOLDER
        return True
    holder: _Object | list[Value] = document
    last: str | int = ""
    spot: Value = document
    for part in path:
        if isinstance(spot, dict) and isinstance(part, str) and part in spot:
            holder, last, spot = spot, part, spot[part]
        elif isinstance(spot, list) and isinstance(part, int) and part < len(spot):
            if spot is document.get("jobs"):
                holder, last = spot, part
            spot = spot[part]
        else:
            break
    if last == "" or not _NAMES.isdisjoint(map(str, path)):
        return False
    if isinstance(holder, list):
        if isinstance(spot, dict):
            spot["prompt"] = PLACEHOLDER
        else:
            holder[int(last)] = PLACEHOLDER
        return True
    key = str(last)
    names = list((Manifest if holder is document else JobEntry).model_fields)
    value = holder.pop(key)
    if key == "prompt":
        holder["prompt"] = PLACEHOLDER
    elif key not in names and (meant := closest_match(key, names)) and meant not in holder:
        holder[meant] = value
        renamed[(*path[: path.index(key)], meant)] = key
    return True
