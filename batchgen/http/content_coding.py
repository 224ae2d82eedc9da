"""Decompress bodies that are really compressed: gzip, deflate, zstd and Brotli.

The bytes decide, not the header. Stores send ``aws-chunked``, ``utf-8`` or ``binary`` for plain
files, and gateways compress JSON that was requested as it is. Neither an image nor JSON begins like
gzip or zstd. Brotli has no signature: there the header decides, unless the body begins like an
image or JSON.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Final

from batchgen.http.decompressors import (
    BROTLI,
    INSTALL,
    ZSTD,
    BrokenData,
    Brotli,
    Decompressor,
    Zlib,
    Zstd,
    missing_library,
)

_HEAD_BYTES: Final = 64
"""Enough to distinguish images and texts from compressed data."""
_PROOF_BYTES: Final = 4096
"""What is looked at of a first chunk that is longer."""
_MAX_MEMBERS: Final = 16
_GZIP: Final = b"\x1f\x8b\x08"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_WHOLE_GZIP: Final = re.compile(rb"\x1f\x8b\x08[\0-\x1f].{4}[\0\2\4][\0-\x0d\xff]", re.DOTALL)
"""The header of gzip (RFC 1952, section 2.3.1): one Brotli stream in 10,000 begins like gzip."""
_SIGNED: Final = (_GZIP, _ZSTD)
"""Codings that begin with a signature, and may have several members."""
_IMAGES: Final = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"GIF8")
_TEXTS: Final = (b"{", b"[", b"<", b"\xef\xbb\xbf")
"""Starts of JSON and HTML. Data that is compressed may start with these bytes, too."""
_NOT_TEXT: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_SPACE: Final = b" \t\r\n"
_FREE_EXPANSION_BYTES: Final = 1024 * 1024
MAX_EXPANSION: Final = 20
"""For JSON and HTML: base64 of images shrinks to three quarters, and texts are short."""
_GZIP_BITS, _ZLIB_BITS, _RAW_BITS = 31, 15, -15


class BadCoding(Exception):
    """Compressed data is broken or cut off, or cannot be decompressed; the message says which."""


class ContentDecoder:
    """Decompress a body if it is compressed, and pass on any other body unchanged.

    ``coding`` is the Content-Encoding header. Output chunks have a bounded size, so that the caller
    can stop a decompression bomb. With ``max_expansion``, more than 1 MiB of output must not be
    more than that many times the input.
    """

    def __init__(self, coding: str, *, max_expansion: int | None = None) -> None:
        self._max_expansion = max_expansion
        self._input = self._output = 0
        self._coding = coding.lower()
        self._may_be_brotli = BROTLI in map(str.strip, self._coding.split(","))
        self._head: bytearray | None = bytearray()
        """None after the coding of the body is known."""
        self._signature = b""
        """Start of each member; empty for codings without one."""
        self._stream: Decompressor | None = None
        """None for a body that is not compressed."""
        self._members = 0
        self._unproven = bytearray()
        """Input that has given no output yet, so that it may not be compressed after all."""
        self.unsupported = ""
        """The coding of a body that is passed on compressed, as its library is not installed."""

    def feed(self, chunk: bytes) -> Iterable[bytes]:
        """Decode a chunk of the body. Raises BadCoding, also while the result is iterated."""
        self._input += len(chunk)
        if self._head is None:
            return self._pass(chunk) if self._stream else (chunk,)
        if not self._head and len(chunk) >= _HEAD_BYTES and _is_plain(chunk[:_PROOF_BYTES]):
            self._head = None
            return (chunk,)
        self._head += chunk
        return self._begin() if len(self._head) >= _HEAD_BYTES else ()

    def end(self) -> Iterator[bytes]:
        """Decode the rest after the last chunk. Raises BadCoding."""
        if self._head is not None:
            yield from self._begin()
        if self._stream is None or self._stream.eof:
            return
        if self._unproven and not self._signature:  # the coding was only a header
            yield bytes(self._unproven)
            return
        raise BadCoding("compressed data is cut off")

    def refuse_unsupported(self) -> None:
        """Raise BadCoding if the body is passed on compressed."""
        if self.unsupported:
            raise BadCoding(unsupported_text(self.unsupported))

    def _begin(self) -> Iterator[bytes]:
        head, self._head = bytes(self._head or b""), None
        self._signature = next((one for one in _SIGNED if head.startswith(one)), b"")
        if self._signature == _GZIP and self._may_be_brotli and not _WHOLE_GZIP.match(head):
            self._signature = b""
        kind = ZSTD if self._signature == _ZSTD else self._coding_of(head)
        if kind in INSTALL and missing_library(kind):
            self.unsupported = kind
        elif kind:
            self._stream = self._next_member(kind, head)
        yield from self._pass(head)

    def _coding_of(self, head: bytes) -> str:
        """Return the coding of a body that does not begin like zstd; empty if it has none."""
        if self._signature:
            return "gzip"
        if not head or _is_plain(head[:_PROOF_BYTES]):
            return ""
        if "deflate" in self._coding:
            return "deflate"
        return BROTLI if self._may_be_brotli else ""

    def _pass(self, data: bytes) -> Iterator[bytes]:
        if self._stream is None:
            if data:
                yield data
            return
        if not self._output:
            self._unproven += data
        while data:
            stream = self._stream
            if stream.eof:
                if not self._signature or not data.startswith(self._signature[: len(data)]):
                    return  # bytes after the end of the compressed data
                stream = self._stream = self._next_member("", data)
            try:
                for output in stream.feed(data):
                    self._unproven.clear()
                    self._count(len(output))
                    yield output
            except BrokenData as exc:
                if self._output or self._signature:
                    raise BadCoding(f"compressed data is broken: {exc}") from None
                self._stream = None  # the coding was only a header
                yield bytes(self._unproven)
                return
            data = stream.unused

    def _count(self, size: int) -> None:
        self._output += size
        if self._max_expansion is None or self._output <= _FREE_EXPANSION_BYTES:
            return
        if self._output > self._max_expansion * self._input:
            raise BadCoding(f"compressed data expands more than {self._max_expansion}-fold")

    def _next_member(self, kind: str, head: bytes) -> Decompressor:
        """Return the decompressor of the first stream, or of one that follows another."""
        self._members += 1
        if self._members > _MAX_MEMBERS:
            raise BadCoding(f"more than {_MAX_MEMBERS} compressed members")
        if self._signature == _ZSTD:
            return Zstd()
        if self._signature == _GZIP:
            return Zlib(_GZIP_BITS)
        if kind == BROTLI:
            return Brotli()
        with_header = head[0] & 0x0F == 8 and int.from_bytes(head[:2], "big") % 31 == 0
        return Zlib(_ZLIB_BITS if with_header else _RAW_BITS)


def _is_plain(head: bytes) -> bool:
    """Return whether a body begins like an image or a text."""
    if head.startswith(_IMAGES) or head[4:8] == b"ftyp":
        return True
    if not head.lstrip(_SPACE).startswith(_TEXTS) or _NOT_TEXT.search(head):
        return False
    try:
        head.decode()
    except UnicodeDecodeError as exc:
        return exc.end == len(head) and exc.reason == "unexpected end of data"
    return True


def undecodable(coding: str) -> str:
    """Return the coding of a Content-Encoding header whose library is missing; empty for others."""
    named = [one.strip() for one in coding.lower().split(",")]
    return next((one for one in named if one in INSTALL and missing_library(one)), "")


def unsupported_text(coding: str) -> str:
    """Return what to do about a body whose coding cannot be undone."""
    return f"compressed with {coding}, which was not requested; {INSTALL[coding]}"


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
    decoder.refuse_unsupported()
    return bytes(body)
