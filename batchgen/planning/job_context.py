"""What the makers of a plan's jobs share, and the faults that end the making of one job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from batchgen.errors import Objection
from batchgen.job import JobKind
from batchgen.manifest.loader import DocPath
from batchgen.planning.faults import Faults, RowFaults, Warnings
from batchgen.planning.fingerprint import Fingerprints
from batchgen.planning.provider_rules import Rules
from batchgen.planning.reference_images import Addresses, Reference


class JobFault(Exception):
    """One job cannot be planned."""

    def __init__(self, place: DocPath, message: str, *, of_manifest: bool = False) -> None:
        super().__init__(message)
        self.place = place
        """Relative to the job's own place."""
        self.message = message
        self.of_manifest = of_manifest
        """Whether the manifest is at fault, whatever the row holds."""


class JobRefused(Exception):
    """One job cannot be planned, and its faults are reported already."""

    def __init__(self, reason: str | None) -> None:
        super().__init__()
        self.reason = reason
        """Why its row's job fails alone; None where the manifest is at fault."""


@dataclass(frozen=True, slots=True)
class Found:
    """A reference image, and where its template stands, relative to the job."""

    place: DocPath
    reference: Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What is the same for all jobs of one plan."""

    base: Path
    batch: str
    provider: str
    table: str
    rules: Rules | None
    addresses: Addresses | None
    objections: Callable[[str, str, int], Sequence[Objection]]
    """What the rules say of a request, with the options as canonical JSON."""
    faults: Faults
    warnings: Warnings
    rows: RowFaults
    fixed_columns: bool
    """Whether all rows of the table have the same columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What is made once for all jobs of a template with the same options."""

    options_text: str
    """Canonical JSON."""
    fingerprints: Fingerprints
    objections: Sequence[Objection]
    """Both of those without reference images."""
    common: JobKind
