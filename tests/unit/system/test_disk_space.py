"""Room on the disk is looked at before requests leave, and no more often than it must be."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from batchgen.system.disk_space import KEPT_FREE_BYTES, RESPONSE_BYTES, Room, look

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="statvfs is of POSIX"),
]


class Disk:
    """What the system says of every file system, and how often it was asked."""

    def __init__(self, responses: float, files: int = 10_000) -> None:
        self.free = KEPT_FREE_BYTES + int(responses * RESPONSE_BYTES)
        self.files = files
        self.flags = 0
        self.blocks = 1 << 30
        self.looks = 0

    def __call__(self, place: object) -> SimpleNamespace:
        self.looks += 1
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


def test_a_disk_takes_as_many_responses_as_fit_beside_what_is_kept_free(disk: Disk) -> None:
    assert look(Path("/")).fits == 10
    assert look(Path("/"), RESPONSE_BYTES * 5).fits == 2
    disk.free = KEPT_FREE_BYTES - 1
    assert look(Path("/")).fits == 0


def test_files_run_out_before_bytes_do(disk: Disk) -> None:
    disk.files = 20
    assert (look(Path("/")).fits, look(Path("/")).state) == (2, "20 more files can be made")
    disk.files = 0  # a file system without such a limit
    assert look(Path("/")).fits == 10


def test_a_disk_that_does_not_know_its_size_is_taken_at_its_word(disk: Disk) -> None:
    disk.blocks = disk.free = 0
    assert look(Path("/")).fits > 1_000_000
    disk.flags = os.ST_RDONLY
    assert look(Path("/")).fits == 0


async def test_one_look_does_for_a_second_and_for_as_many_requests_as_fit(disk: Disk) -> None:
    now = [0.0]
    room = Room(Path("/"), clock=lambda: now[0])
    assert [await room.lacking(n) for n in (1, 2, 3)] == [None] * 3
    assert disk.looks == 1
    now[0] = 1.5
    assert await room.lacking(3) is None
    assert disk.looks == 2
    disk.free = 0
    for number in range(4, 11):  # seven more fitted when it was looked at
        assert await room.lacking(number) is None
    assert "too little for the answers to 11 requests" in (await room.lacking(11) or "")
    assert disk.looks == 3


async def test_a_large_response_makes_the_next_ones_need_as_much(disk: Disk) -> None:
    room = Room(Path("/"))
    room.came(RESPONSE_BYTES * 2)  # and its image besides
    room.came(10)
    disk.free = KEPT_FREE_BYTES + RESPONSE_BYTES * 4 * 4
    assert await room.lacking(4) is None
    assert "5 requests" in (await room.lacking(5) or "")
