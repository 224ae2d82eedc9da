"""Check the block structure of a GIF: https://www.w3.org/Graphics/GIF/spec-gif89a.txt."""

from __future__ import annotations

import struct
from typing import Final

from batchgen.images.formats import MAX_PARTS, Extent, broken, check_pixels, truncated

GIF_SIGNATURES: Final = (b"GIF87a", b"GIF89a")
_TRAILER, _EXTENSION, _IMAGE = 0x3B, 0x21, 0x2C
_GRAPHIC_CONTROL: Final = 0xF9
_TRANSPARENT: Final = 0x01
_HAS_TABLE: Final = 0x80
_HEADER_BYTES: Final = 13
_DESCRIPTOR_BYTES: Final = 10


def walk_gif(view: memoryview, max_pixels: int) -> Extent:
    """Walk the blocks to the trailer; a GIF without one was cut off. Raises BadImage."""
    size = len(view)
    if size < _HEADER_BYTES:
        raise truncated("the GIF")
    width, height, flags = struct.unpack_from("<HHB", view, 6)
    check_pixels(width, height, max_pixels)
    pos = _HEADER_BYTES + _table_bytes(flags)
    has_frame = has_alpha = False
    for _ in range(MAX_PARTS):
        if pos >= size:
            raise truncated("the GIF")
        block = view[pos]
        if block == _TRAILER:
            if not has_frame:
                raise broken("the GIF holds no pixels")
            return Extent(width, height, pos + 1, has_alpha)
        if block == _EXTENSION:
            if pos + 4 > size:
                raise truncated("a GIF extension")
            is_control = view[pos + 1] == _GRAPHIC_CONTROL and view[pos + 2]
            has_alpha = has_alpha or bool(is_control and view[pos + 3] & _TRANSPARENT)
            pos = _end_of_blocks(view, pos + 2)
        elif block == _IMAGE:
            pos = _end_of_frame(view, pos, max_pixels)
            has_frame = True
        else:
            raise broken(f"GIF data at byte {pos:,} where a block should be")
    raise broken(f"the GIF has more than {MAX_PARTS:,} blocks")


def _end_of_frame(view: memoryview, pos: int, max_pixels: int) -> int:
    """Return the end of the frame whose descriptor begins here."""
    data = pos + _DESCRIPTOR_BYTES
    if data > len(view):
        raise truncated("a GIF frame")
    width, height, flags = struct.unpack_from("<HHB", view, pos + 5)
    check_pixels(width, height, max_pixels)
    data += _table_bytes(flags) + 1  # and the code size
    end = _end_of_blocks(view, data)
    if end <= data + 1:
        raise broken("a GIF frame holds no pixels")
    return end


def _end_of_blocks(view: memoryview, pos: int) -> int:
    """Return the end of the sub-blocks that begin here; an empty one is the last."""
    size = len(view)
    while pos < size:
        length = view[pos]
        pos += 1 + length
        if not length:
            return pos
    raise truncated("the GIF")


def _table_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & _HAS_TABLE else 0
