"""Sign images as C2PA describes, without a valid signature.

https://c2pa.org/specifications/, "Embedding manifests". Readers of C2PA find the manifest store;
its content is a placeholder.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

_UUID: Final = b"c2pa\x00\x11\x00\x10\x80\x00\x00\xaa\x00\x38\x9b\x71"
_MOST: Final = 60_000


def manifest_store(size: int = 200) -> bytes:
    """A JUMBF superbox of the type of a manifest store."""
    description = _box(b"jumd", _UUID + b"\x03c2pa\0")
    return _box(b"jumb", description + _box(b"bidb", bytes(range(256)) * (size // 256 + 1)))


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content) + 8, kind) + content


def sign(data: bytes, size: int = 200) -> bytes:
    """Return a PNG, JPEG or WebP with a manifest store."""
    store = manifest_store(size)
    if data.startswith(b"\x89PNG"):
        body = b"caBX" + store
        chunk = struct.pack(">I", len(store)) + body + struct.pack(">I", zlib.crc32(body))
        return data[:33] + chunk + data[33:]
    if data.startswith(b"\xff\xd8"):
        return data[:2] + b"".join(_segments(store)) + data[2:]
    assert data[8:12] == b"WEBP"
    chunk = b"C2PA" + struct.pack("<I", len(store)) + store + bytes(len(store) % 2)
    return b"RIFF" + struct.pack("<I", len(data) - 8 + len(chunk)) + data[8:] + chunk


def _segments(store: bytes) -> list[bytes]:
    """Split a box among APP11 segments, each of which repeats its head."""
    head, content = store[:8], store[8:]
    found = []
    for number, at in enumerate(range(0, len(content), _MOST), 1):
        body = b"JP\0\1" + struct.pack(">I", number) + head + content[at : at + _MOST]
        found.append(b"\xff\xeb" + struct.pack(">H", len(body) + 2) + body)
    return found
