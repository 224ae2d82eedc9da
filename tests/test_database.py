"""The ledger's file: created whole, migrated with a backup, never recreated, never overwritten."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from batchgen.errors import LedgerError
from batchgen.ledger import database
from batchgen.ledger.database import open_for_reading, open_for_writing
from batchgen.ledger.schema import SCHEMA_VERSION


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "batchgen.db"


def test_a_new_ledger_is_whole_and_leaves_nothing_beside_it(path: Path) -> None:
    with closing(open_for_writing(path)) as conn:
        modes = {name: conn.execute(f"PRAGMA {name}").fetchone()[0] for name in _MODES}
        tables = {row[0] for row in conn.execute("SELECT name FROM sqlite_master")}
    assert modes == _MODES
    assert {"batches", "runs", "jobs", "attempts", "images", "prices"} <= tables
    assert {file.name.removesuffix("-journal") for file in path.parent.iterdir()} == {path.name}


_MODES = {
    "journal_mode": "truncate",
    "synchronous": 3,
    "foreign_keys": 1,
    "user_version": SCHEMA_VERSION,
}


def test_a_newer_schema_is_refused_with_both_versions_and_left_as_it_is(path: Path) -> None:
    open_for_writing(path).close()
    with closing(sqlite3.connect(path)) as conn:
        conn.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 7}")
    before = path.read_bytes()
    for open_it in (open_for_writing, open_for_reading):
        with pytest.raises(LedgerError) as caught:
            open_it(path)
        assert str(SCHEMA_VERSION + 7) in str(caught.value)
        assert f"knows {SCHEMA_VERSION}" in str(caught.value)
    assert path.read_bytes() == before


def _garbage(path: Path) -> None:
    path.write_bytes(b"this is no database" * 100)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _other(path: Path) -> None:
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("CREATE TABLE jobs (id)")


def _flipped(path: Path) -> None:
    open_for_writing(path).close()
    data = bytearray(path.read_bytes())
    data[4096 * 2 : 4096 * 3] = b"\xa5" * 4096
    path.write_bytes(data)


def _cut(path: Path) -> None:
    open_for_writing(path).close()
    path.write_bytes(path.read_bytes()[: 4096 * 3])


@pytest.mark.parametrize("damage", [_garbage, _empty, _other, _flipped, _cut])
@pytest.mark.parametrize("open_it", [open_for_writing, open_for_reading])
def test_what_is_no_whole_ledger_is_refused_and_left_as_it_is(
    damage: object, open_it: object, path: Path
) -> None:
    assert callable(damage)
    assert callable(open_it)
    damage(path)
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="ledger"):
        open_it(path)
    assert path.read_bytes() == before


def test_a_missing_ledger_is_not_made_by_reading(path: Path) -> None:
    with pytest.raises(LedgerError, match="no ledger here"):
        open_for_reading(path)
    assert not path.exists()


def test_an_older_schema_is_backed_up_before_it_is_migrated(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_for_writing(path).close()
    monkeypatch.setattr(database, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
    with pytest.raises(LedgerError, match="run its manifest once"):
        open_for_reading(path)
    with closing(open_for_writing(path)) as conn:
        assert conn.execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION + 1
    backup = path.with_name(f"batchgen.db.schema{SCHEMA_VERSION}.bak")
    with closing(sqlite3.connect(backup)) as conn:
        assert conn.execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION


_KILLED_IN_A_TRANSACTION = """
import os, sqlite3, sys
conn = sqlite3.connect(sys.argv[1], isolation_level=None)
conn.execute("PRAGMA cache_size = 1")
conn.execute("BEGIN IMMEDIATE")
for n in range(2000):
    conn.execute("INSERT INTO prices VALUES (?, 'p', 'm' || ?, 1, 's', 't')", (n, n))
os.kill(os.getpid(), 9)
"""


def test_reading_after_a_kill_rolls_the_journal_back_first(path: Path) -> None:
    open_for_writing(path).close()
    subprocess.run([sys.executable, "-c", _KILLED_IN_A_TRANSACTION, str(path)], check=False)
    assert path.with_name("batchgen.db-journal").stat().st_size > 0
    with closing(open_for_reading(path)) as conn:
        assert conn.execute("SELECT count(*) FROM prices").fetchone()[0] == 0
