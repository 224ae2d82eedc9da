"""What a model accepts, as data, and what it has against a request: rules before money.

Pure. The data stand beside each provider's profile; no endpoint is asked here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Final

from batchgen.errors import Objection
from batchgen.job import OptionValue
from batchgen.planning.reference_images import Reference
from batchgen.providers.rules.option_rules import (
    OptionRule,
    Options,
    as_written,
    closest_word,
    joined,
    quoted,
)
from batchgen.providers.rules.reference_rules import ReferenceRules

_REFUSED_EVERYWHERE: Final = {"n": "count: says how many images; each is a request of its own"}
"""A gateway bills the images asked for, however many come (Crazyrouter sheet, section 9.4)."""


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
        what = f"{self.option}: {as_written(value)}" if self.when else self.option
        given = (
            quoted(other) if self.other in options else f"{as_written(self.default)}, its default"
        )
        return Objection(
            place=("options", self.option),
            message=(
                f"{what} goes with {self.other}: {joined(self.among)} only, not with"
                f" {given} ({source}); write {self.other}: {as_written(self.among[0])}, or"
                f" leave {self.option} out"
            ),
            options=(self.option, self.other),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Retirement:
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
    retirement: Retirement | None = None


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
            f"there is no option {quoted(name)}, and {rules.unknown_options} ({rules.source});"
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
    return f"{quoted(value)} is refused: {refusal.rule} ({rules.source}); {refusal.remedy}"


def _known_options(rules: ModelRules, name: str) -> str:
    near = closest_word(name, tuple(rules.options))
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
        found = (*self._retirement(model, rules), *faults_of(rules, options, references))
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
        near = closest_word(model, tuple(self.models))
        hint = f"; did you mean {near!r}?" if near else ""
        return Objection(
            place=("model",),
            message=f"no rules are known for {quoted(model)} at {self.provider}, so its options"
            f" are sent unchecked{hint}",
            fatal=False,
        )

    def _retirement(self, model: str, rules: ModelRules) -> Iterator[Objection]:
        end = rules.retirement
        if end is not None:
            over = self.today >= end.day
            yield Objection(
                place=("model",),
                message=f"{model} {'was' if over else 'will be'} shut down on {end.day}"
                f" ({end.source}); its successor is {end.successor}",
                fatal=over,
            )


def _is_among(value: OptionValue, values: Iterable[OptionValue]) -> bool:
    return any(type(value) is type(legal) and value == legal for legal in values)
