"""Check from its boxes whether an MP4 video is complete, and return its frame size.

Boxes: ISO/IEC 14496-12, sections 4.2 and 8. Samples are not decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from batchgen.images.formats import BadImage, Flaw, ImageFormat, ImageInfo

if TYPE_CHECKING:
    from batchgen.images.formats import Octets

_MAX_BOXES: Final = 65_536
_FIXED_POINT: Final = 1 << 16
_TKHD_SIZE_BYTES: Final = 8
"""Width and height, each 16.16 fixed point, end a track header of either version."""


def inspect_mp4(data: Octets) -> ImageInfo:
    """Walk a video's boxes to its end. Raises BadImage, and nothing else for any content."""
    with memoryview(data) as view:
        if bytes(view[4:8]) != b"ftyp":
            raise BadImage(Flaw.NOT_AN_IMAGE, "the file does not begin like an MP4 video")
        boxes: dict[bytes, list[tuple[int, int]]] = {}
        for kind, start, end in _boxes(view, 0, len(view)):
            boxes.setdefault(kind, []).append((start, end))
        if b"moov" not in boxes:
            raise BadImage(Flaw.TRUNCATED, "the MP4 has no index (moov); it is cut off")
        if not any(end > start for start, end in boxes.get(b"mdat", [])):
            raise BadImage(Flaw.BAD_STRUCTURE, "the MP4 contains no media (mdat)")
        width, height = _frame_size(view, *boxes[b"moov"][0])
        return ImageInfo(format=ImageFormat.MP4, width=width, height=height, size_bytes=len(view))


def _boxes(view: memoryview, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield each box's type and the extent of its content."""
    for _ in range(_MAX_BOXES):
        if start == end:
            return
        if start + 8 > end:
            raise BadImage(Flaw.TRUNCATED, "the MP4 is cut off in the head of a box")
        size, kind = struct.unpack_from(">I4s", view, start)
        head = 8
        if size == 1 and start + 16 <= end:
            size, head = int.from_bytes(view[start + 8 : start + 16], "big"), 16
        elif size == 0:
            size = end - start
        if size < head:
            raise BadImage(Flaw.BAD_STRUCTURE, f"MP4 box {kind!r} has an impossible size")
        if start + size > end:
            raise BadImage(Flaw.TRUNCATED, f"MP4 box {kind!r} is cut off")
        yield kind, start + head, start + size
        start += size
    raise BadImage(Flaw.BAD_STRUCTURE, f"the MP4 has more than {_MAX_BOXES:,} boxes")


def _frame_size(view: memoryview, start: int, end: int) -> tuple[int, int]:
    """Return the size of the first track that has one; sound has none."""
    for kind, track, track_end in _boxes(view, start, end):
        if kind != b"trak":
            continue
        for inner, content, content_end in _boxes(view, track, track_end):
            if inner == b"tkhd" and content_end - content >= _TKHD_SIZE_BYTES:
                size = struct.unpack_from(">II", view, content_end - _TKHD_SIZE_BYTES)
                width, height = (side // _FIXED_POINT for side in size)
                if width and height:
                    return width, height
    raise BadImage(Flaw.BAD_STRUCTURE, "the MP4 has no video track")
