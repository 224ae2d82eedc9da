"""Whether the reference images of a job are still those that its fingerprint was made of."""

from __future__ import annotations

from pathlib import Path

from batchgen.job import Job, canonical_json
from batchgen.planning.fingerprint import Fingerprints
from batchgen.planning.reference_images import digest_of


def changed_references(job: Job, provider: str) -> str | None:
    """Return why a job must not be sent with its files as they are; None where it may be.

    Reads each file whose stat data changed since it was read last.
    """
    if not job.images:
        return None
    try:
        images = tuple(f"sha256:{digest_of(Path(image))}" for image in job.images)
        mask = f"sha256:{digest_of(Path(job.mask))}" if job.mask else None
    except OSError as exc:
        return f"a reference image cannot be read: {exc}"
    options = canonical_json(dict(job.options))
    fingerprints = Fingerprints(provider, job.model, options, images, mask)
    if fingerprints.of(job.prompt) == job.fingerprint:
        return None
    names = ", ".join([*job.images, *([job.mask] if job.mask else [])])
    return f"a reference image changed since the plan: {names}"
