"""What changed between what an image was made of and what the manifest says now. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Final

from batchgen.job import OptionValue

_WORDS: Final = re.compile(r"\s+|\w+|[^\w\s]")
_AROUND: Final = 6
"""Words that are shown beside a change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeOf:
    """What determines an image, and its fingerprint, which knows the bytes of references too."""

    fingerprint: str
    model: str
    prompt: str
    options: Mapping[str, OptionValue]
    images: tuple[str, ...]
    mask: str | None


def differences(made: MadeOf, planned: MadeOf) -> list[str]:
    """One line for each thing that differs; of references with equal names, their bytes."""
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
        lines.append(f"{other} changed; the manifest says the same")
    return lines


def word_diff(before: str, after: str) -> str:
    """The later text with ``[-what went-]`` and ``{+what came+}``; equal stretches are cut."""
    old, new = _WORDS.findall(before), _WORDS.findall(after)
    return "".join(_stretches(old, new))


def _stretches(old: list[str], new: list[str]) -> Iterator[str]:
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        went, came = "".join(old[a:b]), "".join(new[c:d])
        if kind == "equal":
            yield _cut(old[a:b], first=a == 0, last=b == len(old))
            continue
        if went:
            yield f"[-{went}-]"
        if came:
            yield f"{{+{came}+}}"


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
