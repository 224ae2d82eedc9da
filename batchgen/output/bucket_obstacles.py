"""Find what would prevent saving an image in a bucket, before its request is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from batchgen.job import PATH_REASON, Job
from batchgen.ledger.path_owners import batch_name_of_job, path_history
from batchgen.ledger.writer import LedgerWriter
from batchgen.output.bucket_sidecar import is_free_sidecar, sidecar_name
from batchgen.output.obstacles import Obstacles, taken_text
from batchgen.output.previous_versions import LONGEST_SUFFIX, PREVIOUS_DIRECTORY
from batchgen.storage.stores import Stores
from batchgen.system.threads import in_store_thread
from batchgen.urls import is_bucket

_MAX_NAME_BYTES: Final = 1024
"""Of S3 and Google Cloud Storage (Azure: 1024 characters); see
https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html."""


class BucketObstacles(Obstacles):
    """Check of output paths, of which some are in buckets."""

    def __init__(self, base: Path, stores: Stores, *, overwrite: bool = False) -> None:
        super().__init__(base, overwrite=overwrite)
        self._stores = stores
        self._overwrites = overwrite

    async def find(self, ledger: LedgerWriter, job: Job, path: str) -> str | None:
        """Return why a job must fail; see `Obstacles`. Raises StoreError."""
        if not is_bucket(job.root):
            return await super().find(ledger, job, path)
        longest = f"{job.root}/{PREVIOUS_DIRECTORY}/{path}{LONGEST_SUFFIX}"
        if len(longest.encode()) > _MAX_NAME_BYTES:
            return f"{PATH_REASON}: {job.root}/{path}: the name is too long for a bucket"
        if self._overwrites or self._is_checked_elsewhere(job):
            return None
        store = self._stores.of(job.root)
        if await in_store_thread(store.info, path) is not None:
            there = await ledger.run(path_history, job.id, job.root, path)
            if not there.is_own:
                return taken_text(f"{job.root}/{path}", "an image")
        if job.sidecar:
            batch = await ledger.run(batch_name_of_job, job.id)
            name = sidecar_name(path)
            if not await in_store_thread(is_free_sidecar, store, name, batch, job.key):
                return taken_text(f"{job.root}/{name}", "the sidecar")
        return None

    def _is_checked_elsewhere(self, job: Job) -> bool:
        """Return whether another process checks that the path is free."""
        return False
