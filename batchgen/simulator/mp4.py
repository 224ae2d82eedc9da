"""Write a small valid MP4: one image as a video of any length (ISO/IEC 14496-12)."""

from __future__ import annotations

import struct

_TIMESCALE = 1000
_JPEG_OBJECT_TYPE = 0x6C
_VISUAL_STREAM = 0x11
_UNITY_MATRIX = struct.pack(">9I", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
_UNDETERMINED_LANGUAGE = 0x55C4
_72_DPI = 72 << 16


def still_video(jpeg: bytes, *, width: int, height: int, seconds: int) -> bytes:
    """Return a video that shows one JPEG of the given size for the given time."""
    brand = _box(b"ftyp", b"isom", struct.pack(">I", 0x200), b"isomiso2mp41")
    # The data is the first box after `ftyp`, so that its offset does not depend on the others.
    data = _box(b"mdat", jpeg)
    return brand + data + _movie(len(brand) + 8, len(jpeg), width, height, seconds * _TIMESCALE)


def _movie(offset: int, size: int, width: int, height: int, duration: int) -> bytes:
    header = struct.pack(">4I", 0, 0, _TIMESCALE, duration)
    rate = struct.pack(">IH10x", 1 << 16, 1 << 8)
    movie_header = _full(b"mvhd", 0, header, rate, _UNITY_MATRIX, bytes(24), struct.pack(">I", 2))
    return _box(b"moov", movie_header, _track(offset, size, width, height, duration))


def _track(offset: int, size: int, width: int, height: int, duration: int) -> bytes:
    shown_in_movie = 0x7
    header = _full(
        b"tkhd",
        shown_in_movie,
        struct.pack(">5I", 0, 0, 1, 0, duration),
        bytes(16),
        _UNITY_MATRIX,
        struct.pack(">2I", width << 16, height << 16),
    )
    media_header = _full(
        b"mdhd", 0, struct.pack(">4I2H", 0, 0, _TIMESCALE, duration, _UNDETERMINED_LANGUAGE, 0)
    )
    handler = _full(b"hdlr", 0, bytes(4), b"vide", bytes(12), b"still\0")
    reference = _full(b"dref", 0, struct.pack(">I", 1), _full(b"url ", 1))
    media = _box(
        b"minf",
        _full(b"vmhd", 1, bytes(8)),
        _box(b"dinf", reference),
        _sample_table(offset, size, width, height, duration),
    )
    return _box(b"trak", header, _box(b"mdia", media_header, handler, media))


def _sample_table(offset: int, size: int, width: int, height: int, duration: int) -> bytes:
    """Return the table of the one sample: where it is, its size and its duration."""
    return _box(
        b"stbl",
        _full(b"stsd", 0, struct.pack(">I", 1), _sample_entry(size, width, height)),
        _full(b"stts", 0, struct.pack(">3I", 1, 1, duration)),
        _full(b"stsc", 0, struct.pack(">4I", 1, 1, 1, 1)),
        _full(b"stsz", 0, struct.pack(">3I", 0, 1, size)),
        _full(b"stco", 0, struct.pack(">2I", 1, offset)),
    )


def _sample_entry(size: int, width: int, height: int) -> bytes:
    no_palette = -1
    looks = struct.pack(">2H2I4xH32xHh", width, height, _72_DPI, _72_DPI, 1, 24, no_palette)
    return _box(b"mp4v", bytes(6), struct.pack(">H", 1), bytes(16), looks, _decoder(size))


def _decoder(size: int) -> bytes:
    """Return the MPEG-4 descriptors of the decoder: plain JPEG."""
    config = struct.pack(">BB", _JPEG_OBJECT_TYPE, _VISUAL_STREAM)
    config += size.to_bytes(3) + struct.pack(">2I", size * 8, size * 8)
    stream = struct.pack(">HB", 1, 0) + _descriptor(0x04, config) + _descriptor(0x06, b"\x02")
    return _full(b"esds", 0, _descriptor(0x03, stream))


def _descriptor(tag: int, content: bytes) -> bytes:
    return bytes((tag, len(content))) + content


def _full(kind: bytes, flags: int, *contents: bytes) -> bytes:
    """Return a box with version 0 and flags."""
    return _box(kind, struct.pack(">I", flags), *contents)


def _box(kind: bytes, *contents: bytes) -> bytes:
    content = b"".join(contents)
    return struct.pack(">I4s", 8 + len(content), kind) + content
