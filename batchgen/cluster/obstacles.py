"""Leave it to the actors to check whether an object is at the path of an image.

An actor checks while it puts the intent, so that the driver has no request to the bucket for each
image. If an object is there, the actor sends nothing, and the driver checks at the next try.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from batchgen.job import Job, JobId
from batchgen.output.bucket_obstacles import BucketObstacles
from batchgen.output.obstacles import expected_paths
from batchgen.providers.adapters.registry import Route
from batchgen.storage.stores import Stores


class ActorObstacles(BucketObstacles):
    """Check of output paths; actors check most of them."""

    def __init__(
        self,
        base: Path,
        stores: Stores,
        *,
        overwrite: bool,
        root: str,
        route_of: Callable[[str], Route],
    ) -> None:
        """``root`` is the output directory that actors can reach."""
        super().__init__(base, stores, overwrite=overwrite)
        self._root = root
        self._route_of = route_of
        self._taken = set[JobId]()

    def paths_of(self, job: Job) -> tuple[str, ...]:
        """Return the paths that an actor must check before it sends the request of a job."""
        if self._overwrites or not self._is_checked_elsewhere(job):
            return ()
        return expected_paths(job, self._route_of(job.model))

    def note_taken(self, job: Job) -> None:
        """Check the path of a job here from now on: an actor found an object there."""
        self._taken.add(job.id)

    def _is_checked_elsewhere(self, job: Job) -> bool:
        return job.root == self._root and not job.sidecar and job.id not in self._taken
