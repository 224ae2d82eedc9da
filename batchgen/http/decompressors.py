"""Decompress gzip, deflate, Brotli and zstd piece by piece, with a bound on each output.

Brotli needs an optional library. Without it, `missing_library` says which.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from typing import Any, Final, Protocol

BROTLI: Final = "br"
ZSTD: Final = "zstd"
_OUTPUT_BYTES: Final = 256 * 1024
_ZSTD_INPUT_BYTES: Final = 256
"""One block of 128 KiB may take four bytes, so this much may expand to 8 MiB at once."""
_MAX_ZSTD_WINDOW: Final = 128 << 20
"""The limit of the zstd command line: https://facebook.github.io/zstd/zstd_manual.html"""
_BROTLI_LIBRARIES: Final = ("brotli", "brotlicffi")
INSTALL: Final = {
    BROTLI: "install its library next to batchgen: pip install 'brotli>=1.2'",
    ZSTD: "install its library next to batchgen: pip install zstandard",
}
"""How to get the library of a coding."""


class BrokenData(Exception):
    """Compressed data is not valid; the message is that of the library."""


class Decompressor(Protocol):
    """Decompresses one stream, or one of several that follow each other."""

    eof: bool
    """Whether the end of the stream was reached."""
    unused: bytes
    """Input after the end of the stream."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decompress the next input. Raises BrokenData."""


class Zlib:
    """gzip, or deflate with or without its header, as ``bits`` says."""

    def __init__(self, bits: int) -> None:
        self.eof, self.unused = False, b""
        self._inflater = zlib.decompressobj(bits)

    def feed(self, data: bytes) -> Iterator[bytes]:
        inflater, full = self._inflater, False
        while (data or full) and not inflater.eof:
            try:
                output = inflater.decompress(data, _OUTPUT_BYTES)
            except zlib.error as exc:
                raise BrokenData(str(exc)) from None
            if output:
                yield output
            # The inflater may hold more output even if all its input is consumed.
            full = len(output) == _OUTPUT_BYTES
            data = inflater.unconsumed_tail
        self.eof, self.unused = inflater.eof, inflater.unused_data


class Zstd:
    """One frame of zstd."""

    def __init__(self) -> None:
        import zstandard

        self.eof, self.unused = False, b""
        self._error = zstandard.ZstdError
        limits = zstandard.ZstdDecompressor(max_window_size=_MAX_ZSTD_WINDOW)
        self._frame = limits.decompressobj()

    def feed(self, data: bytes) -> Iterator[bytes]:
        for at in range(0, len(data), _ZSTD_INPUT_BYTES):
            try:
                output = self._frame.decompress(data[at : at + _ZSTD_INPUT_BYTES])
            except self._error as exc:
                raise BrokenData(str(exc)) from None
            if output:
                yield output
            if self._frame.eof:
                self.eof = True
                self.unused = self._frame.unused_data + data[at + _ZSTD_INPUT_BYTES :]
                return


class Brotli:
    """A stream of Brotli. The library must be there."""

    def __init__(self) -> None:
        library = _brotli()
        assert library is not None
        self.eof, self.unused = False, b""
        self._error: type[Exception] = library.error
        self._decoder = library.Decompressor()

    def feed(self, data: bytes) -> Iterator[bytes]:
        decoder = self._decoder
        while True:
            try:
                output = decoder.process(data, output_buffer_limit=_OUTPUT_BYTES)
            except self._error as exc:
                raise BrokenData(str(exc)) from None
            if output:
                yield output
            self.eof = decoder.is_finished()
            if self.eof or decoder.can_accept_more_data():
                return
            data = b""


def missing_library(coding: str) -> bool:
    """Return whether the library that decompresses a coding is not installed."""
    if coding == BROTLI:
        return _brotli() is None
    try:
        import_module("zstandard")
    except ImportError:
        return coding == ZSTD
    return False


@cache
def _brotli() -> Any:
    """Return a library for Brotli that can limit its output; None if none is installed.

    Older releases expand a few bytes to gigabytes in one call (CVE-2025-6176).
    """
    for name in _BROTLI_LIBRARIES:
        try:
            library = import_module(name)
            library.Decompressor().process(b"", output_buffer_limit=1)
        except (ImportError, AttributeError, TypeError):
            continue
        return library
    return None
