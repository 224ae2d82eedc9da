"""Decompress bodies that are really compressed with gzip or deflate.

The bytes decide, not the header. Stores send ``aws-chunked``, ``utf-8`` or ``binary`` for plain
files, and gateways compress JSON that was requested as it is. Neither an image nor JSON begins like
gzip.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Final

_HEAD_BYTES: Final = 12
"""Enough to distinguish the image formats from compressed data."""
_OUTPUT_BYTES: Final = 256 * 1024
_MAX_MEMBERS: Final = 16
_GZIP: Final = b"\x1f\x8b\x08"
_PLAIN: Final = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"GIF8", b"{", b"[", b"<", b"\xef\xbb\xbf")
"""Starts of images and texts. JSON compressed by raw deflate starts with another byte."""
_FREE_EXPANSION_BYTES: Final = 1024 * 1024
MAX_EXPANSION: Final = 20
"""For JSON and HTML: base64 of images shrinks to three quarters, and texts are short."""
_GZIP_BITS, _ZLIB_BITS, _RAW_BITS = 31, 15, -15


class BadCoding(Exception):
    """Compressed data is broken or cut off; the message says which."""


class ContentDecoder:
    """Decompress a body if it is compressed, and pass on any other body unchanged.

    ``coding`` is the Content-Encoding header. Output chunks have a bounded size, so that the caller
    can stop a decompression bomb. With ``max_expansion``, more than 1 MiB of output must not be
    more than that many times the input.
    """

    def __init__(self, coding: str, *, max_expansion: int | None = None) -> None:
        self._max_expansion = max_expansion
        self._input = self._output = 0
        self._deflate = "deflate" in coding.lower()
        self._head: bytearray | None = bytearray()
        """None after the coding of the body is known."""
        self._bits = 0
        """The window bits of zlib; 0 for a body that is not compressed."""
        self._inflater = zlib.decompressobj()
        self._members = 0
        self._unproven = bytearray()
        """Input that has given no output yet, so that it may not be compressed after all."""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Decode a chunk of the body. Raises BadCoding."""
        self._input += len(chunk)
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
        if not self._output:
            self._unproven += data
        full = False
        while data or full:
            if self._inflater.eof:
                if self._bits != _GZIP_BITS or not data.startswith(_GZIP[: len(data)]):
                    return  # bytes after the end of the compressed data
                self._next_member()
            try:
                output = self._inflater.decompress(data, _OUTPUT_BYTES)
            except zlib.error as exc:
                if self._output or self._bits == _GZIP_BITS:
                    raise BadCoding(f"compressed data is broken: {exc}") from None
                self._bits = 0  # "deflate" was only a header
                yield bytes(self._unproven)
                return
            if output:
                self._unproven.clear()
                self._count(len(output))
                yield output
            # The inflater may hold more output even if all its input is consumed.
            full = len(output) == _OUTPUT_BYTES and not self._inflater.eof
            data = self._inflater.unused_data or self._inflater.unconsumed_tail

    def _count(self, size: int) -> None:
        self._output += size
        if self._max_expansion is None or self._output <= _FREE_EXPANSION_BYTES:
            return
        if self._output > self._max_expansion * self._input:
            raise BadCoding(f"compressed data expands more than {self._max_expansion}-fold")

    def _next_member(self) -> None:
        self._members += 1
        if self._members > _MAX_MEMBERS:
            raise BadCoding(f"more than {_MAX_MEMBERS} compressed members")
        self._inflater = zlib.decompressobj(self._bits)


def _window_bits(head: bytes, *, deflate: bool) -> int:
    if head.startswith(_GZIP):
        return _GZIP_BITS
    if not deflate or not head or head.lstrip().startswith(_PLAIN) or head[4:8] == b"ftyp":
        return 0
    with_header = head[0] & 0x0F == 8 and int.from_bytes(head[:2], "big") % 31 == 0
    return _ZLIB_BITS if with_header else _RAW_BITS


class BodyTooLarge(Exception):
    """A body, or what it decompresses to, is larger than its limit."""


async def read_decoded(chunks: AsyncIterator[bytes], coding: str, max_bytes: int) -> bytes:
    """Return the decompressed body of a small document. Raises BodyTooLarge and BadCoding."""
    decoder, body, received = ContentDecoder(coding, max_expansion=MAX_EXPANSION), bytearray(), 0
    async for chunk in chunks:
        received += len(chunk)
        for piece in decoder.feed(chunk):
            body += piece
        if max(received, len(body)) > max_bytes:
            raise BodyTooLarge
    for piece in decoder.end():
        body += piece
    return bytes(body)
