"""From a manifest to its jobs, as a stream: explicit jobs, then rows times matrix.

It reads the manifest's tables and reference images and nothing else. What the ledger knows of a
job, and whether two jobs share a key or a path, is not decided here.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import file_digest, sha256
from itertools import product
from math import prod
from pathlib import Path
from stat import S_ISREG
from typing import Final, Protocol

from batchgen.errors import Fault, ManifestError, Objection
from batchgen.job import OptionValue, PlannedJob, Verify, canonical_json
from batchgen.manifest.loader import DocPath, LoadedManifest, Places, show_path
from batchgen.manifest.model import (
    FileRows,
    JobEntry,
    JobSpec,
    MatrixValue,
    Output,
    SqliteRows,
)
from batchgen.manifest.rows import Row, RowsFault, normal_names, open_rows
from batchgen.manifest.template import (
    Expression,
    Template,
    TemplateError,
    UndefinedNameError,
    compile_expression,
    compile_template,
    is_plain,
    present,
)
from batchgen.naming import (
    EXT_MARK,
    NamingError,
    checked_key,
    copy_key,
    output_path,
    prompt_key,
    row_key,
    safe_path,
)

MAX_JOBS_PER_LINE: Final = 1_000_000
"""Matrix times count, for one row or one explicit job; more is a slip of the pen."""

_MAX_WARNINGS: Final = 100

_FINGERPRINT_VERSION: Final = 1
_OWN_NAMES: Final = frozenset({"ext", "index", "key", "row"})
"""No matrix may be called so: as variables they have a meaning of their own."""


class Rules(Protocol):
    """What a provider accepts. Must be pure: it is asked once for equal options."""

    def of_request(
        self, model: str, options: Mapping[str, OptionValue], references: int
    ) -> Sequence[Objection]:
        """What there is against these options and so many reference images."""

    def of_prompt(self, model: str, characters: int) -> Objection | None:
        """What there is against a prompt of this length."""


class Planner:
    """The jobs of a manifest, in its order.

    Iterating yields the good jobs and collects what is wrong with the others; if there was
    anything, it ends with a ManifestError that holds all faults. Faults that many rows share are
    one fault with the number of rows, and after ``max_faults`` different ones it stops early. The
    memory it takes does not grow with the number of jobs. Each iteration plans anew.
    """

    def __init__(
        self,
        loaded: LoadedManifest,
        *,
        provider: str,
        default_model: str,
        rules: Rules | None = None,
        max_faults: int = 100,
    ) -> None:
        self._loaded = loaded
        self._provider = provider
        self._default_model = default_model
        self._rules = rules
        self._max_faults = max_faults
        self._warnings = _Warnings(loaded.places)

    @property
    def warnings(self) -> list[Fault]:
        """What the rules say of jobs that were planned all the same, each with their number."""
        return self._warnings.all()

    def __iter__(self) -> Iterator[PlannedJob]:
        faults = _Faults(self._loaded.places, self._max_faults)
        self._warnings = _Warnings(self._loaded.places)
        context = _Context(
            base=self._loaded.base,
            batch=self._loaded.name,
            provider=self._provider,
            table=_table(self._loaded),
            rules=self._rules,
            objections=_remembered(self._rules),
            faults=faults,
            warnings=self._warnings,
        )
        try:
            yield from _all_jobs(self._loaded, self._default_model, context)
        except _TooManyFaults:
            faults.say_that_it_stopped()
        if found := faults.all():
            raise ManifestError(found)


def _all_jobs(
    loaded: LoadedManifest, default_model: str, context: _Context
) -> Iterator[PlannedJob]:
    manifest = loaded.manifest
    recipe = _read_recipe(manifest, _default_recipe(default_model, loaded.name), (), context.faults)
    yield from _explicit_jobs(loaded, recipe, context)
    if manifest.rows is not None:
        yield from _row_jobs(loaded, recipe, context)
    elif manifest.matrix or not manifest.jobs:
        yield from _JobMaker(recipe, (), context).jobs(_Line(source=loaded.path.name))


def _explicit_jobs(
    loaded: LoadedManifest, recipe: _Recipe, context: _Context
) -> Iterator[PlannedJob]:
    manifest = loaded.manifest
    inherited = replace(recipe, matrix={})
    if manifest.rows is not None or manifest.matrix:
        inherited = _without_rows(inherited)
    for number, entry in enumerate(manifest.jobs or ()):
        at: DocPath = ("jobs", number)
        source = f"{loaded.path.name}: {show_path(at)}"
        if isinstance(entry, str):
            prompt = _read_part(entry, at, (), context.faults)
            own = replace(inherited, prompt=prompt, broken=inherited.broken or prompt is None)
            line: _Line | None = _Line(source=source)
        else:
            own = _read_recipe(entry, inherited, at, context.faults)
            line = _explicit_line(entry, at, source, context.faults)
        if line is not None:
            yield from _JobMaker(own, at, context).jobs(line)


def _row_jobs(loaded: LoadedManifest, recipe: _Recipe, context: _Context) -> Iterator[PlannedJob]:
    source = loaded.manifest.rows
    if source is None:
        return

    def report(fault: RowsFault) -> None:
        if fault.key is None:
            context.faults.of_table(fault)
        else:
            at: DocPath = ("rows",) if isinstance(source, str) else ("rows", fault.key)
            context.faults.of_manifest(at, fault.message)

    before = len(context.faults)
    where = _read_where(loaded, context.faults)
    maker = _JobMaker(recipe, (), context)
    if maker.idle or len(context.faults) > before:
        return
    try:
        with closing(open_rows(source, loaded.base, report=report)) as rows:
            for row in rows:
                line = _Line(source=row.source, values=present(row.values), raw=row.raw, row=row)
                if where is None or maker.is_wanted(line, where):
                    yield from maker.jobs(line)
    except RowsFault as fault:
        report(fault)


def _table(loaded: LoadedManifest) -> str:
    """The name of the table in messages, as the manifest writes it."""
    match loaded.manifest.rows:
        case FileRows(file=table) | SqliteRows(sqlite=table):
            return table
        case rows:
            return rows or ""


# Faults


class _TooManyFaults(Exception):
    """Nothing is gained by looking on."""


class _JobFault(Exception):
    """One job cannot be planned."""

    def __init__(self, place: DocPath, message: str) -> None:
        super().__init__(message)
        self.place = place
        """Relative to the job's own place."""
        self.message = message


class _JobRefused(Exception):
    """One job cannot be planned, and why is told already."""


class _Faults:
    """The faults found so far; alike ones of many rows are kept once, with their number."""

    def __init__(self, places: Places, limit: int) -> None:
        self._places = places
        self._limit = limit
        self._first: dict[Hashable, Fault] = {}
        self._rows: dict[Hashable, _Rows] = {}

    def __len__(self) -> int:
        return len(self._first)

    def of_manifest(self, path: DocPath, message: str) -> None:
        if (path, message) not in self._first:
            self._add((path, message), self._places.fault(path, message))

    def of_row(self, table: str, row: Row, path: DocPath, message: str) -> None:
        kind = (table, path, message)
        if self._is_new(kind, row.number):
            shown = show_path(path) if row.line else f"row {row.number}: {show_path(path)}"
            self._add_of_table(kind, table, row.line, shown, message)

    def of_table(self, fault: RowsFault) -> None:
        kind = (fault.file, fault.message)
        if self._is_new(kind, (fault.line, fault.path)):
            self._add_of_table(kind, fault.file, fault.line, fault.path, fault.message)

    def _is_new(self, kind: Hashable, row: Hashable) -> bool:
        """Whether a kind of fault was never seen; if it was, this row is counted."""
        if (seen := self._rows.get(kind)) is None:
            self._rows[kind] = _Rows(row)
            return True
        if seen.last != row:  # jobs of one row that fail alike are no news
            seen.last = row
            seen.more += 1
        return False

    def _add_of_table(self, kind: Hashable, table: str, line: int, path: str, message: str) -> None:
        fault = self._places.fault_at(line, 0, (), message)
        self._add(kind, replace(fault, file=table, path=path))

    def _add(self, kind: Hashable, fault: Fault) -> None:
        if len(self._first) >= self._limit:
            raise _TooManyFaults
        self._first[kind] = fault

    def say_that_it_stopped(self) -> None:
        message = f"over {self._limit} faults; what comes after them was not looked at"
        self._first["stopped"] = self._places.fault((), message)

    def all(self) -> list[Fault]:
        return [
            replace(fault, message=f"{fault.message} (and {_counted(self._rows[kind].more)})")
            if kind in self._rows and self._rows[kind].more
            else fault
            for kind, fault in self._first.items()
        ]


@dataclass(slots=True)
class _Rows:
    """How many rows have a fault, beyond the first."""

    last: Hashable
    more: int = 0


def _counted(rows: int) -> str:
    return f"{rows:,} more row" if rows == 1 else f"{rows:,} more rows"


class _Warnings:
    """What is told of jobs that are planned: each message once, where it was first met."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._met: dict[str, DocPath] = {}
        self._jobs: Counter[str] = Counter()

    def add(self, path: DocPath, message: str) -> None:
        if message not in self._met:
            if len(self._met) >= _MAX_WARNINGS:
                path, message = (), f"over {_MAX_WARNINGS} warnings; others are not shown"
            self._met[message] = path
        self._jobs[message] += 1

    def all(self) -> list[Fault]:
        return [
            self._places.fault(path, f"{message} ({jobs:,} {'job' if jobs == 1 else 'jobs'})")
            for message, path in self._met.items()
            if (jobs := self._jobs[message])
        ]


# Recipes


@dataclass(frozen=True, slots=True)
class _Part:
    """One template of a job, and where it stands, relative to the job."""

    template: Template
    place: DocPath
    of_rows: bool = False
    """Written for rows: an explicit job without the columns it names does without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recipe:
    """Everything that a manifest or an explicit job says of its jobs, with what it inherits."""

    broken: bool = False
    """It has faults already, so its jobs are not made."""
    at: DocPath = ()
    """Where model, options or images were written last: what the rules refuse is mended there."""
    model: str
    key: _Part | None = None
    prompt: _Part | None = None
    options: Mapping[str, OptionValue | _Part] = field(default_factory=dict)
    images: tuple[_Part, ...] = ()
    mask: _Part | None = None
    matrix: Mapping[str, Sequence[MatrixValue]] = field(default_factory=dict)
    count: int = 1
    root: str
    path: _Part
    verify: Verify = Verify.STRUCTURE
    keep_previous: bool = False
    refresh: str = "changed"
    tags: tuple[str, ...] = ()


_DEFAULT_PATH: Final = _Part(Template("{{ key }}.{{ ext }}"), ("output", "path"))


def _default_recipe(model: str, batch: str) -> _Recipe:
    return _Recipe(model=model, root=f"out/{safe_path(batch)}", path=_DEFAULT_PATH)


def _without_rows(recipe: _Recipe) -> _Recipe:
    """The recipe as explicit jobs beside rows inherit it."""

    def loose(part: _Part) -> _Part:
        return replace(part, of_rows=True)

    return replace(
        recipe,
        key=recipe.key and loose(recipe.key),
        images=tuple(map(loose, recipe.images)),
        mask=recipe.mask and loose(recipe.mask),
        path=loose(recipe.path),
    )


def _read_recipe(spec: JobSpec, base: _Recipe, at: DocPath, faults: _Faults) -> _Recipe:
    """What ``spec`` says, on top of ``base``: options, output and tags add up, others replace."""
    before = len(faults)

    def part(text: str | None, inherited: _Part | None, *place: str | int) -> _Part | None:
        return inherited if text is None else _read_part(text, at, place, faults)

    images = base.images
    if spec.images is not None:
        read = [part(text, None, "images", number) for number, text in enumerate(spec.images)]
        images = tuple(filter(None, read))
    output = spec.output or Output()
    if output.dir is not None and not is_plain(output.dir):
        faults.of_manifest(
            (*at, "output", "dir"), "is no template; folders can stand in output.path"
        )
    recipe = _Recipe(
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
        refresh=spec.refresh or base.refresh,
        tags=tuple(dict.fromkeys((*base.tags, *(spec.tags or ())))),
    )
    _check_matrix(recipe, at, faults)
    return replace(recipe, broken=base.broken or len(faults) > before)


def _read_part(text: str, at: DocPath, place: DocPath, faults: _Faults) -> _Part | None:
    try:
        return _Part(compile_template(text), place)
    except TemplateError as error:
        faults.of_manifest((*at, *place), str(error))
        return None


def _read_options(
    spec: JobSpec, base: _Recipe, at: DocPath, faults: _Faults
) -> Mapping[str, OptionValue | _Part]:
    options = dict(base.options)
    for name, value in (spec.options or {}).items():
        if value is None:
            options.pop(name, None)
        elif not isinstance(value, str) or is_plain(value):
            options[name] = value
        elif part := _read_part(value, at, ("options", name), faults):
            options[name] = part
    return options


def _check_matrix(recipe: _Recipe, at: DocPath, faults: _Faults) -> None:
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


def _read_where(loaded: LoadedManifest, faults: _Faults) -> Expression | None:
    where = getattr(loaded.manifest.rows, "where", None)
    if where is None:
        return None
    try:
        return compile_expression(where)
    except TemplateError as error:
        faults.of_manifest(("rows", "where"), str(error))
        return None


# Lines: what a recipe is applied to


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """A row of a table, or the values of an explicit job."""

    source: str
    values: Mapping[str, object] = field(default_factory=dict)
    """Under normal names, and free of null; see `present`."""
    raw: Mapping[str, object] = field(default_factory=dict)
    row: Row | None = None


def _explicit_line(entry: JobEntry, at: DocPath, source: str, faults: _Faults) -> _Line | None:
    raw = entry.values or {}
    try:
        values = dict(zip(normal_names(list(raw)), raw.values(), strict=True))
    except ValueError as error:
        faults.of_manifest((*at, "values"), str(error))
        return None
    return _Line(source=source, values=present(values), raw=raw)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Context:
    """What is the same for all jobs of one plan."""

    base: Path
    batch: str
    provider: str
    table: str
    rules: Rules | None
    objections: Callable[[str, str, int], Sequence[Objection]]
    """What the rules say of a request, with the options as canonical JSON."""
    faults: _Faults
    warnings: _Warnings


class _JobMaker:
    """Makes the jobs of lines that share a recipe."""

    def __init__(self, recipe: _Recipe, at: DocPath, context: _Context) -> None:
        self._recipe = recipe
        self._at = at
        self._context = context
        self._matrix_names = normal_names(list(recipe.matrix)) if not recipe.broken else ()
        self._options = {
            name: value for name, value in recipe.options.items() if not isinstance(value, _Part)
        }
        self._option_parts = {
            name: value for name, value in recipe.options.items() if isinstance(value, _Part)
        }
        self._options_text = canonical_json(self._options)
        parts = (recipe.key, recipe.prompt, recipe.mask, recipe.path, *recipe.images)
        templates = [part.template for part in (*parts, *self._option_parts.values()) if part]
        self._uses_row = any("row" in template.names for template in templates)
        self.idle = recipe.broken
        if not recipe.broken and recipe.prompt is None:
            context.faults.of_manifest((*at, "prompt"), "is missing; every job needs a prompt")
            self.idle = True

    def jobs(self, line: _Line) -> Iterator[PlannedJob]:
        """The jobs of one line: the product of the matrix, and each as often as ``count`` says."""
        if self.idle:
            return
        for combination in product(*self._recipe.matrix.values()):
            for copy in range(1, self._recipe.count + 1):
                try:
                    job = self._job(line, combination, copy)
                except _JobFault as fault:
                    self._report(fault, line)
                    break  # its other copies would fail alike
                except _JobRefused:
                    break
                yield job

    def is_wanted(self, line: _Line, where: Expression) -> bool:
        """Whether a row passes the manifest's ``where``; no, when that cannot be told."""
        try:
            return where.is_true(self._variables(line, (), with_row=True))
        except TemplateError as error:
            self._report(_JobFault(("rows", "where"), str(error)), line)
            return False

    def _report(self, fault: _JobFault, line: _Line) -> None:
        path = (*self._at, *fault.place)
        if line.row is None:
            self._context.faults.of_manifest(path, fault.message)
        else:
            self._context.faults.of_row(self._context.table, line.row, path, fault.message)

    def _heed(self, objections: Sequence[Objection], line: _Line) -> None:
        """Tell what the rules say. Raises _JobRefused if the job cannot stand as it is."""
        context, refused = self._context, False
        for objection in objections:
            path = (*self._recipe.at, *objection.place)
            if not objection.fatal:
                context.warnings.add(path, objection.message)
                continue
            refused = True
            if line.row is None or self._option_parts.keys().isdisjoint(objection.options):
                context.faults.of_manifest(path, objection.message)
            else:
                context.faults.of_row(context.table, line.row, path, objection.message)
        if refused:
            raise _JobRefused

    def _variables(
        self, line: _Line, combination: Sequence[object], *, with_row: bool
    ) -> dict[str, object]:
        variables: dict[str, object] = {
            "index": 1,
            "name": self._context.batch,
            "model": self._recipe.model,
            **line.values,
        }
        if combination:
            variables |= zip(self._matrix_names, combination, strict=True)
        if with_row:
            raw = dict(zip(self._recipe.matrix, combination, strict=True)) if combination else {}
            variables["row"] = {**present(line.raw), **raw}
        return variables

    def _job(self, line: _Line, combination: tuple[MatrixValue, ...], copy: int) -> PlannedJob:
        recipe = self._recipe
        for name in self._matrix_names:
            if name in line.values:
                raise _JobFault(("matrix",), f"{name!r} is the name of a column already")
        variables = self._variables(line, combination, with_row=self._uses_row)
        own_index = "index" not in line.values
        if own_index:
            variables["index"] = copy

        key = self._given_key(line, combination, variables, copy, own_index)
        if key is not None:
            variables["key"] = key
        prompt = self._prompt(variables)
        if key is None:
            matrix = dict(zip(self._matrix_names, combination, strict=True))
            key = variables["key"] = copy_key(prompt_key(prompt, matrix), copy)
        path = self._path(variables, own_index, copy)
        options, options_text = self._rendered_options(variables)
        images = self._references(recipe.images, variables)
        masks = self._references((recipe.mask,), variables) if recipe.mask else ()
        self._heed(self._context.objections(recipe.model, options_text, len(images)), line)
        return PlannedJob(
            key=key,
            fingerprint=_fingerprint(
                self._context.provider,
                recipe.model,
                prompt,
                options_text,
                tuple(reference.identity for reference in images),
                masks[0].identity if masks else None,
            ),
            provider=self._context.provider,
            model=recipe.model,
            prompt=prompt,
            options=options,
            images=tuple(reference.address for reference in images),
            mask=masks[0].address if masks else None,
            root=recipe.root,
            path=path,
            verify=recipe.verify,
            keep_previous=recipe.keep_previous,
            refresh=recipe.refresh,
            tags=recipe.tags,
            source=line.source,
        )

    def _given_key(
        self,
        line: _Line,
        combination: tuple[MatrixValue, ...],
        variables: Mapping[str, object],
        copy: int,
        own_index: bool,
    ) -> str | None:
        """The key that a template or the row itself gives; None leaves it to the prompt."""
        part = self._recipe.key
        text = None if part is None else self._text(part, variables)
        try:
            if text is None:
                text = row_key(line.values, combination)
            elif own_index and part is not None and "index" in part.template.names:
                return checked_key(text)
            return None if text is None else copy_key(checked_key(text), copy)
        except NamingError as error:
            raise _JobFault(("key",), str(error)) from None

    def _prompt(self, variables: Mapping[str, object]) -> str:
        part = self._recipe.prompt
        text = self._text(part, variables) if part else None
        prompt = (text or "").strip()
        place: DocPath = part.place if part else ("prompt",)
        if not prompt:
            raise _JobFault(place, "the prompt is empty")
        rules = self._context.rules
        objection = rules.of_prompt(self._recipe.model, len(prompt)) if rules else None
        if objection is not None:
            if objection.fatal:
                raise _JobFault(place, objection.message)
            self._context.warnings.add((*self._at, *place), objection.message)
        return prompt

    def _path(self, variables: dict[str, object], own_index: bool, copy: int) -> str:
        part = self._recipe.path
        variables["ext"] = EXT_MARK
        text = self._text(part, variables)
        if text is None:
            part = _DEFAULT_PATH
            text = self._text(part, variables) or ""
        names = part.template.names
        is_its_own = "key" in names or (own_index and "index" in names)
        try:
            return output_path(text, 1 if is_its_own else copy)
        except NamingError as error:
            raise _JobFault(part.place, str(error)) from None

    def _rendered_options(
        self, variables: Mapping[str, object]
    ) -> tuple[Mapping[str, OptionValue], str]:
        if not self._option_parts:
            return self._options, self._options_text
        options = dict(self._options)
        for name, part in self._option_parts.items():
            options[name] = self._text(part, variables) or ""
        return options, canonical_json(options)

    def _references(
        self, parts: Sequence[_Part], variables: Mapping[str, object]
    ) -> tuple[_Reference, ...]:
        """The pictures sent along, without those whose templates are for rows only."""
        references = []
        for part in parts:
            text = self._text(part, variables)
            if text is None:
                continue
            try:
                references.append(_reference(text.strip(), self._context.base))
            except ValueError as error:
                raise _JobFault(part.place, str(error)) from None
        return tuple(references)

    def _text(self, part: _Part, variables: Mapping[str, object]) -> str | None:
        try:
            text = part.template.render(variables)
        except UndefinedNameError as error:
            if part.of_rows:
                return None
            raise _JobFault(part.place, str(error)) from None
        except TemplateError as error:
            raise _JobFault(part.place, str(error)) from None
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                raise _JobFault(
                    part.place, "holds half a surrogate pair, which is no text"
                ) from None
        return text


# What determines a picture


@dataclass(frozen=True, slots=True)
class _Reference:
    address: str
    """An absolute path or a URL."""
    identity: str
    """What of it goes into the fingerprint."""


def _reference(text: str, base: Path) -> _Reference:
    """Find a reference image. Raises ValueError, with a message for the manifest's writer."""
    if not text:
        raise ValueError("the name of the reference image is empty")
    if text.lower().startswith(("http://", "https://")):
        raise ValueError(
            f"the reference image {text} is an address; put the file beside the manifest"
        )
    path = base / text
    try:
        stat = path.stat()
        if not S_ISREG(stat.st_mode):
            raise ValueError(f"the reference image {path} is no file")
        digest = _digest(str(path), stat.st_mtime_ns, stat.st_size)
    except FileNotFoundError:
        raise ValueError(f"there is no reference image {path}") from None
    except OSError as error:
        raise ValueError(f"the reference image cannot be read: {error}") from None
    return _Reference(str(path), f"sha256:{digest}")


@lru_cache(maxsize=4096)
def _digest(path: str, mtime_ns: int, size: int) -> str:
    """The digest of a file's content; time and size are there to notice that it changed."""
    with Path(path).open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()


def _fingerprint(
    provider: str,
    model: str,
    prompt: str,
    options_text: str,
    images: tuple[str, ...],
    mask: str | None,
) -> str:
    """128 bits of SHA-256 over the canonical JSON of all that determines the picture."""
    head, tail = _around_the_prompt(provider, model, options_text, images, mask)
    return sha256(f"{head}{_quoted(prompt)}{tail}".encode()).hexdigest()[:32]


_quoted: Final = json.JSONEncoder(ensure_ascii=False).encode
"""As `canonical_json`, without making an encoder for each prompt of a million."""


@lru_cache(maxsize=1024)
def _around_the_prompt(
    provider: str, model: str, options_text: str, images: tuple[str, ...], mask: str | None
) -> tuple[str, str]:
    """The canonical JSON up to the prompt and after it; from job to job it hardly changes."""
    before = {"images": images, "mask": mask, "model": model}
    after = {"provider": provider, "version": _FINGERPRINT_VERSION}
    head = f'{canonical_json(before)[:-1]},"options":{options_text},"prompt":'
    return head, f",{canonical_json(after)[1:]}"


def _remembered(rules: Rules | None) -> Callable[[str, str, int], Sequence[Objection]]:
    """The rules, asked once for equal options."""
    if rules is None:
        return lambda model, options_text, references: ()

    @lru_cache(maxsize=1024)
    def ask(model: str, options_text: str, references: int) -> Sequence[Objection]:
        return tuple(rules.of_request(model, json.loads(options_text), references))

    return ask
