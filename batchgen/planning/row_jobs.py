"""Turn the rows of a table into jobs."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Final

from batchgen.job import PlannedJob
from batchgen.manifest.fill_down import fill_rows
from batchgen.manifest.loader import DocPath, LoadedManifest
from batchgen.manifest.model import FileRows, SqliteRows
from batchgen.manifest.rows import holds_text, open_rows
from batchgen.manifest.table import Reading, Row, RowsFault
from batchgen.manifest.template import Expression, present
from batchgen.planning.columns import Columns, ambiguous_key, unknown_in_where, unknown_names
from batchgen.planning.empty_cells import EmptyCells, NamedColumns
from batchgen.planning.expansion import JobMaker
from batchgen.planning.faults import row_reason
from batchgen.planning.job_context import Context, report_objections
from batchgen.planning.job_template import JobTemplate, read_where
from batchgen.planning.line import Line

MAX_REPEATABLE_LINES: Final = 200_000
"""Their hashes take about 20 MB."""


class RowJobs:
    """The jobs of a table's rows, in their order."""

    def __init__(
        self,
        loaded: LoadedManifest,
        source: str | FileRows | SqliteRows,
        template: JobTemplate,
        context: Context,
    ) -> None:
        self._loaded = loaded
        self._source = source
        self._template = template
        self._context = context
        self._is_text = holds_text(source)
        self._unreadable = deque[RowsFault]()
        self._named = NamedColumns(source)
        self._cells = EmptyCells(template, source)
        before = len(context.faults)
        self._where = read_where(loaded, context.faults)
        self._maker = JobMaker(template, (), context)
        self._repeating_maker = JobMaker(template, (), context, repeats_a_line=True)
        self._repeats = Counter[int]()
        """Hashes of the lines of a list, with the number of times each was read."""
        self._is_idle = self._maker.idle or len(context.faults) > before

    def jobs(self) -> Iterator[PlannedJob]:
        """Yield the jobs, and report the errors of the table and of its rows."""
        context, found = self._context, self._context.rows
        try:
            table = open_rows(
                self._source,
                self._loaded.base,
                report=self._unreadable.append,
                copies=self._loaded.copies,
            )
            found.reading = table.reading
            with closing(table):
                if self._has_all_names(table.reading) and not self._is_idle:
                    yield from self._jobs_of(self._filled(table))
                else:
                    report_objections(self._template, context)
        except RowsFault as fault:
            report_objections(self._template, context)
            if fault.key is None:
                context.faults.of_table(fault)
            else:
                is_text = isinstance(self._source, str)
                context.faults.of_manifest(
                    ("rows",) if is_text else ("rows", fault.key), fault.message
                )
        for unread in self._unreadable:
            yield from self._unreadable_jobs(unread)
        self._report_columns()

    def _jobs_of(self, rows: Iterable[Row]) -> Iterator[PlannedJob]:
        found, maker, where = self._context.rows, self._maker, self._where
        look, unreadable = self._cells.look, self._unreadable
        reading, found.are_rows_read = found.reading, True
        columns = reading.columns if reading is not None and self._is_text else None
        plain = None if columns is None else maker.plain_rows(columns)
        is_list = reading is not None and reading.is_list and self._template.key is None
        seen = left_out = 0
        try:
            for row in rows:
                while unreadable:
                    yield from self._unreadable_jobs(unreadable.popleft())
                line = None
                if where is not None:
                    line = self._line(row)
                    if (is_wanted := maker.is_wanted(line, where)) is not True:
                        if is_wanted:
                            found.rows += 1
                            yield from maker.refused_jobs(line, is_wanted)
                        else:
                            left_out += 1
                        continue
                seen += 1
                earlier = self._earlier(row) if is_list else 0
                if plain is not None and not earlier and (job := plain.job(row)) is not None:
                    yield job
                    continue
                line = line or self._line(row)
                look(line)
                if earlier:
                    yield from self._repeating_maker.jobs(line, earlier=earlier)
                elif maker.makes_one:
                    if (job := maker.job(line)) is not None:
                        yield job
                else:
                    yield from maker.jobs(line)
        finally:
            found.rows += seen
            found.left_out += left_out

    def _line(self, row: Row) -> Line:
        return Line(row.source, row.values if self._is_text else present(row.values), row)

    def _earlier(self, row: Row) -> int:
        """Return how often a line of a list occurred before it, as in a list of jobs.

        Beyond MAX_REPEATABLE_LINES different ones, a repeated line is an error of its row.
        """
        key = hash(row.cells[0])
        if key not in self._repeats and len(self._repeats) >= MAX_REPEATABLE_LINES:
            return 0
        self._repeats[key] += 1
        return self._repeats[key] - 1

    def _has_all_names(self, reading: Reading) -> bool:
        """Report every name that a template uses and no column has, if columns are fixed."""
        if reading.columns is None or not self._context.fixed_columns:
            return True
        columns = Columns.of_table(reading.columns)
        self._named.look(columns.normal)
        unknown: list[tuple[DocPath, str]] = list(unknown_names(self._template, columns))
        if isinstance(self._where, Expression):
            unknown += [
                (("rows", "where"), message) for message in unknown_in_where(self._where, columns)
            ]
        if (message := ambiguous_key(self._template, columns)) is not None:
            unknown.append((("rows",), message))
        for place, message in unknown:
            self._context.faults.of_manifest(place, message)
        return not unknown

    def _filled(self, rows: Iterable[Row]) -> Iterable[Row]:
        """Return the rows with cells filled down, checking the column names of the manifest."""
        source = self._source

        def looked_at() -> Iterator[Row]:
            for row in rows:
                self._named.look(row.values)
                yield row

        if isinstance(source, str) or not (source.fill or source.allow_empty):
            return rows
        return fill_rows(looked_at(), source) if source.fill else looked_at()

    def _unreadable_jobs(self, fault: RowsFault) -> Iterator[PlannedJob]:
        """Yield refused jobs for a row that could not be read."""
        rows = self._context.rows
        rows.rows += 1
        found = rows.of_table(fault)
        if found is not None and not self._is_idle:
            rows.has_unknown_keys = True
            source = f"{fault.file}:{fault.line}" if fault.line else f"{fault.file} {fault.path}"
            yield from self._maker.refused_jobs(Line(source), row_reason(found))

    def _report_columns(self) -> None:
        """Report columns that are named in ``rows`` and missing, or empty in too many rows."""
        context, rows = self._context, self._context.rows
        for place, message in self._named.unknown().items():
            context.faults.of_manifest(place, message)
        rows.empty_columns, fatal = self._cells.found(self._loaded.places, rows.rows)
        for empty in fatal:
            context.faults.add(empty)
