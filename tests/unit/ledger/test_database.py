"""The ledger's file: created whole, migrated with a backup, never recreated, never overwritten."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from sqlite_utils import Database

from batchgen.errors import LedgerError
from batchgen.ledger import database
from batchgen.ledger.busy import Patience
from batchgen.ledger.database import open_for_reading, open_for_writing
from batchgen.ledger.schema import SCHEMA_VERSION, migrations
from batchgen.system.failpoints import Point
from tests.support import rig
from tests.support.old_ledgers import TWO_BATCHES, with_next


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "batchgen.db"


@pytest.mark.fault("Q15")
def test_new_ledger_is_complete_and_leaves_no_other_files(path: Path) -> None:
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


@pytest.mark.fault("Q08")
def test_a_newer_schema_is_refused_and_not_changed(path: Path) -> None:
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
    path.write_bytes(b"not a database" * 100)


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


@pytest.mark.fault("Q04", "Q05")
@pytest.mark.parametrize("damage", [_garbage, _empty, _other, _flipped, _cut])
@pytest.mark.parametrize("open_it", [open_for_writing, open_for_reading])
def test_damaged_ledger_is_refused_and_left_as_it_is(
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
    with pytest.raises(LedgerError, match="no such ledger"):
        open_for_reading(path)
    assert not path.exists()


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> int:
    """A batchgen whose schema has one more step than the ledgers that were made before."""
    monkeypatch.setattr(database, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
    monkeypatch.setattr(database, "migrations", lambda: with_next(migrations()))
    return SCHEMA_VERSION + 1


@pytest.fixture
def old(path: Path) -> Path:
    """A ledger of the schema before, with a row in it."""
    with closing(open_for_writing(path)) as conn:
        conn.execute("INSERT INTO prices VALUES (1, 'p', 'm', 1, 's', 't')")
    return path


def _backup_of(path: Path) -> Path:
    return path.with_name(f"batchgen.db.schema{SCHEMA_VERSION}.bak")


def _version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as conn:
        return int(conn.execute("PRAGMA user_version").fetchone()[0])


def test_ledger_of_schema_2_gets_a_count_of_cut_uploads(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        migrations().apply(Database(conn), stop_before="0003_money_safety")
        conn.execute("PRAGMA user_version = 2")
        conn.executescript(TWO_BATCHES)
    with closing(open_for_writing(path)) as conn:
        assert {row[0] for row in conn.execute("SELECT cuts FROM jobs")} == {0}
    assert _version(path) == SCHEMA_VERSION


def test_a_ledger_without_tallies_is_counted_once(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        migrations().apply(Database(conn), stop_before="0002_tallies")
        conn.execute("PRAGMA user_version = 1")
        conn.executescript(TWO_BATCHES)
    with closing(open_for_writing(path)) as conn:
        assert rig.tallies(conn) == rig.counted(conn)
        assert rig.tallies(conn) == {
            "batches": [(1, 4, 1, 30, 2, 2), (2, 0, 0, 0, 0, 0)],
            "runs": [(1, 3)],
        }
        conn.execute(
            "UPDATE jobs SET state = 'done', retired = 0, estimated = 1 WHERE id IN (1, 4)"
        )
        conn.execute("UPDATE images SET state = 'replaced' WHERE attempt_id = 'a2'")
        conn.execute("UPDATE attempts SET billed = 'no' WHERE id = 'a4'")
        assert rig.tallies(conn) == rig.counted(conn)
    assert _version(path.with_name("batchgen.db.schema1.bak")) == 1


def test_a_ledger_of_schema_2_gets_canaries_and_place_times(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        migrations().apply(Database(conn), stop_before="0003_money_safety")
        conn.execute("PRAGMA user_version = 2")
        conn.execute("INSERT INTO rates (key, unit, due) VALUES ('k', 'requests', 5.0)")
    with closing(open_for_writing(path)) as conn:
        assert tuple(conn.execute("SELECT due, taken_at FROM rates").fetchone()) == (5.0, 0.0)
        assert conn.execute("SELECT count(*) FROM canaries").fetchone()[0] == 0
    assert _version(path.with_name("batchgen.db.schema2.bak")) == 2


def test_a_ledger_of_schema_2_gets_money_and_renewal(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        migrations().apply(Database(conn), stop_before="0003_money_safety")
        conn.execute("PRAGMA user_version = 2")
        conn.executescript(TWO_BATCHES)
        before = conn.execute("SELECT sum(spent) FROM days").fetchone()[0]
    with closing(open_for_writing(path)) as conn:
        rows = conn.execute("SELECT possible, refunded, price_known, least FROM attempts")
        assert {tuple(row) for row in rows} == {(0, 0, 1, None)}
        conn.execute("UPDATE attempts SET possible = 7 WHERE id = 'a2' AND billed = 'yes'")
        assert conn.execute("SELECT sum(spent) FROM days").fetchone()[0] == before + 7
        assert conn.execute("SELECT DISTINCT renewal FROM jobs").fetchone()[0] is None
    assert _version(path.with_name("batchgen.db.schema2.bak")) == 2


@pytest.mark.fault("XA1")
def test_images_of_schema_2_have_no_tries_yet(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        migrations().apply(Database(conn), stop_before="0003_money_safety")
        conn.execute("PRAGMA user_version = 2")
        conn.executescript(TWO_BATCHES)
    with closing(open_for_writing(path)) as conn:
        assert _version(path) == SCHEMA_VERSION
        rows = conn.execute(
            "SELECT DISTINCT tries, tried_at, trouble, not_before, refetched FROM images"
        ).fetchall()
        assert [tuple(row) for row in rows] == [(0, None, None, None, 0)]
    assert _version(path.with_name("batchgen.db.schema2.bak")) == 2


@pytest.mark.fault("Q07")
def test_an_older_schema_is_backed_up_and_then_migrated(old: Path, newer: int) -> None:
    with closing(open_for_writing(old)) as conn:
        assert conn.execute("SELECT count(*) FROM next").fetchone()[0] == 0
        assert conn.execute("SELECT count(*) FROM prices").fetchone()[0] == 1
    assert _version(old) == newer
    with closing(sqlite3.connect(_backup_of(old))) as conn:
        assert conn.execute("SELECT count(*) FROM prices").fetchone()[0] == 1
    assert _version(_backup_of(old)) == SCHEMA_VERSION
    assert stat.S_IMODE(_backup_of(old).stat().st_mode) == 0o600, "prompts are private"


def test_reading_never_migrates(old: Path, newer: int) -> None:
    before = old.read_bytes()
    with pytest.raises(LedgerError, match=f"schema {SCHEMA_VERSION}, .* {newer}: run its manifest"):
        open_for_reading(old)
    assert old.read_bytes() == before
    assert not _backup_of(old).exists()


@pytest.mark.fault("Q07")
def test_a_migration_that_fails_leaves_the_old_ledger(
    old: Path, newer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = with_next(migrations())

    @steps(name="9999_last")
    def _last(db: Database) -> None:
        db.execute("CREATE TABLE half (id INTEGER)")
        db.execute("SELECT * FROM there_is_no_such_table")

    monkeypatch.setattr(database, "migrations", lambda: steps)
    with pytest.raises(LedgerError, match="there_is_no_such_table"):
        open_for_writing(old)
    with closing(sqlite3.connect(old)) as conn:
        tables = {row[0] for row in conn.execute("SELECT name FROM sqlite_master")}
    assert not tables & {"next", "half"}
    assert _version(old) == SCHEMA_VERSION


_KILLED_AS_IT_MIGRATES = """
import sys
from pathlib import Path
from batchgen.system import failpoints
from batchgen.ledger import database, schema
from tests.support.old_ledgers import with_next
database.SCHEMA_VERSION += 1
database.migrations = lambda: with_next(schema.migrations())
failpoints.arm(sys.argv[2])
database.open_for_writing(Path(sys.argv[1]))
"""


@pytest.mark.fault("Q13")
@pytest.mark.parametrize("point", [Point.BACKED_UP, Point.MIGRATED])
def test_a_migration_that_is_killed_is_made_by_the_next_start(
    point: Point, old: Path, newer: int
) -> None:
    killed = _python(_KILLED_AS_IT_MIGRATES, old, point)
    assert killed.returncode != 0
    assert killed.stderr == "", "it must end by the kill"
    assert _version(old) == SCHEMA_VERSION
    with closing(open_for_writing(old)) as conn:
        assert conn.execute("SELECT count(*) FROM next").fetchone()[0] == 0
        assert conn.execute("SELECT count(*) FROM prices").fetchone()[0] == 1
    assert _version(old) == newer
    assert _version(_backup_of(old)) == SCHEMA_VERSION


def test_simultaneous_migrations_keep_the_first_backup(old: Path, newer: int) -> None:
    """Two lines of a crontab, after an upgrade."""
    with (
        closing(database._connect(old)) as slow,
        closing(open_for_writing(old)),
    ):
        database._migrate(slow, old)
    assert _version(_backup_of(old)) == SCHEMA_VERSION
    files = {file.name.removesuffix("-journal") for file in old.parent.iterdir()}
    assert files == {old.name, _backup_of(old).name}


@pytest.mark.fault("D22")
def test_a_new_ledger_is_its_owners_alone(path: Path) -> None:
    open_for_writing(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.fault("Q01")
def test_a_ledger_that_is_busy_is_not_called_damaged(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_for_writing(path).close()
    monkeypatch.setattr(database, "patience", Patience(wait_s=0.05))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        for open_it in (open_for_writing, open_for_reading):
            with pytest.raises(LedgerError, match="locked") as caught:
                open_it(path)
            assert "damaged" not in str(caught.value)


_UNPRIVILEGED = """
import os, sys
import urllib.parse  # pathlib of 3.13 imports it when it is used, which may be too late
from contextlib import closing
from pathlib import Path
from batchgen.errors import LedgerError
from batchgen.ledger.database import open_for_reading, open_for_writing
path = Path(sys.argv[1])
if os.geteuid() == 0:  # whom no permission stops
    os.setgid(65534)
    os.setuid(65534)
with closing(open_for_reading(path)) as conn:
    print(conn.execute("SELECT count(*) FROM prices").fetchone()[0])
try:
    open_for_writing(path)
except LedgerError as exc:
    print(exc)
"""


@pytest.mark.fault("Q06")
@pytest.mark.skipif(sys.platform == "win32", reason="permissions are those of POSIX")
def test_a_read_only_ledger_is_read_and_refuses_writing_at_once() -> None:
    with tempfile.TemporaryDirectory() as directory:  # pytest's own are closed to others
        Path(directory).chmod(0o755)
        path = Path(directory) / "batchgen.db"
        open_for_writing(path).close()
        path.chmod(0o444)
        done = _python(_UNPRIVILEGED, path)
    assert done.stdout.startswith("0\n"), done.stderr
    assert "can't be opened for writing: attempt to write a readonly database" in done.stdout


def _python(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )


def test_two_that_create_a_ledger_at_once_share_one(path: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        for conn in threads.map(lambda _: open_for_writing(path), range(4)):
            with closing(conn):
                conn.execute("INSERT INTO prices VALUES (NULL, 'p', 'm', 1, random(), 't')")
    with closing(open_for_reading(path)) as conn:
        assert conn.execute("SELECT count(*) FROM prices").fetchone()[0] == 4
    assert {file.name.removesuffix("-journal") for file in path.parent.iterdir()} == {path.name}


def test_directory_is_refused_as_a_ledger(tmp_path: Path) -> None:
    for open_it in (open_for_writing, open_for_reading):
        with pytest.raises(LedgerError, match="unable to open"):
            open_it(tmp_path)


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
    _python(_KILLED_IN_A_TRANSACTION, path)
    assert path.with_name("batchgen.db-journal").stat().st_size > 0
    with closing(open_for_reading(path)) as conn:
        assert conn.execute("SELECT count(*) FROM prices").fetchone()[0] == 0
