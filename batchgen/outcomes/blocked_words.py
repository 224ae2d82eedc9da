"""Guess which table column made the provider block prompts, by their common words.

The guess is for a person: providers do not say which word of a prompt they blocked.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

_WORD: Final = re.compile(r"\w[\w'-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockedPrompt:
    """A blocked prompt, and the row that it was rendered from."""

    key: str
    source: str
    prompt: str
    values: Mapping[str, object] = field(default_factory=dict)
    """The row's columns; empty if the row cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A word that several blocked prompts share and no successful prompt contains."""

    column: str | None
    """None if no column is known to contain the word."""
    word: str | None
    """None if the prompts share no such word."""
    prompts: tuple[BlockedPrompt, ...]


def words_of(text: str) -> set[str]:
    """Return the words of a text in lower case, each with at least two characters."""
    return {word.casefold() for word in _WORD.findall(text)}


def suspects(blocked: Sequence[BlockedPrompt], made: Iterable[str]) -> list[Suspect]:
    """Group blocked prompts by the column and word they share, the most common first.

    Words in the prompts of ``made`` images are excluded. For equal counts, the longer word wins.
    """
    cleared: set[str] = set()
    for prompt in made:
        cleared |= words_of(prompt)
    left = [(one, _traits(one, cleared)) for one in blocked]
    found = []
    while counts := Counter(trait for _, traits in left for trait in traits):
        column, word = min(counts, key=lambda trait: (-counts[trait], -len(trait[1]), trait))
        shared = tuple(one for one, traits in left if (column, word) in traits)
        found.append(Suspect(column=column or None, word=word, prompts=shared))
        left = [(one, traits) for one, traits in left if (column, word) not in traits]
    if left:
        found.append(Suspect(column=None, word=None, prompts=tuple(one for one, _ in left)))
    return found


def _traits(blocked: BlockedPrompt, cleared: set[str]) -> set[tuple[str, str]]:
    """Return the suspected (column, word) pairs; the column is empty if no column has the word."""
    words = words_of(blocked.prompt) - cleared
    traits = {
        (column, word)
        for column, value in blocked.values.items()
        for word in words & words_of(str(value))
    }
    # The table may have changed since the prompt was rendered.
    return traits or {("", word) for word in words}
