"""One run a batch, held by the operating system: real processes, really killed."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from batchgen.errors import BatchLockedError, ExitCode, LedgerError
from batchgen.ledger.database import open_for_writing
from batchgen.session.batch_lock import batch_lock, owner_of

_HOLD = """
import sys
from pathlib import Path
from batchgen.session.batch_lock import batch_lock
with batch_lock(Path(sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_elsewhere(path: Path, batch: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the batch until the block ends."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path), batch],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "batchgen.db"


@pytest.mark.fault("Q02")
def test_second_process_is_refused_with_the_name_of_the_batch(path: Path) -> None:
    with (
        held_elsewhere(path, "catalog") as process,
        pytest.raises(BatchLockedError) as caught,
        batch_lock(path, "catalog"),
    ):
        pytest.fail("two processes hold one batch")
    assert caught.value.exit_code is ExitCode.LOCKED
    if sys.platform == "linux":
        assert str(caught.value).startswith(f"catalog is in use by pid {process.pid} of ")
    assert str(caught.value).endswith("nothing was changed. Look: batchgen status catalog")


@pytest.mark.fault("Q02")
@pytest.mark.skipif(sys.platform != "linux", reason="only there a lock names its process")
def test_a_refusal_does_not_wait_for_a_locked_ledger(path: Path) -> None:
    """The run that holds the batch may be stopped in the middle of a commit."""
    open_for_writing(path).close()
    with (
        held_elsewhere(path, "catalog") as process,
        closing(sqlite3.connect(path, isolation_level=None)) as committing,
    ):
        committing.execute("PRAGMA locking_mode = EXCLUSIVE").fetchone()
        committing.execute("BEGIN EXCLUSIVE")
        with pytest.raises(BatchLockedError, match=f"in use by pid {process.pid} of "):
            _hold(path, "catalog")


def test_command_that_holds_a_batch_for_a_moment_is_waited_for(path: Path) -> None:
    """The review page holds it while it publishes; a nightly run must not fail of that."""
    with held_elsewhere(path, "catalog") as process:
        assert process.stdin is not None
        release = threading.Timer(0.2, process.stdin.close)
        release.start()
        _hold(path, "catalog")
        release.join()


@pytest.mark.fault("XD3")
def test_one_process_holds_two_batches_of_a_ledger(path: Path) -> None:
    with batch_lock(path, "catalog"):
        with batch_lock(path, "hero"):
            with pytest.raises(BatchLockedError, match=f"pid {os.getpid()}"):
                _hold(path, "catalog")
            found = owner_of(path, "hero")
            assert found is not None
            assert found.owner.pid == os.getpid()
        # The end of one batch must not drop the lock of the other.
        with held_elsewhere(path, "hero"):
            assert _refused_elsewhere(path, "catalog")
            found = owner_of(path, "hero")
            assert found is None or found.owner.pid != os.getpid()
        assert _refused_elsewhere(path, "catalog"), "a look at another batch dropped the lock"
    with held_elsewhere(path, "catalog"):
        pass


def _hold(ledger: Path, batch: str) -> None:
    with batch_lock(ledger, batch):
        pass


def _refused_elsewhere(ledger: Path, batch: str) -> bool:
    """Whether another process is refused the batch."""
    done = subprocess.run(
        [sys.executable, "-c", _HOLD, str(ledger), batch],
        stdin=subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    return "BatchLockedError" in done.stderr


@pytest.mark.fault("Q03")
def test_a_killed_process_holds_nothing(path: Path) -> None:
    with held_elsewhere(path, "catalog") as process:
        process.kill()
        process.wait()
        with batch_lock(path, "catalog"):
            pass


def test_a_process_that_ends_holds_nothing(path: Path) -> None:
    with held_elsewhere(path, "catalog"):
        pass
    with batch_lock(path, "catalog"):
        pass


def test_a_refusal_takes_nothing_from_the_holder(path: Path) -> None:
    with held_elsewhere(path, "catalog"):
        for _ in range(2):
            with pytest.raises(BatchLockedError), batch_lock(path, "catalog"):
                pass


@pytest.mark.parametrize(
    ("other_ledger", "other_batch"), [("batchgen.db", "hero"), ("other.db", "catalog")]
)
def test_other_batches_and_other_ledgers_are_free(
    other_ledger: str, other_batch: str, path: Path
) -> None:
    with held_elsewhere(path, "catalog"), batch_lock(path.parent / other_ledger, other_batch):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_a_link_to_a_ledger_shares_its_lock(path: Path) -> None:
    path.touch()
    link = path.with_name("link.db")
    link.symlink_to(path)
    with (
        held_elsewhere(path, "catalog"),
        pytest.raises(BatchLockedError),
        batch_lock(link, "catalog"),
    ):
        pass


def test_lock_is_released_after_the_block_even_on_errors(path: Path) -> None:
    with pytest.raises(ValueError, match="mine"), batch_lock(path, "catalog"):
        raise ValueError("mine")
    with held_elsewhere(path, "catalog"):
        pass


def test_locking_makes_the_directory_and_not_the_ledger(tmp_path: Path) -> None:
    ledger = tmp_path / "jobs" / "batchgen.db"
    with batch_lock(ledger, "catalog"):
        assert [file.name for file in ledger.parent.iterdir()] == ["batchgen.db.lock"]
        (lock,) = ledger.parent.iterdir()
        assert stat.S_IMODE(lock.stat().st_mode) == 0o600 or sys.platform == "win32"
        assert lock.stat().st_size == 0


def test_place_without_a_possible_lock_is_a_ledger_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    place = tmp_path / "file" / "batchgen.db"
    with pytest.raises(LedgerError, match="lock can't be made"), batch_lock(place, "catalog"):
        pass
