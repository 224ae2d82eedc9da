"""DiskSpace on the disk is looked at before requests leave, and no more often than it must be."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from batchgen.system.disk_space import KEPT_FREE_BYTES, RESPONSE_BYTES, DiskSpace, measure

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="statvfs is POSIX only"),
]


class Disk:
    """A fake ``os.statvfs`` that counts its calls."""

    def __init__(self, responses: float, files: int = 10_000) -> None:
        self.free = KEPT_FREE_BYTES + int(responses * RESPONSE_BYTES)
        self.files = files
        self.flags = 0
        self.blocks = 1 << 30
        self.calls = 0

    def __call__(self, place: object) -> SimpleNamespace:
        self.calls += 1
        return SimpleNamespace(
            f_bavail=self.free,
            f_frsize=1,
            f_blocks=self.blocks,
            f_files=self.files,
            f_favail=self.files,
            f_flag=self.flags,
        )


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk(responses=10.5)
    monkeypatch.setattr(os, "statvfs", made)
    return made


def test_measure_subtracts_the_reserve(disk: Disk) -> None:
    assert measure(Path("/")).responses == 10
    assert measure(Path("/"), RESPONSE_BYTES * 5).responses == 2
    disk.free = KEPT_FREE_BYTES - 1
    assert measure(Path("/")).responses == 0


def test_measure_counts_free_inodes(disk: Disk) -> None:
    disk.files = 20
    found = measure(Path("/"))
    assert (found.responses, found.limit) == (2, "20 more files can be created")
    disk.files = 0  # a file system without such a limit
    assert measure(Path("/")).responses == 10


def test_disk_of_unknown_size_has_space(disk: Disk) -> None:
    disk.blocks = disk.free = 0
    assert measure(Path("/")).responses > 1_000_000
    disk.flags = os.ST_RDONLY
    assert measure(Path("/")).responses == 0


async def test_measurement_is_reused_while_requests_fit(disk: Disk) -> None:
    now = [0.0]
    space = DiskSpace(Path("/"), clock=lambda: now[0])
    assert [await space.shortage(n) for n in (1, 2, 3)] == [None] * 3
    assert disk.calls == 1
    now[0] = 1.5
    assert await space.shortage(3) is None
    assert disk.calls == 2
    disk.free = 0
    for number in range(4, 11):  # seven more fit when it was measured
        assert await space.shortage(number) is None
    assert "not enough for the responses to 11 requests" in (await space.shortage(11) or "")
    assert disk.calls == 3


async def test_large_response_raises_the_expected_size(disk: Disk) -> None:
    space = DiskSpace(Path("/"))
    space.note_response(RESPONSE_BYTES * 2)  # doubled for its image
    space.note_response(10)
    disk.free = KEPT_FREE_BYTES + RESPONSE_BYTES * 4 * 4
    assert await space.shortage(4) is None
    assert "5 requests" in (await space.shortage(5) or "")
