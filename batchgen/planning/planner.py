"""Turn a manifest into a stream of jobs: explicit jobs, then rows times matrix.

Only the manifest's tables and reference images are read. Comparing jobs with the ledger, and
finding jobs that share a key or a path, is done elsewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from batchgen.errors import Fault, ManifestError
from batchgen.job import PlannedJob
from batchgen.manifest.loader import DocPath, LoadedManifest, show_path
from batchgen.manifest.model import FileRows, Manifest, SqliteRows
from batchgen.manifest.rows import has_fixed_columns
from batchgen.planning.amendments import Amendments
from batchgen.planning.columns import Columns, unknown_names
from batchgen.planning.expansion import JobMaker
from batchgen.planning.faults import (
    Faults,
    RowFaults,
    TooManyFaults,
    Warnings,
    most_rows_at_fault,
)
from batchgen.planning.job_context import Cell, Context, report_objections
from batchgen.planning.job_template import (
    JobTemplate,
    default_job_template,
    for_explicit_jobs,
    read_job_template,
    read_part,
    without_matrix,
)
from batchgen.planning.line import Line, explicit_line
from batchgen.planning.provider_rules import Rules, cached
from batchgen.planning.reference_images import ReferenceUrls
from batchgen.planning.reference_names import ImageDirectories
from batchgen.planning.row_jobs import RowJobs


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
        observe_cell: Callable[[str, Cell], object] | None = None,
    ) -> None:
        self._loaded = loaded
        self._provider = provider
        self._default_model = default_model
        self._rules = rules
        self._reference_urls = reference_urls
        self._max_faults = max_faults
        self._amendments = amendments
        self._observe_cell = observe_cell
        self._warnings = Warnings(loaded.places)
        self.strict = getattr(loaded.manifest.rows, "strict", False)
        """Whether one row with an error fails the whole plan."""
        self.rows = RowFaults(Faults(loaded.places, max_faults), loaded.places, strict=self.strict)
        """Row counts and row errors of the last iteration."""

    @property
    def warnings(self) -> list[Fault]:
        """Warnings about planned jobs, each with the number of jobs."""
        return [*self._warnings.all(), *self.rows.notices(), *self.rows.empty_columns]

    def __iter__(self) -> Iterator[PlannedJob]:
        faults = Faults(self._loaded.places, self._max_faults)
        self._warnings = Warnings(self._loaded.places)
        self.rows = RowFaults(faults, self._loaded.places, strict=self.strict)
        source = self._loaded.manifest.rows
        context = Context(
            directories=_image_directories(self._loaded),
            batch=self._loaded.name,
            provider=self._provider,
            table=_table(self._loaded),
            rules=self._rules,
            reference_urls=self._reference_urls,
            objections=cached(self._rules),
            faults=faults,
            warnings=self._warnings,
            rows=self.rows,
            fixed_columns=source is not None and has_fixed_columns(source),
            amendments=self._amendments,
            observe_cell=self._observe_cell,
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
    if "s3://" not in loaded.text.lower():
        _check_storage(manifest, template.root, context.faults)
    yield from _explicit_jobs(loaded, template, context)
    if manifest.rows is not None:
        yield from RowJobs(loaded, manifest.rows, template, context).jobs()
    elif not manifest.jobs or (manifest.matrix and not _spreads_jobs(manifest)):
        line = Line(source=loaded.path.name)
        if _has_all_names(template, line, (), context):
            yield from JobMaker(template, (), context).jobs(line)


_ENDPOINT_VARIABLES: Final = {"gs": "GOOGLE_BASE_URL", "az": "AZURE_STORAGE_ENDPOINT"}


def _check_storage(manifest: Manifest, root: str, faults: Faults) -> None:
    """Report settings of S3 in a manifest whose output goes to another service."""
    variable = _ENDPOINT_VARIABLES.get(root.partition("://")[0])
    if manifest.storage is None or variable is None:
        return
    if manifest.storage.endpoint is not None:
        faults.of_manifest(
            ("storage", "endpoint"),
            f"is for s3:// only; got output.dir {root}; expected the URL in the environment"
            f" variable {variable}",
        )
    if manifest.storage.region is not None:
        faults.of_manifest(
            ("storage", "region"),
            f"is for s3:// only; got output.dir {root}, whose service finds the bucket itself;"
            " expected no region",
        )


def _spreads_jobs(manifest: Manifest) -> bool:
    """Return whether the matrix of a manifest is combined with each of its jobs.

    It is unless the manifest has a prompt or rows of its own.
    """
    return bool(manifest.matrix) and manifest.prompt is None and manifest.rows is None


def _explicit_jobs(
    loaded: LoadedManifest, template: JobTemplate, context: Context
) -> Iterator[PlannedJob]:
    manifest = loaded.manifest
    inherited = template
    if not _spreads_jobs(manifest):
        inherited = without_matrix(template)
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
        has_all_names = line is not None and _has_all_names(own, line, at, context)
        if own.broken:
            report_objections(own, context)
        elif line is not None and has_all_names:
            maker = JobMaker(own, at, context, repeats_a_line=earlier > 0)
            yield from maker.jobs(line, earlier=earlier)


def _has_all_names(template: JobTemplate, line: Line, at: DocPath, context: Context) -> bool:
    """Report every name that an explicit job uses and does not have."""
    unknown = list(unknown_names(template, Columns.of_line(line)))
    for place, message in unknown:
        context.faults.of_manifest((*at, *place), message)
    if unknown:
        report_objections(template, context)
    return not unknown


def _image_directories(loaded: LoadedManifest) -> ImageDirectories:
    root = loaded.manifest.images_root
    return ImageDirectories(
        base=loaded.base,
        images_root=None if root is None else loaded.base / Path(root).expanduser(),
    )


def _table(loaded: LoadedManifest) -> str:
    """Return the table's name for messages, as written in the manifest."""
    match loaded.manifest.rows:
        case FileRows(file=table) | SqliteRows(sqlite=table):
            return table
        case rows:
            return rows or ""
