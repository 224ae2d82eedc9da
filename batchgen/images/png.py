"""Check the chunk structure of a PNG: https://www.w3.org/TR/png-3/."""

from __future__ import annotations

import struct
from typing import Final

from batchgen.images.formats import (
    MAX_PARTS,
    BadImage,
    Extent,
    Flaw,
    broken,
    check_pixels,
    printable,
    truncated,
)

try:
    from isal.isal_zlib import crc32
except ImportError:  # a platform for which it has no wheels
    from zlib import crc32

PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_BIT_DEPTHS: Final = {
    0: (1, 2, 4, 8, 16),
    2: (8, 16),
    3: (1, 2, 4, 8),
    4: (8, 16),
    6: (8, 16),
}
_PALETTE: Final = 3
_WITH_ALPHA: Final = (4, 6)
_C2PA: Final = b"caBX"
"""Chunk with a manifest of C2PA: https://c2pa.org/specifications/, "Embedding manifests"."""


def walk_png(view: memoryview, max_pixels: int) -> Extent:
    size = len(view)
    width = height = 0
    has_alpha = False
    seen: set[bytes] = set()
    pos = len(PNG_SIGNATURE)
    for _ in range(MAX_PARTS):
        if pos + 12 > size:
            raise truncated("the PNG")
        length, kind = struct.unpack_from(">I4s", view, pos)
        end = pos + 12 + length
        if end > size:
            raise truncated(f"PNG chunk {printable(kind)}")
        if crc32(view[pos + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise BadImage(Flaw.BAD_CRC, f"PNG chunk {printable(kind)} is damaged (CRC)")
        if (kind == b"IHDR") == bool(seen):
            raise broken("the PNG does not begin with exactly one header")
        if kind == b"IHDR":
            width, height = _size(view, pos + 8, length, max_pixels)
            has_alpha = view[pos + 17] in _WITH_ALPHA
            if view[pos + 17] != _PALETTE:
                seen.add(b"PLTE")  # only palette images need one
        elif kind == b"IEND":
            if length or not seen >= {b"IDAT", b"PLTE"}:
                raise broken("the PNG lacks its pixels or its palette")
            return Extent(width, height, end, has_alpha or b"tRNS" in seen, _C2PA in seen)
        elif kind == b"acTL" and b"IDAT" in seen:
            raise broken("the PNG's animation control comes after its pixels")
        if length:
            seen.add(kind)
        pos = end
    raise broken(f"the PNG has more than {MAX_PARTS:,} chunks")


def _size(view: memoryview, pos: int, length: int, max_pixels: int) -> tuple[int, int]:
    if length != 13:
        raise broken("the PNG header has a wrong length")
    width, height, depth, color, compression, filtering, interlace = struct.unpack_from(
        ">IIBBBBB", view, pos
    )
    if (
        depth not in _BIT_DEPTHS.get(color, ())
        or compression
        or filtering
        or interlace > 1
        or max(width, height) >= 1 << 31
    ):
        raise broken("the PNG header contains invalid values")
    check_pixels(width, height, max_pixels)
    return width, height
