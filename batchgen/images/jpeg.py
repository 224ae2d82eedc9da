"""Check the segment structure of a JPEG: ITU-T T.81, annex B."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from batchgen.images.formats import (
    MAX_PARTS,
    BadImage,
    Extent,
    Flaw,
    broken,
    check_pixels,
    truncated,
)

_SOI, _EOI, _SOS, _TEM = 0xD8, 0xD9, 0xDA, 0x01
_RST: Final = range(0xD0, 0xD8)
_SOF_DECODABLE: Final = (0xC0, 0xC1, 0xC2)
_SOF_OTHER: Final = (0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
_APP11: Final = 0xEB
_C2PA: Final = re.compile(rb"JP.{10}jumb(?:.{8})?.{4}jumdc2pa", re.DOTALL)
"""Start of a segment with a manifest of C2PA: a JUMBF box (ISO/IEC 19566-5) in the frame of JPEG XT
(ISO/IEC 18477-3). See https://c2pa.org/specifications/, "Embedding manifests"."""
_SCAN_END: Final = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""The first marker that is not a stuffed byte, fill, or a restart inside a scan."""


class JpegPart(NamedTuple):
    """A segment of a JPEG, or the coded data of a scan."""

    marker: int
    """0 for the data of a scan."""
    start: int
    """Offset of the marker, after fill bytes, or of the data."""
    end: int


def jpeg_parts(view: memoryview) -> Iterator[JpegPart]:
    """Yield the parts after the first marker up to the end of the image, which is the last one.

    Segments are skipped by their lengths, so that a thumbnail's end is not taken for the image's
    own. Raises BadImage.
    """
    size = len(view)
    pos = 2
    for _ in range(MAX_PARTS):
        pos, marker = _next_marker(view, pos)
        if marker == _EOI:
            yield JpegPart(marker, pos - 2, pos)
            return
        if marker in _RST or marker in (0x00, _TEM, _SOI):
            raise broken(f"JPEG marker {marker:02X} is not allowed here")
        if pos + 2 > size:
            raise truncated("the JPEG")
        end = pos + int.from_bytes(view[pos : pos + 2], "big")
        if end < pos + 2:
            raise broken(f"JPEG segment {marker:02X} has an impossible length")
        if end > size:
            raise truncated(f"JPEG segment {marker:02X}")
        yield JpegPart(marker, pos - 2, end)
        if marker == _SOS:
            found = _SCAN_END.search(view, end)
            if found is None:
                raise truncated("the JPEG")
            if found.start() > end:
                yield JpegPart(0, end, found.start())
            end = found.start()
        pos = end
    raise broken(f"the JPEG has more than {MAX_PARTS:,} segments")


def walk_jpeg(view: memoryview, max_pixels: int) -> Extent:
    """Check all parts of a JPEG, and return its size and its end. Raises BadImage."""
    frame: tuple[int, int] | None = None
    scanned = is_signed = False
    end = 0
    for marker, start, end in jpeg_parts(view):
        if marker in _SOF_OTHER:
            raise BadImage(
                Flaw.UNSUPPORTED_FORMAT, "a lossless, hierarchical or arithmetic-coded JPEG"
            )
        if marker in _SOF_DECODABLE:
            if frame is not None:
                raise broken("the JPEG has two frames")
            frame = _size(view, start + 2, end, max_pixels)
        elif marker == _APP11:
            is_signed = is_signed or _C2PA.match(view, start + 4, end) is not None
        elif marker == _SOS and frame is None:
            raise broken("a JPEG scan comes before the frame header")
        elif marker == 0:
            scanned = True
    if frame is None or not scanned:
        raise broken("the JPEG contains no pixels")
    return Extent(*frame, end, is_signed=is_signed)


def _next_marker(view: memoryview, pos: int) -> tuple[int, int]:
    """Return the marker at a position, after any fill bytes, and the start of its segment."""
    size = len(view)
    if pos < size and view[pos] != 0xFF:
        raise broken(f"JPEG data at byte {pos:,} where a marker should be")
    while pos < size and view[pos] == 0xFF:
        pos += 1
    if pos >= size:
        raise truncated("the JPEG")
    return pos + 1, view[pos]


def _size(view: memoryview, pos: int, end: int, max_pixels: int) -> tuple[int, int]:
    if end - pos < 8:
        raise broken("the JPEG frame header is too short")
    length, precision, height, width, components = struct.unpack_from(">HBHHB", view, pos)
    if length != 8 + 3 * components or components not in (1, 3, 4):
        raise broken(f"the JPEG frame header has an invalid number of components: {components}")
    if precision != 8:
        raise BadImage(Flaw.UNSUPPORTED_FORMAT, f"a JPEG of {precision} bits a sample")
    check_pixels(width, height, max_pixels)
    return width, height
