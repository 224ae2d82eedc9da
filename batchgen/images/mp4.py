"""Check from its boxes whether an MP4 video is complete, and return its frame size.

Boxes: ISO/IEC 14496-12, sections 4.2 and 8. Samples are not decoded.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from batchgen.images.boxes import boxes
from batchgen.images.formats import BadImage, Flaw, ImageFormat, ImageInfo

if TYPE_CHECKING:
    from batchgen.images.formats import Octets

_FILE: Final = "MP4"
_FIXED_POINT: Final = 1 << 16
_TKHD_SIZE_BYTES: Final = 8
"""Width and height, each 16.16 fixed point, end a track header of either version."""


def inspect_mp4(data: Octets) -> ImageInfo:
    """Walk a video's boxes to its end. Raises BadImage, and nothing else for any content."""
    with memoryview(data) as view:
        if bytes(view[4:8]) != b"ftyp":
            raise BadImage(Flaw.NOT_AN_IMAGE, "the file does not begin like an MP4 video")
        found: dict[bytes, list[tuple[int, int]]] = {}
        for box in boxes(view, 0, len(view), file=_FILE):
            found.setdefault(box.kind, []).append((box.start, box.end))
        if b"moov" not in found:
            raise BadImage(Flaw.TRUNCATED, "the MP4 has no index (moov); it is cut off")
        if not any(end > start for start, end in found.get(b"mdat", [])):
            raise BadImage(Flaw.BAD_STRUCTURE, "the MP4 contains no media (mdat)")
        width, height = frame_size(view, *found[b"moov"][0], file=_FILE)
        return ImageInfo(format=ImageFormat.MP4, width=width, height=height, size_bytes=len(view))


def frame_size(view: memoryview, start: int, end: int, *, file: str) -> tuple[int, int]:
    """Return the size of the first track that has one, in a movie's index; sound has none.

    Raises BadImage.
    """
    for track in boxes(view, start, end, file=file):
        if track.kind != b"trak":
            continue
        for inner in boxes(view, track.start, track.end, file=file):
            if inner.kind == b"tkhd" and inner.end - inner.start >= _TKHD_SIZE_BYTES:
                size = struct.unpack_from(">II", view, inner.end - _TKHD_SIZE_BYTES)
                width, height = (side // _FIXED_POINT for side in size)
                if width and height:
                    return width, height
    raise BadImage(Flaw.BAD_STRUCTURE, f"the {file} has no video track")
