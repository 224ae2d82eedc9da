"""Describe how the inputs of an image differ from the current manifest. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Final

from batchgen.job import OptionValue

_WORDS: Final = re.compile(r"\s+|\w+|[^\w\s]")
_AROUND: Final = 6
"""Words shown on each side of a change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeOf:
    """The inputs that determine an image.

    The fingerprint also covers the bytes of reference images; the other fields only name them.
    """

    fingerprint: str
    model: str
    prompt: str
    options: Mapping[str, OptionValue]
    images: tuple[str, ...]
    mask: str | None


def differences(made: MadeOf, planned: MadeOf) -> list[str]:
    """Return one line per input that differs, including reference images whose bytes changed."""
    if made.fingerprint == planned.fingerprint:
        return []
    lines = []
    if made.model != planned.model:
        lines.append(f"model: {made.model} -> {planned.model}")
    if made.prompt != planned.prompt:
        lines.append(f"prompt: {word_diff(made.prompt, planned.prompt)}")
    for name in sorted({*made.options, *planned.options}):
        before, after = made.options.get(name), planned.options.get(name)
        if before != after:
            lines.append(f"options.{name}: {_shown(before)} -> {_shown(after)}")
    if made.images != planned.images:
        lines.append(f"images: {_list(made.images)} -> {_list(planned.images)}")
    if made.mask != planned.mask:
        lines.append(f"mask: {_shown(made.mask)} -> {_shown(planned.mask)}")
    if not lines:
        other = "the bytes of a reference image" if planned.images else "the provider"
        lines.append(f"{other} changed; the manifest did not")
    return lines


def word_diff(before: str, after: str) -> str:
    """Return the new text with ``[-removed-]`` and ``{+added+}`` words; long equal runs are cut."""
    old, new = _WORDS.findall(before), _WORDS.findall(after)
    return "".join(_stretches(old, new))


def _stretches(old: list[str], new: list[str]) -> Iterator[str]:
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        removed, added = "".join(old[a:b]), "".join(new[c:d])
        if kind == "equal":
            yield _cut(old[a:b], first=a == 0, last=b == len(old))
            continue
        if removed:
            yield f"[-{removed}-]"
        if added:
            yield f"{{+{added}+}}"


def _cut(words: list[str], *, first: bool, last: bool) -> str:
    if len(words) <= 4 * _AROUND:
        return "".join(words)
    head = "" if first else "".join(words[: 2 * _AROUND])
    tail = "" if last else "".join(words[-2 * _AROUND :])
    return f"{head}…{tail}"


def _shown(value: object) -> str:
    return (
        "nothing"
        if value is None
        else str(value).lower()
        if isinstance(value, bool)
        else str(value)
    )


def _list(values: tuple[str, ...]) -> str:
    return ", ".join(values) or "none"
