"""The interface through which a plan consults the provider's rules."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Protocol

from batchgen.errors import Objection
from batchgen.job import OptionValue
from batchgen.planning.reference_images import Reference


class Rules(Protocol):
    """What a provider accepts. Implementations are pure: results are cached per set of options."""

    def of_request(
        self, model: str, options: Mapping[str, OptionValue], references: int
    ) -> Sequence[Objection]:
        """Return objections to the options and the number of reference images."""

    def of_prompt(self, model: str, characters: int) -> Objection | None:
        """Return an objection to the length of a prompt. None also holds for shorter prompts."""

    def of_references(
        self, model: str, images: Sequence[Reference], mask: Reference | None
    ) -> Sequence[Objection]:
        """Return objections to the images, placed at ``("images", number)`` or ``("mask",)``."""


def cached(rules: Rules | None) -> Callable[[str, str, int], Sequence[Objection]]:
    """Return `Rules.of_request` with a cache; it takes the options as canonical JSON."""
    if rules is None:
        return lambda model, options_text, references: ()

    @lru_cache(maxsize=1024)
    def ask(model: str, options_text: str, references: int) -> Sequence[Objection]:
        return tuple(rules.of_request(model, json.loads(options_text), references))

    return ask
