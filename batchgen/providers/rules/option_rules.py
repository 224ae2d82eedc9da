"""Rules for option values: what is valid, and the nearest valid value. Pure data and functions."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Final, NamedTuple, Protocol

from batchgen.job import OptionValue

Options = Mapping[str, OptionValue]

_RATIO: Final = re.compile(r"[1-9][0-9]?:[1-9][0-9]?")
_MAX_SHOWN_CHARS: Final = 40


class Refusal(NamedTuple):
    """Why a value is not taken."""

    rule: str
    """The rule it breaks, as a clause."""
    remedy: str
    """The nearest legal value, or how to write one."""


class OptionRule(Protocol):
    """What an option may be."""

    def refusal(self, value: OptionValue) -> Refusal | None:
        """Judge a value; None when it is legal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One of some words."""

    values: tuple[str, ...]
    nearest: Mapping[str, str] = field(default_factory=dict)
    """Words that people write, and the legal one that each comes closest to in meaning."""
    why: str = ""
    """What is said of the values beyond that they are those."""

    def refusal(self, value: OptionValue) -> Refusal | None:
        """Judge a value; capitals count, as they do for the provider."""
        if isinstance(value, str) and value in self.values:
            return None
        rule = f"it is {joined(self.values)}{self.why}"
        word = as_written(value).lower()
        legal = self.nearest.get(word) or closest_word(word, self.values)
        if legal is None and len(self.values) > 1:
            return Refusal(rule, "write one of these")
        return Refusal(rule, nearest_value(legal or self.values[0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Integer:
    """A whole number in a range, ends included."""

    least: int
    most: int

    def refusal(self, value: OptionValue) -> Refusal | None:
        """Judge a value; neither ``true`` nor the text ``"80"`` is a number."""
        if type(value) is int and self.least <= value <= self.most:
            return None
        rule = f"it is a whole number from {self.least} to {self.most}"
        number = _number(value)
        if number is None:
            return Refusal(rule, f"write a number, like {self.most}")
        legal = min(max(round(number), self.least), self.most)
        unquoted = ", without quotes" if isinstance(value, str) else ""
        return Refusal(rule, f"{nearest_value(legal)}{unquoted}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A number in a range, ends included."""

    least: float
    most: float

    def refusal(self, value: OptionValue) -> Refusal | None:
        """Judge a value; neither ``true`` nor the text ``"1"`` is a number."""
        if type(value) in (int, float) and self.least <= float(value) <= self.most:
            return None
        rule = f"it is a number from {self.least:g} to {self.most:g}"
        number = _number(value)
        if number is None:
            return Refusal(rule, f"write a number, like {self.most:g}")
        unquoted = ", without quotes" if isinstance(value, str) else ""
        legal = min(max(float(number), self.least), self.most)
        return Refusal(rule, f"the nearest legal value is {legal:g}{unquoted}")


@dataclass(frozen=True, slots=True)
class Flag:
    """``true`` or ``false``."""

    def refusal(self, value: OptionValue) -> Refusal | None:
        """Judge a value."""
        if isinstance(value, bool):
            return None
        meant = as_written(value).lower()
        if meant in ("true", "false"):
            return Refusal("it is true or false", f"write {meant}, without quotes")
        return Refusal("it is true or false", "write one of these")


@dataclass(frozen=True, slots=True)
class Text:
    """Any text but an empty one."""

    def refusal(self, value: OptionValue) -> Refusal | None:
        """Judge a value."""
        if isinstance(value, str) and value:
            return None
        remedy = "leave it out" if value == "" else f"quote it: '{as_written(value)}'"
        return Refusal("it is a text", remedy)


@dataclass(frozen=True, slots=True)
class ImageUrl:
    """The address of an image that the provider fetches by itself."""

    def refusal(self, value: OptionValue) -> Refusal | None:
        """Judge a value; ``data:`` addresses are none."""
        if isinstance(value, str) and re.match(r"https?://[^/\s]", value):
            return None
        return Refusal(
            "it is the public address of an image", "upload it, and write its https:// address"
        )


@dataclass(frozen=True, slots=True)
class AspectRatio:
    """``auto``, or width to height like ``16:9``."""

    def refusal(self, value: OptionValue) -> Refusal | None:
        """Judge a value."""
        if isinstance(value, str) and (value == "auto" or _RATIO.fullmatch(value)):
            return None
        return Refusal("it is auto, or width to height", "write it like '16:9', in quotes")


def nearest_value(value: OptionValue) -> str:
    return f"the nearest legal value is {as_written(value)}"


def closest_word(word: str, words: Sequence[str]) -> str | None:
    by_lower = {known.lower(): known for known in words}
    found = get_close_matches(word[:100].lower(), by_lower, n=1)
    return by_lower[found[0]] if found else None


def joined(values: Sequence[OptionValue]) -> str:
    words = [as_written(value) for value in values]
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def quoted(value: OptionValue) -> str:
    """A value for a message, a text in quotes."""
    return repr(value[:_MAX_SHOWN_CHARS]) if isinstance(value, str) else as_written(value)


def as_written(value: OptionValue) -> str:
    """A value as it is written in a manifest, lower-case where it is no text of its own."""
    if isinstance(value, str):
        return value.strip()[:_MAX_SHOWN_CHARS]
    return str(value).lower()


def _number(value: OptionValue) -> float | int | None:
    """The number that a value is, or is the text of."""
    if isinstance(value, bool):
        return None
    try:
        number = float(value) if isinstance(value, str) else value
    except ValueError:
        return None
    return number if isinstance(number, int) or math.isfinite(number) else None
