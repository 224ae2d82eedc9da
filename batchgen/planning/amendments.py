"""Prompts that a person changed in review, in place of those of the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Amendment:
    """One prompt that was changed in review."""

    prompt: str
    replaced_prompt: str
    """The prompt of the manifest at that time."""


class Amendments:
    """The amendments of a batch by job key, and which of them a plan uses.

    A manifest whose prompt was edited since the amendment is the newer word, so it wins.
    """

    def __init__(self, by_key: Mapping[str, Amendment]) -> None:
        self._by_key = by_key
        self.used: list[str] = []
        """Keys of planned jobs whose prompt differs from that of the manifest."""

    def prompt_of(self, key: str, prompt: str) -> str:
        """Return the prompt to use for a job whose manifest prompt is ``prompt``."""
        found = self._by_key.get(key)
        if found is None or prompt != found.replaced_prompt or prompt == found.prompt:
            return prompt
        self.used.append(key)
        return found.prompt
