"""Models with options, and what depends only on them: fingerprints, rules and kind of the jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Final, TypeAlias

from batchgen.job import JobKind, OptionValue, canonical_json
from batchgen.planning.fingerprint import Fingerprints
from batchgen.planning.job_context import Context, JobFault, OptionSet
from batchgen.planning.job_template import JobTemplate, Part

Render: TypeAlias = Callable[[Part, Mapping[str, object]], str | None]
"""Returns the text of a template; None if it needs a row. Raises JobFault."""

_MAX_SETS: Final = 1_024
_OMIT_MARK: Final = "\ufdd1"
"""The value of ``{{ omit }}``, which leaves an option out. Unicode reserves this code point as a
noncharacter."""


class OptionSets:
    """The option sets of one job template. Each is made once and kept, up to a limit."""

    def __init__(
        self, template: JobTemplate, context: Context, *, of_rows: bool, is_variant: bool
    ) -> None:
        self._template = template
        self._context = context
        self._of_rows = of_rows
        self._is_variant = is_variant
        self._constants: dict[str, OptionValue] = {}
        self._parts: dict[str, Part] = {}
        for name, value in template.options.items():
            if isinstance(value, Part):
                self._parts[name] = value
            else:
                self._constants[name] = value
        self._known = dict[tuple[str, str], OptionSet]()
        is_fixed = not (self._parts or template.model_part or template.broken)
        self.fixed = self._new(template.model, self._constants) if is_fixed else None
        """Model and options of all jobs; None if one of them is a template."""

    @property
    def rendered_names(self) -> frozenset[str]:
        """The options that are templates."""
        return frozenset(self._parts)

    def of_constants(self, model: str) -> OptionSet:
        """Return the set without the options that are templates."""
        return self._of(model, self._constants)

    def rendered(self, model: str, variables: Mapping[str, object], render: Render) -> OptionSet:
        """Return the set of a job after rendering its templates. Raises JobFault."""
        options = dict(self._constants)
        for name, part in self._parts.items():
            uses_omit = "omit" in part.template.names and "omit" not in variables
            text = render(part, {**variables, "omit": _OMIT_MARK} if uses_omit else variables) or ""
            if text.strip() == _OMIT_MARK:
                continue
            if _OMIT_MARK in text:
                raise JobFault(part.place, "omit is only a part of the text; expected it alone")
            options[name] = text
        return self._of(model, options)

    def _of(self, model: str, options: Mapping[str, OptionValue]) -> OptionSet:
        name = (model, canonical_json(options))
        if (known := self._known.get(name)) is None:
            if len(self._known) >= _MAX_SETS:
                self._known.clear()
            known = self._known[name] = self._new(model, options)
        return known

    def _new(self, model: str, options: Mapping[str, OptionValue]) -> OptionSet:
        template, provider = self._template, self._context.provider
        text = canonical_json(options)
        return OptionSet(
            options_text=text,
            fingerprints=Fingerprints(provider, model, text),
            objections=self._context.objections(model, text, 0),
            kind=JobKind(
                provider=provider,
                model=model,
                options=options,
                root=template.root,
                **asdict(template.output),
                refresh=template.refresh,
                tags=template.tags,
                of_rows=self._of_rows,
                is_variant=self._is_variant,
            ),
        )
