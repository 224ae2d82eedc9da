"""A GIF is complete up to its trailer, or refused."""

from __future__ import annotations

import struct

import pytest

from batchgen.images.formats import BadImage, Flaw
from batchgen.images.inspect import MAX_PIXELS, decode, inspect
from tests.support.images import SMALL

PIXELS = bytes([2, 2, 0x4C, 1, 0])
"""LZW data of one pixel: code size, a sub-block, and the end."""
TRAILER = b";"


def head(width: int = 1, height: int = 1, table: int = 0) -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80 | table, 0, 0) + bytes(6 << table)


def frame(width: int = 1, height: int = 1, data: bytes = PIXELS, flags: int = 0) -> bytes:
    return b"," + struct.pack("<HHHHB", 0, 0, width, height, flags) + data


def extension(label: int, *blocks: bytes) -> bytes:
    body = b"".join(bytes([len(block)]) + block for block in blocks)
    return bytes([0x21, label]) + body + b"\0"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GIF89a", Flaw.TRUNCATED),
        (head(), Flaw.TRUNCATED),
        (head() + TRAILER, Flaw.BAD_STRUCTURE),
        (head() + frame(), Flaw.TRUNCATED),
        (head() + frame(data=b"\2\0") + TRAILER, Flaw.BAD_STRUCTURE),
        (head() + frame(width=0) + TRAILER, Flaw.BAD_STRUCTURE),
        (head(0, 0) + frame() + TRAILER, Flaw.BAD_STRUCTURE),
        (head() + frame() + b"\0" + TRAILER, Flaw.BAD_STRUCTURE),
        (head() + frame()[:-1], Flaw.TRUNCATED),
        (head() + b"!\xfe", Flaw.TRUNCATED),
        (head() + extension(0xFE, b"a mug")[:-1], Flaw.TRUNCATED),
        (head(60_000, 60_000) + frame() + TRAILER, Flaw.TOO_MANY_PIXELS),
        (head() + frame(60_000, 60_000) + TRAILER, Flaw.TOO_MANY_PIXELS),
        (head() + extension(0xFE) * 70_000 + frame() + TRAILER, Flaw.BAD_STRUCTURE),
    ],
)
def test_gif_of_wrong_structure_is_refused(data: bytes, reason: Flaw) -> None:
    whole = head() + extension(0xFE, b"a mug;") + frame() + TRAILER
    assert inspect(whole).width == 1
    with pytest.raises(BadImage) as caught:
        inspect(data)
    assert caught.value.reason is reason


def test_color_tables_are_skipped() -> None:
    local = frame(data=b";" * 12 + PIXELS, flags=0x81)
    info = inspect(head(3, 2, table=7)[:13] + b";" * 768 + local + TRAILER)
    assert (info.width, info.height) == (3, 2)


def test_pixels_that_do_not_decode_are_found(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("gif") / "a.gif"
    path.write_bytes(head(200, 200) + frame(200, 200) + TRAILER)
    assert inspect(path.read_bytes()).width == 200
    with pytest.raises(BadImage, match="the gif cannot be decoded"):
        decode(path)


def test_gif_within_the_pixel_limit_is_accepted() -> None:
    data = SMALL["gif animated"][1]
    assert inspect(data, max_pixels=13 * 9).height == 9
    assert MAX_PIXELS > 13 * 9
