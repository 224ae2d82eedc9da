"""The connection on which a run plans before the plan is approved."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from batchgen.ledger.database import in_memory, open_for_writing
from batchgen.ledger.staging import Staging

_DISK: Final = "/var/tmp" if os.access("/var/tmp", os.W_OK) else None
"""On disk: a plan of a million jobs does not fit in memory, which ``/tmp`` often is."""


class Draft:
    """The ledger, or an empty one in memory where none exists: a refused first run leaves no file.

    An old ledger is migrated here, since a plan reads the newest schema only.
    """

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger
        self._held = ExitStack()
        self._directory: Path | None = None
        self._exists = ledger.exists()
        self.conn: sqlite3.Connection

    def __enter__(self) -> Self:
        if self._exists:
            opened: sqlite3.Connection = open_for_writing(self._ledger)
        else:
            temporary = tempfile.TemporaryDirectory(prefix="batchgen-", dir=_DISK)
            directory = self._held.enter_context(temporary)
            self._directory = Path(directory)
            opened = in_memory()
        self.conn = self._held.enter_context(closing(opened))
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._held.close()

    def staging(self) -> Staging:
        """Start an empty plan, which replaces a closed one."""
        if self._directory is None:
            return Staging(self.conn)
        file = self._directory / "plan.db"
        file.unlink(missing_ok=True)
        return Staging(self.conn, file=str(file))

    def approved(self, staging: Staging) -> sqlite3.Connection:
        """Return the connection of the ledger, which is created now if it does not exist."""
        if self._exists:
            return self.conn
        created = self._held.enter_context(closing(open_for_writing(self._ledger)))
        staging.carry_over(created)
        return created
