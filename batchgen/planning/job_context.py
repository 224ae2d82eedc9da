"""State shared while the jobs of a plan are expanded, and the errors that end one job."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from batchgen.errors import Objection
from batchgen.job import JobKind, canonical_json
from batchgen.manifest.field_types import MatrixValue
from batchgen.manifest.loader import DocPath
from batchgen.planning.amendments import Amendments
from batchgen.planning.faults import Faults, RowFaults, Warnings
from batchgen.planning.fingerprint import Fingerprints
from batchgen.planning.job_template import JobTemplate, Part
from batchgen.planning.provider_rules import Rules
from batchgen.planning.reference_images import Reference, ReferenceUrls
from batchgen.planning.reference_names import ImageDirectories


class JobFault(Exception):
    """One job cannot be planned."""

    def __init__(self, place: DocPath, message: str, *, of_manifest: bool = False) -> None:
        super().__init__(message)
        self.place = place
        """Relative to the place of the job."""
        self.message = message
        self.of_manifest = of_manifest
        """Whether the manifest is wrong for every row."""


class JobRefused(Exception):
    """One job cannot be planned, and its errors are reported already."""

    def __init__(self, reason: str | None) -> None:
        super().__init__()
        self.reason = reason
        """The failure reason of the job; None if the whole manifest fails."""


@dataclass(frozen=True, slots=True)
class PlacedReference:
    """A reference image and the place of its template, relative to the job."""

    place: DocPath
    reference: Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """The place of a job in a matrix."""

    source: str
    """The line that the matrix is combined with."""
    values: Mapping[str, MatrixValue]
    """The value of each axis, by its name in the manifest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The inputs and collectors that all jobs of one plan share."""

    directories: ImageDirectories
    batch: str
    provider: str
    table: str
    rules: Rules | None
    reference_urls: ReferenceUrls | None
    objections: Callable[[str, str, int], Sequence[Objection]]
    """Return the objections of the provider's rules to a model, options (as canonical JSON) and a
    number of reference images."""
    faults: Faults
    warnings: Warnings
    rows: RowFaults
    fixed_columns: bool
    """Whether all rows of the table have the same columns."""
    amendments: Amendments | None = None
    observe_cell: Callable[[str, Cell], object] | None = None
    """Takes the key and the place of each job that a matrix makes."""
    accepted_chars: dict[str, int] = field(default_factory=dict)
    """The longest prompt of each model that its rules accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionSet:
    """What is computed once for all jobs of a template with the same options."""

    options_text: str
    """Canonical JSON."""
    fingerprints: Fingerprints
    """For jobs without reference images."""
    objections: Sequence[Objection]
    """For jobs without reference images."""
    kind: JobKind


def report_objections(template: JobTemplate, context: Context) -> None:
    """Report what the provider's rules say of a template whose jobs are not planned.

    A model and options that are templates themselves are not known without a row.
    """
    options = template.options
    if template.model_part or any(isinstance(value, Part) for value in options.values()):
        return
    text = canonical_json(dict(options))
    for objection in context.objections(template.model, text, len(template.images)):
        path = (*template.at, *objection.place)
        if objection.fatal:
            context.faults.of_manifest(path, objection.message)
        else:
            context.warnings.add(path, objection.message)
