"""Build the planned jobs of a staging table."""

from __future__ import annotations

from batchgen.job import PlannedJob
from tests.support.rig import planned_job


def planned(key: str, *, prompt: str = "p", path: str | None = None) -> PlannedJob:
    return planned_job(
        key=key,
        fingerprint=prompt,
        provider="local",
        model="gpt-image-2",
        prompt=prompt,
        options={},
        root="out",
        path=path or f"{key}.{{ext}}",
        source=f"b.csv:{ord(key[0])}",
    )
