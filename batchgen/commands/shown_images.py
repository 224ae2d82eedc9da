"""Which images `review` and `gallery` show, by the options that they share."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from batchgen.ledger.batches import BatchRow, check_run
from batchgen.ledger.clock import timestamp
from batchgen.ledger.key_patterns import Only, resolve_jobs
from batchgen.ledger.review import ImageFilter


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownImages:
    """The options of a command; without any of them, it shows all images."""

    run: int | None = None
    since: datetime | None = None
    only: Only | None = None
    decisions: Sequence[str] = ()
    tags: Sequence[str] = ()
    which: str = "newest"
    """See `ImageFilter`."""

    def of_batch(self, conn: sqlite3.Connection, batch: BatchRow) -> ImageFilter:
        """Return the filter for a batch. Raises BatchgenError for an unknown run or key."""
        if self.run is not None:
            check_run(conn, batch, self.run)
        return ImageFilter(
            runs=() if self.run is None else (self.run,),
            since=timestamp(self.since) if self.since is not None else None,
            only=resolve_jobs(conn, self.only, batch.id, batch.name),
            decisions=self.decisions,
            tags=self.tags,
            which=self.which,
        )
