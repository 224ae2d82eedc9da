"""Lock an existing batch and open it for writing, for commands that change its records."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from batchgen.ledger.batches import BatchRow, find_batch
from batchgen.ledger.database import check_exists, open_for_writing
from batchgen.session.batch_lock import batch_lock
from batchgen.session.settings import Environment


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedBatch:
    """A batch that this process has locked."""

    conn: sqlite3.Connection
    ledger: Path
    row: BatchRow


@contextmanager
def locked_batch(name: str, db: Path | None) -> Iterator[LockedBatch]:
    """Lock a batch and open its ledger for writing.

    Raises LedgerError without a ledger, and creates none. Raises UnknownBatchError, and
    BatchLockedError if a run holds the batch.
    """
    ledger = Environment.load().ledger_path(db, None)
    check_exists(ledger)  # before the lock, which creates a file next to the ledger
    with batch_lock(ledger, name), closing(open_for_writing(ledger)) as conn:
        yield LockedBatch(conn=conn, ledger=ledger, row=find_batch(conn, name))
