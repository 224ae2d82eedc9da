"""Which column of a manifest's table made the provider refuse prompts, told by their words.

A guess for a person: providers say that they refuse a prompt, never why.
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
    """A refused prompt, and the row that it was made of."""

    key: str
    source: str
    prompt: str
    values: Mapping[str, object] = field(default_factory=dict)
    """The row's columns; empty where the row can't be had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """What some refused prompts have in common, and no prompt of an image has."""

    column: str | None
    """None where no column is known to hold the word."""
    word: str | None
    """None where the prompts have no such word at all."""
    prompts: tuple[BlockedPrompt, ...]


def words_of(text: str) -> set[str]:
    """The words of a text, of two letters at least, without regard to case."""
    return {word.casefold() for word in _WORD.findall(text)}


def suspects(blocked: Sequence[BlockedPrompt], made: Iterable[str]) -> list[Suspect]:
    """Group refused prompts by the column and the word they share, the most common one first.

    Words of prompts that were ``made`` into images are above suspicion. Of equal counts the
    longer word is taken.
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
    """Column and word of all that may have been refused; without a column where none holds it."""
    words = words_of(blocked.prompt) - cleared
    traits = {
        (column, word)
        for column, value in blocked.values.items()
        for word in words & words_of(str(value))
    }
    # A table that has changed since need not hold what the prompt was made of.
    return traits or {("", word) for word in words}
