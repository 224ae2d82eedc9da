"""Job templates: everything a manifest or an explicit job says about the jobs it produces.

Templates are compiled and inheritance is resolved here, once per manifest or explicit job.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from math import prod
from typing import Final

from batchgen.job import OptionValue, OutputOptions
from batchgen.manifest.field_types import MatrixValue
from batchgen.manifest.loader import DocPath, LoadedManifest
from batchgen.manifest.model import JobSpec, Output
from batchgen.manifest.sandbox import TemplateError
from batchgen.manifest.table import normal_name, normal_names
from batchgen.manifest.template import (
    Expression,
    Template,
    compile_expression,
    compile_template,
    is_plain,
)
from batchgen.planning.faults import Faults
from batchgen.planning.naming import safe_path

MAX_JOBS_PER_LINE: Final = 1_000_000
"""Matrix combinations times count, per row or explicit job. A larger product is a typo."""

_BUILT_IN_VARIABLES: Final = frozenset({"ext", "index", "key", "row"})
"""Names that a matrix must not use, because templates see these variables under them."""
_OUTPUT_OPTIONS: Final = tuple(option.name for option in fields(OutputOptions))


@dataclass(frozen=True, slots=True)
class Part:
    """One compiled template of a job and its place, relative to the job."""

    template: Template
    place: DocPath
    of_rows: bool = False
    """Written for table rows. An explicit job without the columns it uses skips it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTemplate:
    """The settings of a manifest or explicit job, inherited ones included."""

    broken: bool = False
    """Faults were reported already, so no job is made from it."""
    at: DocPath = ()
    """The innermost place that sets model, options or images: errors about them point there."""
    model: str
    model_part: Part | None = None
    """Template of the model; ``model`` is that of a job without the names it needs."""
    key: Part | None = None
    prompt: Part | None = None
    options: Mapping[str, OptionValue | Part] = field(default_factory=dict)
    images: tuple[Part, ...] = ()
    mask: Part | None = None
    matrix: Mapping[str, Sequence[MatrixValue]] = field(default_factory=dict)
    count: int = 1
    root: str
    path: Part
    output: OutputOptions = field(default_factory=OutputOptions)
    refresh: str = "changed"
    tags: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[Part, ...]:
        """All templates of a job."""
        options = [value for value in self.options.values() if isinstance(value, Part)]
        single = (self.model_part, self.key, self.prompt, self.mask, self.path)
        return (*(part for part in single if part is not None), *self.images, *options)


DEFAULT_PATH: Final = Part(Template("{{ key }}.{{ ext }}"), ("output", "path"))


def default_job_template(model: str, batch: str) -> JobTemplate:
    """Return the settings of a manifest that sets nothing itself."""
    return JobTemplate(model=model, root=f"out/{safe_path(batch)}", path=DEFAULT_PATH)


def for_explicit_jobs(template: JobTemplate) -> JobTemplate:
    """Return what explicit jobs inherit from a manifest that has rows or a matrix as well."""

    def optional(part: Part) -> Part:
        return replace(part, of_rows=True)

    return replace(
        template,
        model_part=template.model_part and optional(template.model_part),
        key=template.key and optional(template.key),
        images=tuple(map(optional, template.images)),
        mask=template.mask and optional(template.mask),
        path=optional(template.path),
    )


def without_matrix(template: JobTemplate) -> JobTemplate:
    """Return what explicit jobs inherit from a manifest whose matrix is not for them."""
    is_axis = template.model_part is MODEL_AXIS
    return replace(template, matrix={}, model_part=None if is_axis else template.model_part)


def read_job_template(spec: JobSpec, base: JobTemplate, at: DocPath, faults: Faults) -> JobTemplate:
    """Return the settings of ``spec`` merged over those of ``base``.

    Options, output and tags are merged with the inherited ones; every other key replaces them.
    """
    before = len(faults)

    def part(text: str | None, inherited: Part | None, *place: str | int) -> Part | None:
        return inherited if text is None else read_part(text, at, place, faults)

    output = spec.output or Output()
    if output.dir is not None and not is_plain(output.dir):
        faults.of_manifest(
            (*at, "output", "dir"),
            "must not be a template; expected a plain path, with templates in output.path",
        )
    model, model_part = _read_model(spec, base, at, faults)
    template = JobTemplate(
        at=at if spec.model or spec.options or spec.images is not None else base.at,
        model=model,
        model_part=model_part,
        key=part(spec.key, base.key, "key"),
        prompt=part(spec.prompt, base.prompt, "prompt"),
        options=_merge_options(spec, base, at, faults),
        images=base.images if spec.images is None else _read_images(spec.images, at, faults),
        mask=part(spec.mask, base.mask, "mask"),
        matrix=base.matrix if spec.matrix is None else spec.matrix,
        count=spec.count or base.count,
        root=output.dir or base.root,
        path=part(output.path, base.path, "output", "path") or base.path,
        output=_merge_output(output, base.output),
        refresh=spec.refresh or base.refresh,
        tags=tuple(dict.fromkeys((*base.tags, *(spec.tags or ())))),
    )
    _check_matrix(template, at, faults)
    return replace(template, broken=base.broken or len(faults) > before)


def stem_of(path: Template) -> Template | None:
    """Return the template without a final ``.{{ ext }}``; None if it uses ``ext`` differently."""
    end = _EXT_END.search(path.text)
    if end is None:
        return None
    try:
        stem = compile_template(path.text[: end.start()])
    except TemplateError:
        return None
    return None if "ext" in stem.names else stem


_EXT_END: Final = re.compile(r"\.\{\{ *ext *\}\}\Z")


def read_part(text: str, at: DocPath, place: DocPath, faults: Faults) -> Part | None:
    """Compile the template at ``place`` below ``at``. Return None after reporting an error."""
    try:
        return Part(compile_template(text), place)
    except TemplateError as error:
        faults.of_manifest((*at, *place), str(error))
        return None


MODEL_AXIS: Final = Part(Template("{{ model }}"), ("matrix",))
"""The model of jobs whose matrix has an axis of that name."""


def _read_model(
    spec: JobSpec, base: JobTemplate, at: DocPath, faults: Faults
) -> tuple[str, Part | None]:
    """Return the model, and its template if it differs from job to job."""
    is_axis = any(normal_name(name) == "model" for name in spec.matrix or ())
    if spec.model is not None and not is_plain(spec.model):
        return base.model, read_part(spec.model, at, ("model",), faults)
    if spec.model is not None:
        if is_axis:
            faults.of_manifest(
                (*at, "matrix"),
                f"has the axis 'model', and model: is {spec.model!r}; expected one of the two",
            )
        return spec.model, None
    if is_axis:
        return base.model, MODEL_AXIS
    is_replaced = spec.matrix is not None and base.model_part is MODEL_AXIS
    return base.model, None if is_replaced else base.model_part


def _read_images(texts: Sequence[str], at: DocPath, faults: Faults) -> tuple[Part, ...]:
    parts = [read_part(text, at, ("images", n), faults) for n, text in enumerate(texts)]
    return tuple(filter(None, parts))


def _merge_options(
    spec: JobSpec, base: JobTemplate, at: DocPath, faults: Faults
) -> Mapping[str, OptionValue | Part]:
    options = dict(base.options)
    for name, value in (spec.options or {}).items():
        if value is None:
            options.pop(name, None)
        elif not isinstance(value, str) or is_plain(value):
            options[name] = value
        elif part := read_part(value, at, ("options", name), faults):
            options[name] = part
    return options


def _merge_output(output: Output, inherited: OutputOptions) -> OutputOptions:
    given = {name: getattr(output, name) for name in _OUTPUT_OPTIONS}
    return replace(inherited, **{name: value for name, value in given.items() if value is not None})


def _check_matrix(template: JobTemplate, at: DocPath, faults: Faults) -> None:
    try:
        names = normal_names(list(template.matrix))
    except ValueError as error:
        faults.of_manifest((*at, "matrix"), str(error))
        return
    for name in names:
        if name in _BUILT_IN_VARIABLES or not name:
            faults.of_manifest(
                (*at, "matrix"), f"{name!r} cannot be the name of a variable; use another name"
            )
    combinations = prod(map(len, template.matrix.values()))
    if template.key is not None and template.key.template.constant is not None and combinations > 1:
        faults.of_manifest(
            (*at, "key"),
            f"is the same for all {combinations:,} combinations of the matrix; expected its"
            f" variables in it, such as '{template.key.template.text}/{{{{ {names[0]} }}}}'",
        )
    jobs = template.count * combinations
    if jobs > MAX_JOBS_PER_LINE:
        faults.of_manifest(
            (*at, "matrix"),
            f"matrix times count gives {jobs:,} jobs per line; expected at most"
            f" {MAX_JOBS_PER_LINE:,}",
        )


def read_where(loaded: LoadedManifest, faults: Faults) -> Expression | None:
    """Compile the ``where`` of the rows. Return None without one, or after reporting an error."""
    where = getattr(loaded.manifest.rows, "where", None)
    if where is None:
        return None
    try:
        return compile_expression(where)
    except TemplateError as error:
        faults.of_manifest(("rows", "where"), str(error))
        return None
