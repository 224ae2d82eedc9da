"""Copies of images without their metadata, pixel for pixel: EXIF, XMP, texts and comments go.

So do C2PA manifests and all data after the end of the image, such as films, depth maps and labels.
Color profiles stay, since without them the colors change.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from batchgen.images.formats import BadImage, ImageFormat
from batchgen.images.jpeg import jpeg_parts

_PNG_KEPT: Final = frozenset(
    b"IHDR PLTE IDAT IEND tRNS gAMA cHRM sRGB iCCP cICP sBIT pHYs acTL fcTL fdAT".split()
)
_JPEG_KEPT_APP: Final = {0xE0, 0xE2, 0xEE}
"""JFIF, ICC profile and Adobe's color transform."""
_JPEG_COMMENT: Final = 0xFE
_ICC_APP: Final = 0xE2
_WEBP_KEPT: Final = frozenset({b"VP8X", b"ICCP", b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L"})
_WEBP_FLAGS: Final = 0x08 | 0x04
"""Of VP8X: an EXIF and an XMP chunk follow."""
_ICC: Final = b"ICC_PROFILE\0"


def without_metadata(data: bytes, kind: ImageFormat) -> bytes:
    """Return the image without metadata. Raises ValueError for a file of another structure."""
    try:
        match kind:
            case ImageFormat.PNG:
                return b"".join(_png(data))
            case ImageFormat.JPEG:
                return b"".join(_jpeg(data))
            case ImageFormat.WEBP:
                return _webp(data)
    except BadImage as exc:
        raise ValueError(str(exc)) from exc
    except (struct.error, IndexError) as exc:
        raise ValueError("the file ends too early") from exc
    raise ValueError(f"{kind.value}: metadata cannot be removed from this format")


def _png(data: bytes) -> Iterator[bytes]:
    yield data[:8]
    at = 8
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        name, end = data[at + 4 : at + 8], at + 12 + size
        if end > len(data):
            raise ValueError("the file ends within a chunk")
        if name in _PNG_KEPT:
            yield data[at:end]
        if name == b"IEND":
            return
        at = end
    raise ValueError("the last chunk is missing")


def _jpeg(data: bytes) -> Iterator[bytes]:
    yield data[:2]
    with memoryview(data) as view:
        for marker, start, end in jpeg_parts(view):
            part = data[start:end]
            is_kept = not 0xE0 <= marker <= 0xEF or marker in _JPEG_KEPT_APP
            if marker == _ICC_APP:
                is_kept = part[4:].startswith(_ICC)
            if is_kept and marker != _JPEG_COMMENT:
                yield part


def _webp(data: bytes) -> bytes:
    (whole,) = struct.unpack_from("<I", data, 4)
    at, end, kept = 12, min(len(data), 8 + whole), list[bytes]()
    while at + 8 <= end:
        (size,) = struct.unpack_from("<I", data, at + 4)
        chunk = data[at : at + 8 + size + size % 2]
        if chunk[:4] == b"VP8X":
            chunk = chunk[:8] + bytes([chunk[8] & ~_WEBP_FLAGS & 0xFF]) + chunk[9:]
        if chunk[:4] in _WEBP_KEPT:
            kept.append(chunk)
        at += 8 + size + size % 2
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body
