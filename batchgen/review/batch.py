"""The batch that a review server shows: its ledger, its files, and who decides."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, TypeVar

from batchgen.errors import ManifestError
from batchgen.job import BatchId
from batchgen.ledger.batches import BatchRow, find_batch
from batchgen.ledger.busy import LedgerConnection, Patience
from batchgen.ledger.database import open_for_reading, open_for_writing
from batchgen.ledger.decisions import Reviewer
from batchgen.ledger.manifest_paths import base_of, manifest_of
from batchgen.ledger.review import ImageFilter
from batchgen.manifest.loader import parse_manifest
from batchgen.session.settings import DB_NAME
from batchgen.system.shell_command import shell_command

P = ParamSpec("P")
T = TypeVar("T")

_WAIT_S: Final = 5.0
"""How long a request waits for a ledger that a run has locked."""


class _Connection:
    """One connection that threads take turns with."""

    def __init__(self, conn: LedgerConnection) -> None:
        conn.patience = Patience(wait_s=_WAIT_S)
        self._conn = conn
        self._lock = threading.Lock()

    @contextmanager
    def taken(self) -> Iterator[sqlite3.Connection]:
        """Lend the connection to one thread."""
        with self._lock:
            yield self._conn

    def close(self) -> None:
        """Close it after the thread that has it."""
        with self._lock:
            self._conn.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a review begins with: `batchgen review` options."""

    by: str
    chosen: ImageFilter = field(default_factory=ImageFilter)
    """The images that the page offers; filters on the page narrow it."""
    is_newest_run: bool = False
    """Whether its run is the newest one because the command names none."""

    @property
    def compared_runs(self) -> Sequence[int]:
        """The runs whose images a comparison begins with; empty for all.

        The newest run may have replaced a few images of a grid.
        """
        return () if self.is_newest_run else self.chosen.runs


class ReviewBatch:
    """One batch of a ledger for the threads of a server. Reads are short; writes are durable."""

    def __init__(self, ledger: Path, name: str, view: View) -> None:
        """Open the ledger. Raises LedgerError, UnknownBatchError and SettingsError."""
        self.ledger = ledger
        self.view = view
        self._writer: _Connection | None = None
        self._making = threading.Lock()
        self._reader = _Connection(open_for_reading(ledger))
        try:
            with self._reader.taken() as conn:
                self.row: BatchRow = find_batch(conn, name)
            self.base: Path = base_of(ledger, self.row)
            self.manifest: Path = manifest_of(ledger, self.row)
        except BaseException:
            self._reader.close()
            raise

    @property
    def id(self) -> BatchId:
        """The id of the batch in the ledger."""
        return self.row.id

    @property
    def run_command(self) -> str:
        """The command that runs the manifest on this ledger, from the current directory."""
        # `run` looks for a ledger next to the manifest, `review` also in other places.
        is_default = self.ledger == (self.base / DB_NAME).resolve()
        ledger: list[str | Path] = [] if is_default else ["--db", self.ledger]
        return shell_command("run", self.manifest, *ledger)

    def images_per_minute(self) -> float | None:
        """Return the rate limit of the manifest; None without one."""
        file = self.manifest.name
        try:
            parsed = parse_manifest(self.row.manifest.encode(), file=file, path=self.manifest)
        except ManifestError:  # written for another release; its images can still be reviewed
            return None
        limits = parsed.manifest.limits
        given = (limits.images_per_minute, limits.requests_per_minute)
        return min((float(one) for one in given if one is not None), default=None)

    def reviewer(self, session: str) -> Reviewer:
        """Return who decides in a session of the page."""
        return Reviewer(name=self.view.by, session=session)

    def read(
        self,
        query: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run one query. Raises sqlite3.OperationalError if the ledger stays locked."""
        with self._reader.taken() as conn:
            return query(conn, *args, **kwargs)

    def write(
        self,
        step: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run one step durably. Raises sqlite3.OperationalError if the ledger stays locked."""
        with self._making:
            if self._writer is None:
                self._writer = _Connection(open_for_writing(self.ledger))
        with self._writer.taken() as conn:
            return step(conn, *args, **kwargs)

    def close(self) -> None:
        """Close the connections."""
        self._reader.close()
        if self._writer is not None:
            self._writer.close()
