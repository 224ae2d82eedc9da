"""Buffers of files that grow while their common allowance lasts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.system.atomic_files import PartFile
from batchgen.system.write_buffers import BufferAllowance, WriteBuffer


@pytest.mark.parametrize(
    ("total", "most", "held", "has_room", "size"),
    [
        (0, 40, 9, True, 10),
        (0, 40, 10, False, 10),
        (9, 40, 10, False, 10),
        (10, 40, 10, True, 20),
        (99, 40, 25, True, 30),
        (99, 40, 39, True, 40),
        (99, 40, 40, False, 40),
        (99, 45, 44, False, 40),
    ],
)
def test_buffer_grows_by_its_own_size(
    total: int, most: int, held: int, has_room: bool, size: int
) -> None:
    buffer = WriteBuffer(10, BufferAllowance(total), most)
    assert buffer.has_room(held) is has_room
    assert buffer.size_bytes == size


def test_buffer_without_an_allowance_keeps_its_size() -> None:
    buffer = WriteBuffer(10)
    assert not buffer.has_room(10)
    buffer.shrink()
    assert buffer.size_bytes == 10


@given(steps=st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 70)), max_size=60))
def test_buffers_never_take_more_than_the_allowance(steps: list[tuple[int, int]]) -> None:
    """A negative number of held bytes is the end of a file."""
    allowance = BufferAllowance(55)
    buffers = [WriteBuffer(10, allowance, 60) for _ in range(5)]
    for number, held in steps:
        buffer = buffers[number]
        if held < 0:
            buffer.shrink()
        else:
            assert buffer.has_room(held) <= (held < buffer.size_bytes)
        assert sum(one.size_bytes - 10 for one in buffers) <= 55
    for buffer in buffers:
        buffer.shrink()
    assert allowance.take(55)


@pytest.mark.anyio
@pytest.mark.parametrize(("total", "in_memory"), [(2_000_000, True), (100_000, False)])
async def test_part_with_room_keeps_its_whole_content(
    total: int, in_memory: bool, tmp_path: Path
) -> None:
    """An image that is in memory as a whole is verified without reading it back."""
    allowance = BufferAllowance(total)
    buffer = WriteBuffer(500_000, allowance, 4_000_000)
    content = bytes(range(256)) * 6_000
    async with PartFile(tmp_path / "image", buffer=buffer) as part:
        for start in range(0, len(content), 100_000):
            await part.write(content[start : start + 100_000])
        kept = await part.seal_content(lambda path, found: found)
        assert kept == (content if in_memory else None)
        await part.commit()
    assert (tmp_path / "image").read_bytes() == content
    assert allowance.take(total), "all is given back"
