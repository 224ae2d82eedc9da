"""Failures of the machine are distinguished from bugs."""

from __future__ import annotations

import errno
import os
import sqlite3

import pytest

from batchgen.errors import ExitCode
from batchgen.system.os_errors import as_stopped_error


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EMFILE, errno.EROFS])
def test_disk_error_stops_the_command(number: int) -> None:
    said = as_stopped_error(OSError(number, os.strerror(number), "out/a.png"))
    assert said is not None
    assert said.exit_code is ExitCode.STOPPED
    assert "out/a.png" in str(said)


@pytest.mark.parametrize(
    "exc",
    [sqlite3.OperationalError("disk I/O error"), sqlite3.DatabaseError("malformed")],
)
def test_unwritable_ledger_stops_the_command(exc: Exception) -> None:
    said = as_stopped_error(exc)
    assert said is not None
    assert said.exit_code is ExitCode.STOPPED


@pytest.mark.parametrize(
    "exc",
    [ValueError("mine"), sqlite3.IntegrityError("mine"), FileNotFoundError(errno.ENOENT, "gone")],
)
def test_bug_is_not_a_machine_error(exc: Exception) -> None:
    assert as_stopped_error(exc) is None
