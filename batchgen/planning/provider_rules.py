"""What a provider's rules say of jobs, as a plan consults them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Protocol

from batchgen.errors import Objection
from batchgen.job import OptionValue
from batchgen.planning.reference_images import Reference


class Rules(Protocol):
    """What a provider accepts. Must be pure: it is asked once for equal options."""

    def of_request(
        self, model: str, options: Mapping[str, OptionValue], references: int
    ) -> Sequence[Objection]:
        """What there is against these options and so many reference images."""

    def of_prompt(self, model: str, characters: int) -> Objection | None:
        """What there is against a prompt of this length; nothing, if a longer one is accepted."""

    def of_references(
        self, model: str, images: Sequence[Reference], mask: Reference | None
    ) -> Sequence[Objection]:
        """What there is against these images, at ``("images", number)`` or ``("mask",)``."""


def remembered(rules: Rules | None) -> Callable[[str, str, int], Sequence[Objection]]:
    """The rules, asked once for equal options."""
    if rules is None:
        return lambda model, options_text, references: ()

    @lru_cache(maxsize=1024)
    def ask(model: str, options_text: str, references: int) -> Sequence[Objection]:
        return tuple(rules.of_request(model, json.loads(options_text), references))

    return ask
