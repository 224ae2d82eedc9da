"""The rules of models as data, and the check of a request against them before it costs money.

Pure. The data is in each provider's module; no endpoint is contacted here.
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
    joined,
    quoted,
)
from batchgen.providers.rules.reference_rules import ReferenceRules
from batchgen.text import closest_match

_REFUSED_EVERYWHERE: Final = {"n": "use count: for several images; each is a separate request"}
"""Some providers charge for the requested ``n`` even if fewer images arrive
(https://github.com/QuantumNous/new-api/pull/3512)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """An option, or some of its values, that requires certain values of another option."""

    option: str
    when: tuple[OptionValue, ...] = ()
    """The values that it applies to; empty for all."""
    other: str
    among: tuple[OptionValue, ...]
    default: OptionValue
    """The value of the other option if it is not set."""

    def objection(self, options: Options, source: str) -> Objection | None:
        """Return the violation, or None."""
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
                f"{what} requires {self.other}: {joined(self.among)}, not {given} ({source});"
                f" use {self.other}: {as_written(self.among[0])}, or remove {self.option}"
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
    """The rules of one model at one provider."""

    source: str
    """Origin and date for messages: ``Crazyrouter's page on gpt-image-2, June 2026``."""
    options: Mapping[str, OptionRule]
    refused: Mapping[str, str] = field(default_factory=dict)
    """Known options that are not supported, each with its remedy."""
    unknown_options: str
    """How the provider treats an unknown option, as a clause."""
    conditions: tuple[Condition, ...] = ()
    without_references: frozenset[str] = frozenset()
    """Options of generations that edits do not support."""
    with_references: frozenset[str] = frozenset()
    """Options of edits that generations do not support."""
    max_references: int = 0
    references_instead: str = "remove images:"
    references: ReferenceRules | None = None
    """None if no rules are published, or the model takes no references."""
    max_prompt_chars: int | None = None
    """None if no limit is published."""
    retirement: Retirement | None = None


def faults_of(rules: ModelRules, options: Options, references: int) -> tuple[Objection, ...]:
    """Return all violations by these options and this number of reference images.

    Each message states the error, the rule with its source, and a remedy.
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
        return f"{name} is not supported ({rules.source}); {instead}"
    if name not in rules.options:
        return (
            f"unknown option {quoted(name)}: {rules.unknown_options} ({rules.source});"
            f" {_known_options(rules, name)}"
        )
    if references and name in rules.without_references:
        return f"{name} is not supported with reference images ({rules.source}); remove it"
    if not references and name in rules.with_references:
        return f"{name} requires reference images ({rules.source}); remove it"
    return None


def _refused_value(rules: ModelRules, name: str, value: OptionValue) -> str | None:
    refusal = rules.options[name].refusal(value)
    if refusal is None:
        return None
    return f"invalid value {quoted(value)}: {refusal.rule} ({rules.source}); {refusal.remedy}"


def _known_options(rules: ModelRules, name: str) -> str:
    near = closest_match(name, rules.options)
    if near is not None:
        return f"did you mean {near!r}?"
    return f"known options are {', '.join(rules.options)}; for a new option, set rules: warn"


def _reference_objections(rules: ModelRules, references: int) -> Iterator[Objection]:
    if references <= rules.max_references:
        return
    most = f"at most {rules.max_references} reference images are supported, not {references:,}"
    what = most if rules.max_references else "reference images are not supported"
    yield Objection(
        place=("images",), message=f"{what} ({rules.source}); {rules.references_instead}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rulebook:
    """The rules of a provider on one day, for the planner."""

    provider: str
    models: Mapping[str, ModelRules]
    today: date
    refuse: bool = True
    """Whether a violation is an error. Otherwise it is a warning."""

    def of_request(self, model: str, options: Options, references: int) -> tuple[Objection, ...]:
        """Return the objections to a request; an unknown model gets a warning only."""
        rules = self.models.get(model)
        if rules is None:
            return (self._unknown(model),)
        found = (*self._retirement(model, rules), *faults_of(rules, options, references))
        return tuple(map(self._weighed, found))

    def of_prompt(self, model: str, characters: int) -> Objection | None:
        """Return the objection to the length of a prompt, or None."""
        rules = self.models.get(model)
        if rules is None or rules.max_prompt_chars is None or characters <= rules.max_prompt_chars:
            return None
        return self._weighed(
            Objection(
                place=("prompt",),
                # Without the length of the prompt: equal messages are reported once.
                message=f"the prompt is longer than the limit of {rules.max_prompt_chars:,}"
                f" characters ({rules.source}); shorten it",
            )
        )

    def of_references(
        self, model: str, images: Sequence[Reference], mask: Reference | None
    ) -> tuple[Objection, ...]:
        """Return the objections to the reference images and the mask."""
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
            message=f"no rules are known for model {quoted(model)} at {self.provider}, so its"
            f" options are not checked{hint}",
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
