"""Choose a few different items from many, such as the prompts of a plan. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_WORD: Final = re.compile(r"\w+")


def most_different(texts: Sequence[str], number: int) -> list[int]:
    """Return the indexes of ``number`` texts that differ the most, in ascending order.

    The first text is always among them. Each further one shares the smallest part of its words with
    those already chosen (Jaccard distance). Takes time proportional to ``number`` times the texts.
    """
    if number <= 0 or not texts:
        return []
    words = [frozenset(_WORD.findall(text.lower())) for text in texts]
    chosen = [0]
    nearest = [_distance(words[0], other) for other in words]
    while len(chosen) < min(number, len(texts)):
        farthest = max(
            (index for index in range(len(texts)) if index not in set(chosen)),
            key=lambda index: (nearest[index], -index),
        )
        chosen.append(farthest)
        nearest = [
            min(distance, _distance(words[farthest], other))
            for distance, other in zip(nearest, words, strict=True)
        ]
    return sorted(chosen)


def most_different_rows(texts: Sequence[str], rows: Sequence[str], number: int) -> list[int]:
    """Return the indexes of at most ``number`` texts, in whole rows that differ the most.

    ``rows`` names the row of each text. Of a first row that is larger, its most different texts.
    """
    members = dict[str, list[int]]()
    for index, row in enumerate(rows):
        members.setdefault(row, []).append(index)
    own = list(members.values())
    fitting = number // max(map(len, own), default=1)
    if not fitting:
        first = own[0] if own else []
        return [first[index] for index in most_different([texts[one] for one in first], number)]
    chosen = most_different([texts[one[0]] for one in own], fitting)
    return sorted(index for row in chosen for index in own[row])


def _distance(one: frozenset[str], other: frozenset[str]) -> float:
    union = len(one | other)
    return 1 - len(one & other) / union if union else 0.0
