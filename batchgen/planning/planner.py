"""Turn a manifest into a stream of jobs: explicit jobs, then rows times matrix.

Only the manifest's tables and reference images are read. Comparing jobs with the ledger, and
finding jobs that share a key or a path, is done elsewhere.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace

from batchgen.errors import Fault, ManifestError
from batchgen.job import PlannedJob
from batchgen.manifest.fill_down import fill_rows
from batchgen.manifest.loader import DocPath, LoadedManifest, show_path
from batchgen.manifest.model import FileRows, SqliteRows
from batchgen.manifest.rows import has_fixed_columns, holds_text, open_rows
from batchgen.manifest.table import Row, RowsFault
from batchgen.manifest.template import present
from batchgen.planning.amendments import Amendments
from batchgen.planning.empty_cells import EmptyCells, NamedColumns
from batchgen.planning.expansion import JobMaker
from batchgen.planning.faults import (
    Faults,
    RowFaults,
    TooManyFaults,
    Warnings,
    most_rows_at_fault,
    row_reason,
)
from batchgen.planning.job_context import Context
from batchgen.planning.job_template import (
    JobTemplate,
    default_job_template,
    for_explicit_jobs,
    read_job_template,
    read_part,
    read_where,
)
from batchgen.planning.line import Line, explicit_line
from batchgen.planning.provider_rules import Rules, cached
from batchgen.planning.reference_images import ReferenceUrls


class Planner:
    """The jobs of a manifest, in its order.

    Errors are collected during iteration. If there are any, iteration ends with a ManifestError
    that holds all of them, or earlier after ``max_faults`` different ones. A row with an error
    yields refused jobs, unless ``rows.strict`` is set or more than half of the rows have errors.
    Memory use does not grow with the number of jobs. Each iteration plans from the start.
    """

    def __init__(
        self,
        loaded: LoadedManifest,
        *,
        provider: str,
        default_model: str,
        rules: Rules | None = None,
        reference_urls: ReferenceUrls | None = None,
        max_faults: int = 100,
        amendments: Amendments | None = None,
    ) -> None:
        self._loaded = loaded
        self._provider = provider
        self._default_model = default_model
        self._rules = rules
        self._addresses = reference_urls
        self._max_faults = max_faults
        self._amendments = amendments
        self._warnings = Warnings(loaded.places)
        self.strict = getattr(loaded.manifest.rows, "strict", False)
        """Whether one row with an error fails the whole plan."""
        self.rows = RowFaults(Faults(loaded.places, max_faults), loaded.places, strict=self.strict)
        """Row counts and row errors of the last iteration."""

    @property
    def warnings(self) -> list[Fault]:
        """Warnings about planned jobs, each with the number of jobs."""
        return [*self._warnings.all(), *self.rows.empty_columns]

    def __iter__(self) -> Iterator[PlannedJob]:
        faults = Faults(self._loaded.places, self._max_faults)
        self._warnings = Warnings(self._loaded.places)
        self.rows = RowFaults(faults, self._loaded.places, strict=self.strict)
        source = self._loaded.manifest.rows
        context = Context(
            base=self._loaded.base,
            batch=self._loaded.name,
            provider=self._provider,
            table=_table(self._loaded),
            rules=self._rules,
            reference_urls=self._addresses,
            objections=cached(self._rules),
            faults=faults,
            warnings=self._warnings,
            rows=self.rows,
            fixed_columns=source is not None and has_fixed_columns(source),
            amendments=self._amendments,
        )
        try:
            yield from _all_jobs(self._loaded, self._default_model, context)
        except TooManyFaults:
            faults.add_truncation_note()
        found = faults.all()
        most = most_rows_at_fault(self._loaded.places, self.rows.rows, self.rows.at_fault)
        if most is not None:
            found += [most, *self.rows.all()]
        if found:
            raise ManifestError(found)


def _all_jobs(loaded: LoadedManifest, default_model: str, context: Context) -> Iterator[PlannedJob]:
    manifest = loaded.manifest
    template = read_job_template(
        manifest, default_job_template(default_model, loaded.name), (), context.faults
    )
    yield from _explicit_jobs(loaded, template, context)
    if manifest.rows is not None:
        yield from _row_jobs(loaded, template, context)
    elif manifest.matrix or not manifest.jobs:
        yield from JobMaker(template, (), context).jobs(Line(source=loaded.path.name))


def _explicit_jobs(
    loaded: LoadedManifest, template: JobTemplate, context: Context
) -> Iterator[PlannedJob]:
    manifest = loaded.manifest
    inherited = replace(template, matrix={})
    if manifest.rows is not None or manifest.matrix:
        inherited = for_explicit_jobs(inherited)
    repeats = Counter[str]()
    for number, entry in enumerate(manifest.jobs or ()):
        earlier = 0
        at: DocPath = ("jobs", number)
        source = f"{loaded.path.name}: {show_path(at)}"
        if isinstance(entry, str):
            prompt = read_part(entry, at, (), context.faults)
            own = replace(inherited, prompt=prompt, broken=inherited.broken or prompt is None)
            line: Line | None = Line(source=source)
            if own.key is None:  # otherwise the key template numbers repeated lines, or fails
                earlier = repeats[entry]
                repeats[entry] += 1
        else:
            own = read_job_template(entry, inherited, at, context.faults)
            line = explicit_line(entry, at, source, context.faults)
        if line is not None:
            maker = JobMaker(own, at, context, repeats_a_line=earlier > 0)
            yield from maker.jobs(line, earlier=earlier)


def _row_jobs(
    loaded: LoadedManifest, template: JobTemplate, context: Context
) -> Iterator[PlannedJob]:
    source = loaded.manifest.rows
    if source is None:
        return
    unreadable = deque[RowsFault]()
    before = len(context.faults)
    where = read_where(loaded, context.faults)
    maker = JobMaker(template, (), context)
    if maker.idle or len(context.faults) > before:
        return
    is_text, found, seen = holds_text(source), context.rows, 0
    columns, cells = NamedColumns(source), EmptyCells(template, source)
    look = cells.look
    try:
        opened = open_rows(source, loaded.base, report=unreadable.append, copies=loaded.copies)
        with closing(opened) as table:
            for row in _filled(table, source, columns):
                while unreadable:
                    yield from _unreadable_jobs(unreadable.popleft(), maker, context)
                values = row.values if is_text else present(row.values)
                line = Line(row.source, values, row)
                if where is not None and (is_wanted := maker.is_wanted(line, where)) is not True:
                    if is_wanted:
                        found.rows += 1
                        yield from maker.refused_jobs(line, is_wanted)
                    continue
                seen += 1
                look(line)
                if maker.makes_one:
                    if (job := maker.job(line)) is not None:
                        yield job
                else:
                    yield from maker.jobs(line)
    except RowsFault as fault:
        if fault.key is None:
            context.faults.of_table(fault)
        else:
            at: DocPath = ("rows",) if isinstance(source, str) else ("rows", fault.key)
            context.faults.of_manifest(at, fault.message)
    found.rows += seen
    for unread in unreadable:
        yield from _unreadable_jobs(unread, maker, context)
    for place, message in columns.unknown().items():
        context.faults.of_manifest(place, message)
    found.empty_columns, fatal = cells.found(loaded.places, found.rows)
    for empty in fatal:
        context.faults.add(empty)


def _filled(
    rows: Iterable[Row], source: str | FileRows | SqliteRows, columns: NamedColumns
) -> Iterable[Row]:
    """Return the rows with cells filled down, checking the column names of the manifest."""

    def looked_at() -> Iterator[Row]:
        for row in rows:
            columns.look(row)
            yield row

    if isinstance(source, str) or not (source.fill or source.allow_empty):
        return rows
    return fill_rows(looked_at(), source) if source.fill else looked_at()


def _unreadable_jobs(fault: RowsFault, maker: JobMaker, context: Context) -> Iterator[PlannedJob]:
    """Yield refused jobs for a row that could not be read."""
    context.rows.rows += 1
    found = context.rows.of_table(fault)
    if found is not None:
        context.rows.has_unknown_keys = True
        source = f"{fault.file}:{fault.line}" if fault.line else f"{fault.file} {fault.path}"
        yield from maker.refused_jobs(Line(source), row_reason(found))


def _table(loaded: LoadedManifest) -> str:
    """Return the table's name for messages, as written in the manifest."""
    match loaded.manifest.rows:
        case FileRows(file=table) | SqliteRows(sqlite=table):
            return table
        case rows:
            return rows or ""
