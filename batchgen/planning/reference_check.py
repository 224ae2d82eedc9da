"""Check that the reference images of a job still match its fingerprint."""

from __future__ import annotations

from pathlib import Path

from batchgen.job import Job, canonical_json
from batchgen.planning.fingerprint import Fingerprints
from batchgen.planning.reference_images import digest_of
from batchgen.text import cause_of


def changed_references(job: Job, provider: str) -> str | None:
    """Return why the job must not be sent with its current files; None if they are unchanged.

    Reads only files whose stat data changed since they were last read.
    """
    if not job.images:
        return None
    try:
        images = tuple(f"sha256:{digest_of(Path(image))}" for image in job.images)
        mask = f"sha256:{digest_of(Path(job.mask))}" if job.mask else None
    except OSError as exc:
        return f"a reference image cannot be read: {cause_of(exc)}"
    options = canonical_json(dict(job.options))
    fingerprints = Fingerprints(provider, job.model, options, images, mask)
    if fingerprints.of(job.prompt) == job.fingerprint:
        return None
    names = ", ".join([*job.images, *([job.mask] if job.mask else [])])
    return f"a reference image changed since the plan: {names}"
