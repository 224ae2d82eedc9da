"""The matrix of a batch, from the manifest that the ledger keeps."""

from __future__ import annotations

from collections.abc import Container, Mapping
from pathlib import Path

from batchgen.errors import ManifestError
from batchgen.ledger.batches import BatchRow
from batchgen.ledger.manifest_paths import manifest_of
from batchgen.manifest.loader import parse_manifest
from batchgen.planning.job_context import Cell
from batchgen.planning.matrix_cells import matrix_axes, matrix_cells
from batchgen.providers.registry import PROFILES
from batchgen.review.comparison import NoComparison
from batchgen.session.bucket_tables import with_kept_table
from batchgen.session.directories import references_directory


class Matrix:
    """The axes of a batch, and the place of each job."""

    def __init__(self, ledger: Path, batch: BatchRow) -> None:
        """Parse the manifest. Raises ManifestError if this release does not understand it."""
        manifest = manifest_of(ledger, batch)
        self._ledger = ledger
        self._provider = batch.provider
        self._loaded = parse_manifest(batch.manifest.encode(), file=manifest.name, path=manifest)
        self.axes = matrix_axes(self._loaded)

    def cells(self, keys: Container[str]) -> Mapping[str, Cell]:
        """Return the places of jobs, in the order of the manifest; jobs without one are left out.

        Reads the table of the manifest. Raises NoComparison if that is not there.
        """
        profile = PROFILES.get(self._provider)
        try:
            return matrix_cells(
                with_kept_table(self._loaded, references_directory(self._ledger)),
                keys,
                provider=self._provider,
                default_model=profile.default_model if profile is not None else "",
            )
        except ManifestError as error:
            raise NoComparison(str(error.faults[0])) from error
