"""Which jobs of a manifest a matrix makes, and from which values."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace

from batchgen.errors import ManifestError
from batchgen.manifest.loader import LoadedManifest
from batchgen.manifest.model import JobEntry
from batchgen.planning.job_context import Cell
from batchgen.planning.planner import Planner


def matrix_axes(loaded: LoadedManifest) -> list[str]:
    """Return the axes of all matrices of a manifest, as it spells them."""
    jobs = [job for job in loaded.manifest.jobs or () if isinstance(job, JobEntry)]
    return list(
        dict.fromkeys(name for spec in (loaded.manifest, *jobs) for name in spec.matrix or ())
    )


def matrix_cells(
    loaded: LoadedManifest, keys: Container[str], *, provider: str, default_model: str
) -> Mapping[str, Cell]:
    """Return the place in its matrix of each job with one of ``keys``, in the manifest's order.

    Jobs without a matrix are left out. Reads the manifest's table and no reference image. Raises
    ManifestError if the manifest cannot be planned.
    """
    found, has_cells = dict[str, Cell](), False

    def observe(key: str, cell: Cell) -> None:
        nonlocal has_cells
        has_cells = True
        if key in keys:
            found[key] = cell

    planner = Planner(
        _without_references(loaded),
        provider=provider,
        default_model=default_model,
        observe_cell=observe,
    )
    try:
        for _ in planner:
            pass
    except ManifestError:
        if not has_cells:
            raise
    return found


def _without_references(loaded: LoadedManifest) -> LoadedManifest:
    """Return the manifest without reference images, on which no key depends."""
    nothing = {"images": None, "mask": None}
    manifest = loaded.manifest
    jobs = [
        job.model_copy(update=nothing) if isinstance(job, JobEntry) else job
        for job in manifest.jobs or ()
    ]
    bare = manifest.model_copy(update={**nothing, "jobs": jobs or None})
    return replace(loaded, manifest=bare)
