"""One sync of a directory for all threads that wait for it, and never one that began too early."""

from __future__ import annotations

import errno
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from batchgen.system import directory_sync
from batchgen.system.directory_sync import DirectorySync


class Disk:
    """A disk whose syncs wait for the test, and which records what each of them began with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names = set[str]()
        self.synced: list[frozenset[str]] = []
        self.began = threading.Semaphore(0)
        self.may_end = threading.Semaphore(0)
        self.error: OSError | None = None
        monkeypatch.setattr(directory_sync, "sync_directory", self.sync)

    def sync(self, directory: Path) -> None:
        self.synced.append(frozenset(self.names))
        self.began.release()
        assert self.may_end.acquire(timeout=60)
        if self.error is not None:
            raise self.error


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def asked(sync: DirectorySync, directory: Path, calls: int) -> None:
    """Return once that many calls wait or are being served."""
    turn = sync._turn(directory)
    while turn.asked < calls:
        threading.Event().wait(0.001)


def test_calls_that_wait_share_one_sync(disk: Disk, tmp_path: Path) -> None:
    sync = DirectorySync()

    def place(name: str) -> bool:
        disk.names.add(name)
        sync.sync(tmp_path)
        return any(name in one for one in disk.synced)

    with ThreadPoolExecutor(9) as threads:
        first = threads.submit(place, "0")
        assert disk.began.acquire(timeout=60)
        others = [threads.submit(place, str(number)) for number in range(1, 9)]
        asked(sync, tmp_path, 9)
        disk.may_end.release(9)
        assert first.result(60)
        assert all(one.result(60) for one in others), "a sync that began too early was taken"
    assert disk.synced == [{"0"}, set("012345678")]


def test_a_failed_sync_fails_for_all_that_it_covers(disk: Disk, tmp_path: Path) -> None:
    """The system reports such an error once; another sync would succeed and prove nothing."""
    sync = DirectorySync()
    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(sync.sync, tmp_path)
        assert disk.began.acquire(timeout=60)
        others = [threads.submit(sync.sync, tmp_path) for _ in range(3)]
        asked(sync, tmp_path, 4)
        disk.may_end.release()
        assert first.result(60) is None
        assert disk.began.acquire(timeout=60)
        disk.error = OSError(errno.EIO, "Input/output error", str(tmp_path))
        disk.may_end.release()
        for one in others:
            with pytest.raises(OSError, match="Input/output error") as raised:
                one.result(60)
            assert raised.value.filename == str(tmp_path)
        disk.error = None
        disk.may_end.release()
        sync.sync(tmp_path)
    assert len(disk.synced) == 3


def test_directories_do_not_wait_for_each_other(disk: Disk, tmp_path: Path) -> None:
    sync = DirectorySync()
    with ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(sync.sync, tmp_path / name) for name in ("a", "b")]
        assert all(disk.began.acquire(timeout=60) for _ in calls)
        disk.may_end.release(2)
        for call in calls:
            call.result(60)


def test_a_missing_directory_is_reported(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        DirectorySync().sync(tmp_path / "missing")
