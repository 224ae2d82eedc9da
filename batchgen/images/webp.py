"""Check the chunk structure of a WebP: RFC 9649; its VP8 frame header: RFC 6386, section 9.1."""

from __future__ import annotations

import struct
from typing import Final

from batchgen.images.formats import (
    MAX_PARTS,
    Extent,
    broken,
    check_pixels,
    printable,
    truncated,
)

_VP8X_ALPHA: Final = 0x10
_VP8L_ALPHA: Final = 0x10
"""In the last byte of the frame's header, above the version."""
_VP8_START: Final = b"\x9d\x01\x2a"
_FRAME_HEAD_BYTES: Final = 16 + 8
"""What precedes the pixels in a frame of an animation."""
_C2PA: Final = b"C2PA"
"""Chunk with a manifest of C2PA: https://c2pa.org/specifications/, "Embedding manifests"."""


def walk_webp(view: memoryview, max_pixels: int) -> Extent:
    end = 8 + int.from_bytes(view[4:8], "little")
    if end > len(view):
        raise truncated("the WebP")
    canvas: tuple[int, int] | None = None
    frame: tuple[int, int] | None = None
    has_alpha = is_signed = False
    pos = 12
    for _ in range(MAX_PARTS):
        if pos == end:
            break
        if pos + 8 > end:
            raise broken("the WebP chunks do not fill the size in the header")
        kind, length = struct.unpack_from("<4sI", view, pos)
        body, pos = pos + 8, pos + 8 + length + length % 2
        if pos > end:
            raise broken(f"WebP chunk {printable(kind)} is longer than the file")
        if kind == b"VP8X":
            if body != 20:
                raise broken("the extended WebP header is not the first chunk")
            canvas = _canvas_size(view, body, length)
            has_alpha = bool(view[body] & _VP8X_ALPHA)
            check_pixels(*canvas, max_pixels)
        elif kind in (b"VP8 ", b"VP8L"):
            if frame is not None:
                raise broken("the WebP has two frames")
            frame = (_vp8_size if kind == b"VP8 " else _vp8l_size)(view, body, length)
            if kind == b"VP8L" and canvas is None:
                has_alpha = bool(view[body + 4] & _VP8L_ALPHA)
            check_pixels(*frame, max_pixels)
        elif kind == b"ANMF" and canvas is not None:
            if length <= _FRAME_HEAD_BYTES:
                raise broken("a frame of the WebP animation holds no pixels")
            frame = canvas
        elif kind == _C2PA:
            is_signed = True
    else:
        raise broken(f"the WebP has more than {MAX_PARTS:,} chunks")
    if frame is None:
        raise broken("the WebP contains no pixels")
    if canvas not in (None, frame):
        raise broken("the WebP canvas and its frame differ in size")
    return Extent(*frame, end, has_alpha, is_signed)


def _canvas_size(view: memoryview, body: int, length: int) -> tuple[int, int]:
    if length < 10:
        raise broken("the extended WebP header is too short")
    width = int.from_bytes(view[body + 4 : body + 7], "little") + 1
    height = int.from_bytes(view[body + 7 : body + 10], "little") + 1
    return width, height


def _vp8_size(view: memoryview, body: int, length: int) -> tuple[int, int]:
    if length <= 10 or bytes(view[body + 3 : body + 6]) != _VP8_START or view[body] & 1:
        raise broken("the WebP frame is not a VP8 key frame")
    first_partition = int.from_bytes(view[body : body + 3], "little") >> 5
    if 10 + first_partition > length:
        raise truncated("the WebP's VP8 frame")
    width, height = struct.unpack_from("<HH", view, body + 6)
    return width & 0x3FFF, height & 0x3FFF


def _vp8l_size(view: memoryview, body: int, length: int) -> tuple[int, int]:
    if length <= 5 or view[body] != 0x2F:
        raise broken("the WebP frame is not a VP8L stream")
    bits = int.from_bytes(view[body + 1 : body + 5], "little")
    if bits >> 29:
        raise broken("the WebP frame is of an unknown VP8L version")
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
