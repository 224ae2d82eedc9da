"""What a model accepts, as data, and what it has against a request: rules before money.

Pure. The data stand beside each provider's profile; no endpoint is asked here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Final, NamedTuple, Protocol

from batchgen.errors import Objection
from batchgen.job import OptionValue
from batchgen.planning.reference_images import Reference
from batchgen.providers.rules.reference_rules import ReferenceRules
from batchgen.text import closest_match

Options = Mapping[str, OptionValue]

_SIZE: Final = re.compile(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})")
_MEANT_AS_SIZE: Final = re.compile(r"([0-9]{1,6}) ?(?:x|\*|\u00d7|by) ?([0-9]{1,6})(?: ?px)?")
_RATIO: Final = re.compile(r"[1-9][0-9]?:[1-9][0-9]?")
_MAX_SHOWN_CHARS: Final = 40

_REFUSED_EVERYWHERE: Final = {"n": "count: says how many images; each is a request of its own"}
"""A gateway bills the images asked for, however many come (Crazyrouter sheet, section 9.4)."""


# Values


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
        rule = f"it is {_either(self.values)}{self.why}"
        word = _plain(value).lower()
        legal = self.nearest.get(word) or closest_match(word, self.values)
        if legal is None and len(self.values) > 1:
            return Refusal(rule, "write one of these")
        return Refusal(rule, _nearest_is(legal or self.values[0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
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
        return Refusal(rule, f"{_nearest_is(legal)}{unquoted}")


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
        meant = _plain(value).lower()
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
        remedy = "leave it out" if value == "" else f"quote it: '{_plain(value)}'"
        return Refusal("it is a text", remedy)


@dataclass(frozen=True, slots=True)
class WebAddress:
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


# Sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeGrid:
    """``auto``, or any ``WIDTHxHEIGHT`` within bounds whose sides are multiples of a step."""

    step: int
    max_side: int
    min_pixels: int
    max_pixels: int
    max_ratio: int
    """Long side to short side."""

    def refusal(self, value: OptionValue) -> Refusal | None:
        """Judge a value, and compute the nearest legal size."""
        if value == "auto":
            return None
        form, meant = "it is auto or WIDTHxHEIGHT in pixels", _meant(value)
        if meant is None:
            return Refusal(form, "write it like 1024x1024")
        well_written = isinstance(value, str) and _SIZE.fullmatch(value)
        rule = " and ".join(self._broken(*meant)) if well_written else form
        if not rule:
            return None
        return Refusal(rule, _nearest_is(_as_text(nearest_legal_size(self, *meant))))

    def is_legal(self, width: int, height: int) -> bool:
        """Whether a size in pixels keeps all the rules."""
        return not any(self._broken(width, height))

    def _broken(self, width: int, height: int) -> Iterator[str]:
        pixels = width * height
        if width % self.step or height % self.step:
            yield f"both sides are multiples of {self.step}"
        if max(width, height) > self.max_side:
            yield f"no side is over {self.max_side}"
        if pixels < self.min_pixels:
            yield f"it has at least {self.min_pixels:,} pixels, not {pixels:,}"
        if pixels > self.max_pixels:
            yield f"it has at most {self.max_pixels:,} pixels, not {pixels:,}"
        if max(width, height) > self.max_ratio * min(width, height):
            yield f"the long side is at most {self.max_ratio} times the short one"


def nearest_legal_size(grid: SizeGrid, width: int, height: int) -> tuple[int, int]:
    """The size that keeps the ratio as well as the grid allows; not smaller, where there is one.

    Width and height in pixels, each at least 1.
    """
    if grid.is_legal(width, height):
        return width, height
    ideal_width, ideal_height = _within_bounds(grid, width, height)

    def cost(size: tuple[int, int]) -> tuple[bool, float]:
        smaller = size[0] < width or size[1] < height
        return smaller, abs(size[0] - ideal_width) + abs(size[1] - ideal_height)

    return min(_near_sizes(grid, ideal_height), key=cost)


def _within_bounds(grid: SizeGrid, width: int, height: int) -> tuple[float, float]:
    """The size stretched to a legal ratio and then scaled into the bounds, still off the grid."""
    wide = max(float(width), height / grid.max_ratio)
    high = max(float(height), width / grid.max_ratio)
    pixels = wide * high
    scale = max(1.0, math.sqrt(grid.min_pixels / pixels))
    scale = min(scale, math.sqrt(grid.max_pixels / pixels), grid.max_side / max(wide, high))
    return wide * scale, high * scale


def _near_sizes(grid: SizeGrid, height: float) -> Iterator[tuple[int, int]]:
    """For each width of the grid the legal heights next to ``height``, below and above it."""
    step, side = grid.step, grid.max_side
    for width in range(step, side + 1, step):
        least = max(-(-width // grid.max_ratio), -(-grid.min_pixels // width))
        most = min(side, grid.max_ratio * width, grid.max_pixels // width)
        first, last = -(-least // step), most // step
        if first <= last:
            for steps in {math.floor(height / step), math.ceil(height / step)}:
                yield width, step * min(max(steps, first), last)


@dataclass(frozen=True, slots=True)
class SizeList:
    """``auto`` where it is listed, or one of a few sizes."""

    values: tuple[str, ...]

    def refusal(self, value: OptionValue) -> Refusal | None:
        """Judge a value; the nearest legal one is that of the nearest ratio."""
        if isinstance(value, str) and value in self.values:
            return None
        rule = f"it is {_either(self.values)}"
        size = _meant(value)
        if size is None:
            return Refusal(rule, "write one of these")
        return Refusal(rule, _nearest_is(min(self._sizes(), key=lambda legal: _apart(legal, size))))

    def _sizes(self) -> Iterator[str]:
        return (value for value in self.values if _SIZE.fullmatch(value))


@dataclass(frozen=True, slots=True)
class AnySize:
    """``WIDTHxHEIGHT`` of a model that publishes no bounds."""

    def refusal(self, value: OptionValue) -> Refusal | None:
        """Judge a value by its form alone."""
        if isinstance(value, str) and _SIZE.fullmatch(value):
            return None
        meant = _meant(value)
        remedy = _nearest_is(_as_text(meant)) if meant else "write it like 1024x1024"
        return Refusal("it is WIDTHxHEIGHT in pixels", remedy)


def _meant(value: OptionValue) -> tuple[int, int] | None:
    """The size that somebody wrote in another way, like ``1024 X 1024``."""
    match = _MEANT_AS_SIZE.fullmatch(_plain(value).lower())
    return (max(int(match[1]), 1), max(int(match[2]), 1)) if match else None


def _apart(legal: str, size: tuple[int, int]) -> tuple[float, float]:
    width, height = map(int, legal.split("x"))
    ratio = math.log(width * size[1] / (height * size[0]))
    return abs(ratio), abs(width * height - size[0] * size[1])


def _as_text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


# Models


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """An option, or some values of it, that only goes with some values of another option."""

    option: str
    when: tuple[OptionValue, ...] = ()
    """The values that it holds for; empty for all."""
    other: str
    among: tuple[OptionValue, ...]
    default: OptionValue
    """What the other option is where it is left out."""

    def objection(self, options: Options, source: str) -> Objection | None:
        """What is wrong, if anything is."""
        value, other = options.get(self.option), options.get(self.other, self.default)
        if value is None or (self.when and not _is_among(value, self.when)):
            return None
        if _is_among(other, self.among):
            return None
        what = f"{self.option}: {_plain(value)}" if self.when else self.option
        given = _shown(other) if self.other in options else f"{_plain(self.default)}, its default"
        return Objection(
            place=("options", self.option),
            message=(
                f"{what} goes with {self.other}: {_either(self.among)} only, not with"
                f" {given} ({source}); write {self.other}: {_plain(self.among[0])}, or"
                f" leave {self.option} out"
            ),
            options=(self.option, self.other),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shutdown:
    """The announced end of a model."""

    day: date
    successor: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRules:
    """What one model accepts at one provider."""

    source: str
    """Who says so and when, for messages: ``Crazyrouter's page on gpt-image-2, June 2026``."""
    options: Mapping[str, OptionRule]
    refused: Mapping[str, str] = field(default_factory=dict)
    """Options that are known and not taken, each with what to do instead."""
    unknown_options: str
    """What becomes of an option that the model does not know, as a clause."""
    conditions: tuple[Condition, ...] = ()
    without_references: frozenset[str] = frozenset()
    """Options of generations, which edits do not take."""
    with_references: frozenset[str] = frozenset()
    """Options of edits, which generations do not take."""
    max_references: int = 0
    references_instead: str = "leave images: out"
    references: ReferenceRules | None = None
    """None where nothing is published, or none is taken."""
    max_prompt_chars: int | None = None
    """None where no limit is published."""
    shutdown: Shutdown | None = None


def faults_of(rules: ModelRules, options: Options, references: int) -> tuple[Objection, ...]:
    """Everything that a model has against these options and so many reference images.

    Each message says what is wrong, by which rule of whom, and what would be right.
    """
    of_values = tuple(_value_objections(rules, options, references))
    wrong = {name for objection in of_values for name in objection.options}
    of_pairs = (
        condition.objection(options, rules.source)
        for condition in rules.conditions
        if wrong.isdisjoint({condition.option, condition.other})
    )
    return (*of_values, *filter(None, of_pairs), *_reference_objections(rules, references))


def _value_objections(rules: ModelRules, options: Options, references: int) -> Iterator[Objection]:
    for name, value in options.items():
        message = _refused_option(rules, name, references) or _refused_value(rules, name, value)
        if message:
            yield Objection(place=("options", name), message=message, options=(name,))


def _refused_option(rules: ModelRules, name: str, references: int) -> str | None:
    instead = rules.refused.get(name) or _REFUSED_EVERYWHERE.get(name)
    if instead:
        return f"{name} is not taken ({rules.source}); {instead}"
    if name not in rules.options:
        return (
            f"there is no option {_shown(name)}, and {rules.unknown_options} ({rules.source});"
            f" {_known_options(rules, name)}"
        )
    if references and name in rules.without_references:
        return f"{name} is not taken with reference images ({rules.source}); leave it out"
    if not references and name in rules.with_references:
        return f"{name} is taken with reference images only ({rules.source}); leave it out"
    return None


def _refused_value(rules: ModelRules, name: str, value: OptionValue) -> str | None:
    refusal = rules.options[name].refusal(value)
    if refusal is None:
        return None
    return f"{_shown(value)} is refused: {refusal.rule} ({rules.source}); {refusal.remedy}"


def _known_options(rules: ModelRules, name: str) -> str:
    near = closest_match(name, rules.options)
    if near is not None:
        return f"did you mean {near!r}?"
    return f"known are {', '.join(rules.options)}; if it is new, write rules: warn"


def _reference_objections(rules: ModelRules, references: int) -> Iterator[Objection]:
    if references <= rules.max_references:
        return
    most = f"at most {rules.max_references} reference images are taken, not {references:,}"
    what = most if rules.max_references else "reference images are not taken"
    yield Objection(
        place=("images",), message=f"{what} ({rules.source}); {rules.references_instead}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rulebook:
    """The rules of a provider on a day, as the planner asks them."""

    provider: str
    models: Mapping[str, ModelRules]
    today: date
    refuse: bool = True
    """Whether what breaks a rule is refused, or only warned of."""

    def of_request(self, model: str, options: Options, references: int) -> tuple[Objection, ...]:
        """What there is to say of a request; an unknown model is warned of and passes."""
        rules = self.models.get(model)
        if rules is None:
            return (self._unknown(model),)
        found = (*self._shutdown(model, rules), *faults_of(rules, options, references))
        return tuple(map(self._weighed, found))

    def of_prompt(self, model: str, characters: int) -> Objection | None:
        """What there is to say of a prompt's length."""
        rules = self.models.get(model)
        if rules is None or rules.max_prompt_chars is None or characters <= rules.max_prompt_chars:
            return None
        return self._weighed(
            Objection(
                place=("prompt",),
                message=f"the prompt is longer than the {rules.max_prompt_chars:,} characters that"
                f" the model takes ({rules.source}); shorten it",
            )
        )

    def of_references(
        self, model: str, images: Sequence[Reference], mask: Reference | None
    ) -> tuple[Objection, ...]:
        """What there is to say of the images that are sent along."""
        rules = self.models.get(model)
        if rules is None or rules.references is None:
            return ()
        return tuple(map(self._weighed, rules.references.objections(images, mask)))

    def _weighed(self, objection: Objection) -> Objection:
        if self.refuse or not objection.fatal:
            return objection
        return replace(objection, fatal=False)

    def _unknown(self, model: str) -> Objection:
        near = closest_match(model, self.models)
        hint = f"; did you mean {near!r}?" if near else ""
        return Objection(
            place=("model",),
            message=f"no rules are known for {_shown(model)} at {self.provider}, so its options"
            f" are sent unchecked{hint}",
            fatal=False,
        )

    def _shutdown(self, model: str, rules: ModelRules) -> Iterator[Objection]:
        end = rules.shutdown
        if end is not None:
            over = self.today >= end.day
            yield Objection(
                place=("model",),
                message=f"{model} {'was' if over else 'will be'} shut down on {end.day}"
                f" ({end.source}); its successor is {end.successor}",
                fatal=over,
            )


# Words


def _nearest_is(value: OptionValue) -> str:
    return f"the nearest legal value is {_plain(value)}"


def _is_among(value: OptionValue, values: Iterable[OptionValue]) -> bool:
    return any(type(value) is type(legal) and value == legal for legal in values)


def _either(values: Sequence[OptionValue]) -> str:
    words = [_plain(value) for value in values]
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _shown(value: OptionValue) -> str:
    """A value for a message, a text in quotes."""
    return repr(value[:_MAX_SHOWN_CHARS]) if isinstance(value, str) else _plain(value)


def _plain(value: OptionValue) -> str:
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
