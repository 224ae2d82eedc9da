"""Rules for option values: which are valid, and the nearest valid value. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from batchgen.job import OptionValue
from batchgen.text import closest_match

Options = Mapping[str, OptionValue]

_RATIO: Final = re.compile(r"[1-9][0-9]?:[1-9][0-9]?")
_MAX_SHOWN_CHARS: Final = 40


class Refusal(NamedTuple):
    """Why a value is invalid."""

    rule: str
    """The rule that it breaks, as a clause."""
    remedy: str
    """The nearest valid value, or how to write one."""


class OptionRule(Protocol):
    """The rule for one option."""

    def refusal(self, value: OptionValue) -> Refusal | None:
        """Return why a value is invalid; None if it is valid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One of several words."""

    values: tuple[str, ...]
    nearest: Mapping[str, str] = field(default_factory=dict)
    """Words that people write, each with the valid word of the closest meaning."""
    why: str = ""
    """A clause that follows the list of values in messages."""

    def refusal(self, value: OptionValue) -> Refusal | None:
        """Check a value. Case matters, as it does for the provider."""
        if isinstance(value, str) and value in self.values:
            return None
        rule = f"expected {joined(self.values)}{self.why}"
        word = as_written(value).lower()
        legal = self.nearest.get(word) or closest_match(word, self.values)
        if legal is None and len(self.values) > 1:
            return Refusal(rule, "use one of these")
        return Refusal(rule, nearest_value(legal or self.values[0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Integer:
    """A whole number in a range, ends included."""

    least: int
    most: int

    def refusal(self, value: OptionValue) -> Refusal | None:
        """Check a value; neither ``true`` nor the text ``"80"`` is a number."""
        if type(value) is int and self.least <= value <= self.most:
            return None
        rule = f"expected an integer from {self.least} to {self.most}"
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
        """Check a value; neither ``true`` nor the text ``"1"`` is a number."""
        if type(value) in (int, float) and self.least <= float(value) <= self.most:
            return None
        rule = f"expected a number from {self.least:g} to {self.most:g}"
        number = _number(value)
        if number is None:
            return Refusal(rule, f"write a number, like {self.most:g}")
        unquoted = ", without quotes" if isinstance(value, str) else ""
        legal = min(max(float(number), self.least), self.most)
        return Refusal(rule, f"the nearest valid value is {legal:g}{unquoted}")


@dataclass(frozen=True, slots=True)
class Flag:
    """``true`` or ``false``."""

    def refusal(self, value: OptionValue) -> Refusal | None:
        """Check a value."""
        if isinstance(value, bool):
            return None
        meant = as_written(value).lower()
        if meant in ("true", "false"):
            return Refusal("expected true or false", f"write {meant} without quotes")
        return Refusal("expected true or false", "use one of these")


@dataclass(frozen=True, slots=True)
class Text:
    """Any text except the empty one."""

    def refusal(self, value: OptionValue) -> Refusal | None:
        """Check a value."""
        if isinstance(value, str) and value:
            return None
        remedy = "remove it" if value == "" else f"quote it: '{as_written(value)}'"
        return Refusal("expected text", remedy)


@dataclass(frozen=True, slots=True)
class ImageUrl:
    """The URL of an image that the provider downloads."""

    def refusal(self, value: OptionValue) -> Refusal | None:
        """Check a value; ``data:`` URLs are invalid."""
        if isinstance(value, str) and re.match(r"https?://[^/\s]", value):
            return None
        return Refusal(
            "expected the public URL of an image", "upload the image and use its https:// URL"
        )


@dataclass(frozen=True, slots=True)
class AspectRatio:
    """``auto``, or a ratio of width to height like ``16:9``."""

    def refusal(self, value: OptionValue) -> Refusal | None:
        """Check a value."""
        if isinstance(value, str) and (value == "auto" or _RATIO.fullmatch(value)):
            return None
        return Refusal("expected auto or width:height", "write it like '16:9', in quotes")


def nearest_value(value: OptionValue) -> str:
    """Return the remedy that names a valid value."""
    return f"the nearest valid value is {as_written(value)}"


def joined(values: Sequence[OptionValue]) -> str:
    """Return the values as ``a, b or c``."""
    words = [as_written(value) for value in values]
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def quoted(value: OptionValue) -> str:
    """Return a value for a message, with text in quotes."""
    return repr(value[:_MAX_SHOWN_CHARS]) if isinstance(value, str) else as_written(value)


def as_written(value: OptionValue) -> str:
    """Return a value as a manifest spells it, without quotes."""
    if isinstance(value, str):
        return value.strip()[:_MAX_SHOWN_CHARS]
    return str(value).lower()


def _number(value: OptionValue) -> float | int | None:
    """Return a number, or the number that a text contains; None for anything else."""
    if isinstance(value, bool):
        return None
    try:
        number = float(value) if isinstance(value, str) else value
    except ValueError:
        return None
    return number if isinstance(number, int) or math.isfinite(number) else None
