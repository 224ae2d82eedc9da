"""Build a minimal MP4 video."""

from __future__ import annotations

import struct


def box(kind: bytes, *content: bytes, large: bool = False) -> bytes:
    """A box of a kind."""
    body = b"".join(content)
    if large:
        return struct.pack(">I4sQ", 1, kind, len(body) + 16) + body
    return struct.pack(">I4s", len(body) + 8, kind) + body


def track(width: int, height: int) -> bytes:
    """A track of frames of a size in pixels; 0x0 for sound."""
    head = box(b"tkhd", bytes(76), struct.pack(">II", width << 16, height << 16))
    return box(b"trak", head, box(b"mdia", b"media"))


FTYP = box(b"ftyp", b"isom\0\0\2\0isomiso2mp41")
MOOV = box(b"moov", box(b"mvhd", bytes(100)), track(0, 0), track(1280, 720))
MDAT = box(b"mdat", b"frames" * 50)
VIDEO = FTYP + MOOV + MDAT
