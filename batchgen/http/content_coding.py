"""Decompress images that are really compressed with gzip or deflate.

The bytes decide, not the header: stores send ``aws-chunked``, ``utf-8`` or ``binary`` for plain
files, and no image format begins like gzip.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

_HEAD_BYTES: Final = 12
"""Enough to distinguish the image formats from compressed data."""
_OUTPUT_BYTES: Final = 256 * 1024
_MAX_MEMBERS: Final = 16
_GZIP: Final = b"\x1f\x8b\x08"
_IMAGES: Final = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"GIF8")
_GZIP_BITS, _ZLIB_BITS, _RAW_BITS = 31, 15, -15


class BadCoding(Exception):
    """Compressed data is broken or cut off; the message says which."""


class ContentDecoder:
    """Decompress a body if it is compressed, and pass on any other body unchanged.

    ``coding`` is the Content-Encoding header. Output chunks have a bounded size, so that the caller
    can stop a decompression bomb.
    """

    def __init__(self, coding: str) -> None:
        self._deflate = "deflate" in coding.lower()
        self._head: bytearray | None = bytearray()
        """None after the coding of the body is known."""
        self._bits = 0
        """The window bits of zlib; 0 for a body that is not compressed."""
        self._inflater = zlib.decompressobj()
        self._members = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Decode a chunk of the body. Raises BadCoding."""
        if self._head is None:
            yield from self._pass(chunk)
            return
        self._head += chunk
        if len(self._head) >= _HEAD_BYTES:
            yield from self._begin()

    def end(self) -> Iterator[bytes]:
        """Decode the rest after the last chunk. Raises BadCoding."""
        if self._head is not None:
            yield from self._begin()
        if self._bits and not self._inflater.eof:
            raise BadCoding("compressed data is cut off")

    def _begin(self) -> Iterator[bytes]:
        head, self._head = bytes(self._head or b""), None
        self._bits = _window_bits(head, deflate=self._deflate)
        if self._bits:
            self._next_member()
        yield from self._pass(head)

    def _pass(self, data: bytes) -> Iterator[bytes]:
        if not self._bits:
            if data:
                yield data
            return
        full = False
        while data or full:
            if self._inflater.eof:
                if self._bits != _GZIP_BITS or not data.startswith(_GZIP[: len(data)]):
                    return  # bytes after the end of the compressed data
                self._next_member()
            try:
                output = self._inflater.decompress(data, _OUTPUT_BYTES)
            except zlib.error as exc:
                raise BadCoding(f"compressed data is broken: {exc}") from None
            if output:
                yield output
            # The inflater may hold more output even if all its input is consumed.
            full = len(output) == _OUTPUT_BYTES and not self._inflater.eof
            data = self._inflater.unused_data or self._inflater.unconsumed_tail

    def _next_member(self) -> None:
        self._members += 1
        if self._members > _MAX_MEMBERS:
            raise BadCoding(f"more than {_MAX_MEMBERS} compressed members")
        self._inflater = zlib.decompressobj(self._bits)


def _window_bits(head: bytes, *, deflate: bool) -> int:
    if head.startswith(_GZIP):
        return _GZIP_BITS
    if not deflate or not head or head.startswith(_IMAGES) or head[4:8] == b"ftyp":
        return 0
    with_header = head[0] & 0x0F == 8 and int.from_bytes(head[:2], "big") % 31 == 0
    return _ZLIB_BITS if with_header else _RAW_BITS
