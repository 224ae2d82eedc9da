"""What a manifest or one of its jobs says of every job it makes: templates compiled, read once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Final

from batchgen.job import OptionValue, Verify
from batchgen.manifest.field_types import MatrixValue
from batchgen.manifest.loader import DocPath, LoadedManifest
from batchgen.manifest.model import JobSpec, Output
from batchgen.manifest.sandbox import TemplateError
from batchgen.manifest.table import normal_names
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
"""Matrix times count, for one row or one explicit job; more is a slip of the pen."""

_OWN_NAMES: Final = frozenset({"ext", "index", "key", "row"})
"""No matrix may be called so: as variables they have a meaning of their own."""


@dataclass(frozen=True, slots=True)
class Part:
    """One template of a job, and where it stands, relative to the job."""

    template: Template
    place: DocPath
    of_rows: bool = False
    """Written for rows: an explicit job without the columns it names does without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that a manifest or an explicit job says of its jobs, with what it inherits."""

    broken: bool = False
    """It has faults already, so its jobs are not made."""
    at: DocPath = ()
    """Where model, options or images were written last: what the rules refuse is mended there."""
    model: str
    key: Part | None = None
    prompt: Part | None = None
    options: Mapping[str, OptionValue | Part] = field(default_factory=dict)
    images: tuple[Part, ...] = ()
    mask: Part | None = None
    matrix: Mapping[str, Sequence[MatrixValue]] = field(default_factory=dict)
    count: int = 1
    root: str
    path: Part
    verify: Verify = Verify.STRUCTURE
    keep_previous: int = 1
    keep_partials: bool = False
    sidecar: bool = False
    metadata: bool = False
    refresh: str = "changed"
    tags: tuple[str, ...] = ()


DEFAULT_PATH: Final = Part(Template("{{ key }}.{{ ext }}"), ("output", "path"))


def default_recipe(model: str, batch: str) -> Recipe:
    """What holds where the manifest says nothing."""
    return Recipe(model=model, root=f"out/{safe_path(batch)}", path=DEFAULT_PATH)


def without_rows(recipe: Recipe) -> Recipe:
    """The recipe as explicit jobs beside rows inherit it."""

    def loose(part: Part) -> Part:
        return replace(part, of_rows=True)

    return replace(
        recipe,
        key=recipe.key and loose(recipe.key),
        images=tuple(map(loose, recipe.images)),
        mask=recipe.mask and loose(recipe.mask),
        path=loose(recipe.path),
    )


def read_recipe(spec: JobSpec, base: Recipe, at: DocPath, faults: Faults) -> Recipe:
    """What ``spec`` says, on top of ``base``: options, output and tags add up, others replace."""
    before = len(faults)

    def part(text: str | None, inherited: Part | None, *place: str | int) -> Part | None:
        return inherited if text is None else read_part(text, at, place, faults)

    images = base.images
    if spec.images is not None:
        read = [part(text, None, "images", number) for number, text in enumerate(spec.images)]
        images = tuple(filter(None, read))
    output = spec.output or Output()
    if output.dir is not None and not is_plain(output.dir):
        faults.of_manifest(
            (*at, "output", "dir"), "is no template; directories can stand in output.path"
        )
    recipe = Recipe(
        at=at if spec.model or spec.options or spec.images is not None else base.at,
        model=spec.model or base.model,
        key=part(spec.key, base.key, "key"),
        prompt=part(spec.prompt, base.prompt, "prompt"),
        options=_read_options(spec, base, at, faults),
        images=images,
        mask=part(spec.mask, base.mask, "mask"),
        matrix=base.matrix if spec.matrix is None else spec.matrix,
        count=spec.count or base.count,
        root=output.dir or base.root,
        path=part(output.path, base.path, "output", "path") or base.path,
        verify=output.verify or base.verify,
        keep_previous=(
            base.keep_previous if output.keep_previous is None else output.keep_previous
        ),
        keep_partials=(
            base.keep_partials if output.keep_partials is None else output.keep_partials
        ),
        sidecar=base.sidecar if output.sidecar is None else output.sidecar,
        metadata=base.metadata if output.metadata is None else output.metadata,
        refresh=spec.refresh or base.refresh,
        tags=tuple(dict.fromkeys((*base.tags, *(spec.tags or ())))),
    )
    _check_matrix(recipe, at, faults)
    return replace(recipe, broken=base.broken or len(faults) > before)


def stem_of(path: Template) -> Template | None:
    """The template without the ``.{{ ext }}`` that it ends with; None where it is otherwise."""
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
    """Compile a template at ``place`` below ``at``; None, with a fault, where it is none."""
    try:
        return Part(compile_template(text), place)
    except TemplateError as error:
        faults.of_manifest((*at, *place), str(error))
        return None


def _read_options(
    spec: JobSpec, base: Recipe, at: DocPath, faults: Faults
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


def _check_matrix(recipe: Recipe, at: DocPath, faults: Faults) -> None:
    try:
        names = normal_names(list(recipe.matrix))
    except ValueError as error:
        faults.of_manifest((*at, "matrix"), str(error))
        return
    for name in names:
        if name in _OWN_NAMES or not name:
            faults.of_manifest((*at, "matrix"), f"{name!r} cannot be the name of a variable")
    jobs = recipe.count * prod(map(len, recipe.matrix.values()))
    if jobs > MAX_JOBS_PER_LINE:
        faults.of_manifest(
            (*at, "matrix"), f"makes {jobs:,} jobs of each line; at most {MAX_JOBS_PER_LINE:,}"
        )


def read_where(loaded: LoadedManifest, faults: Faults) -> Expression | None:
    """The condition on rows; None where there is none, and, with a fault, where it is broken."""
    where = getattr(loaded.manifest.rows, "where", None)
    if where is None:
        return None
    try:
        return compile_expression(where)
    except TemplateError as error:
        faults.of_manifest(("rows", "where"), str(error))
        return None
