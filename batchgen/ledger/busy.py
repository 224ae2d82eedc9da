"""Waiting for a ledger that another program has locked: bounded, and with a line that says so."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from batchgen.system.process_table import holders

DEFAULT_WAIT_S: Final = 600.0
SQLITE_TIMEOUT_S: Final = 0.25
"""How long SQLite itself waits; the rest of a wait happens here, where it can be reported."""
_PAUSE_S: Final = 0.1
_FIRST_LINE_S: Final = 2.0
_LINE_EVERY_S: Final = 60.0


@dataclass(slots=True)
class Patience:
    """How long a locked ledger is waited for, and who is informed of it."""

    wait_s: float = DEFAULT_WAIT_S
    report: Callable[[str], None] | None = None
    clock: Callable[[], float] = field(default=time.monotonic)
    sleep: Callable[[float], None] = field(default=time.sleep)

    def copy(self) -> Patience:
        """Return one whose bound can be changed alone."""
        return Patience(self.wait_s, self.report, self.clock, self.sleep)


patience: Final = Patience()
"""Of this process. The command line sets its fields when it starts."""


class LedgerConnection(sqlite3.Connection):
    """A connection whose statements wait while another program holds the file."""

    path: Path | None = None
    patience: Patience | None = None
    """None makes each statement fail as soon as SQLite reports the lock."""

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """Run a statement; a lock of another program is waited for."""
        try:
            return super().execute(sql, parameters)
        except sqlite3.OperationalError as exc:
            wait = self._wait_for(exc)
        while True:
            wait()
            try:
                cursor = super().execute(sql, parameters)
            except sqlite3.OperationalError as exc:
                wait.check(exc)
            else:
                wait.end()
                return cursor

    def begin(self) -> None:
        """Begin a transaction, once no other program holds the lock."""
        self.may_wait()
        self.execute("BEGIN IMMEDIATE")

    def begin_at_once(self) -> None:
        """Begin a transaction whose statements neither wait for a lock nor sync the file.

        Before its COMMIT, call `may_wait`. Raises sqlite3.Error, also for a lock.
        """
        super().execute("PRAGMA busy_timeout = 0")
        # A page that the cache has no room for would be written, and synced, before the COMMIT.
        super().execute("PRAGMA cache_spill = OFF")
        super().execute("BEGIN IMMEDIATE")

    def may_wait(self) -> None:
        """Let statements wait for locks again; the next transaction may write before its COMMIT."""
        super().execute(f"PRAGMA busy_timeout = {round(SQLITE_TIMEOUT_S * 1_000)}")
        super().execute("PRAGMA cache_spill = ON")

    def _wait_for(self, exc: sqlite3.OperationalError) -> _Wait:
        if self.patience is None or self.path is None:
            raise exc
        wait = _Wait(self.path, self.patience, in_transaction=self.in_transaction, conn=self)
        wait.check(exc)
        return wait


class _Wait:
    """One wait for the lock of another program."""

    def __init__(
        self, path: Path, patience: Patience, *, in_transaction: bool, conn: sqlite3.Connection
    ) -> None:
        self._path = path
        self._patience = patience
        self._began = patience.clock()
        self._next_line = self._began + _FIRST_LINE_S
        self._reported = False
        self._in_transaction = in_transaction
        self._conn = conn

    def check(self, exc: sqlite3.OperationalError) -> None:
        """Raise what is not a lock, what can't be tried again, and a lock after the bound."""
        # An error may have rolled the transaction back; its earlier statements are lost then.
        lost = self._in_transaction and not self._conn.in_transaction
        if not is_busy(exc) or lost:
            raise exc
        waited = self._patience.clock() - self._began
        if waited >= self._patience.wait_s:
            raise locked_error(exc, self._path, waited) from exc

    def __call__(self) -> None:
        """Sleep for a moment; write a line when it is time for one."""
        now = self._patience.clock()
        if now >= self._next_line:
            self._next_line = now + _LINE_EVERY_S
            self._reported = True
            self._say(
                f"waiting for the ledger {self._path.name}: {held_by(self._path)};"
                f" {_span(now - self._began)} so far, at most {_span(self._patience.wait_s)}"
            )
        self._patience.sleep(_PAUSE_S)

    def end(self) -> None:
        """Write that it is over, if a line said that it began."""
        if self._reported:
            waited = self._patience.clock() - self._began
            self._say(f"the ledger {self._path.name} is free after {_span(waited)}")

    def _say(self, text: str) -> None:
        if self._patience.report is not None:
            self._patience.report(text)


def is_busy(exc: BaseException) -> bool:
    """Return whether an error says that another program holds the lock."""
    return isinstance(exc, sqlite3.Error) and _code(exc) & 0xFF == sqlite3.SQLITE_BUSY


def _code(exc: sqlite3.Error) -> int:
    """Return SQLite's result code; 0 for an error of the driver, which has none."""
    return getattr(exc, "sqlite_errorcode", 0)


def held_by(path: Path) -> str:
    """Return who locks a ledger, as far as the system says."""
    found = holders(path) or holders(path.with_name(path.name + "-shm"))
    if not found:
        return "it is locked by another program"
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return f"it is locked by {found[0]}{more}"


def locked_error(exc: sqlite3.Error, path: Path, waited: float) -> sqlite3.OperationalError:
    """Return the error of a lock that outlasted the wait."""
    error = sqlite3.OperationalError(
        f"database is locked, for {_span(waited)} by now: {held_by(path)}; close that program and"
        " run again (BATCHGEN_LEDGER_WAIT sets how long to wait, in seconds)"
    )
    error.sqlite_errorcode = _code(exc)
    return error


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"
