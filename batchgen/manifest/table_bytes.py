"""Open the bytes of a table, decompressed if need be.

The content decides, not the name: servers and browsers add and remove compression on the way.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from batchgen.manifest.table import RowsFault
from batchgen.text import cause_of

MAX_EXPANSION: Final = 250
"""Limit of the decompressed size, as a multiple of the compressed one; beyond MIN_LIMIT_BYTES.

Repetitive catalogs reach about 100; gzip can reach 1,032."""
MIN_LIMIT_BYTES: Final = 64 << 20
_MAX_ZSTD_WINDOW: Final = 128 << 20
"""The limit of the zstd command line: https://facebook.github.io/zstd/zstd_manual.html"""

_CHUNK_BYTES: Final = 1 << 17
_ZSTD_INPUT_BYTES: Final = 1 << 11
"""One block of 128 KiB may take four bytes, so this much may expand to 64 MiB at once."""

_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE: Final = tuple(bytes([0x50 + n, 0x2A, 0x4D, 0x18]) for n in range(16))
_NOT_TEXT: Final = {
    b"PK\x03\x04": "an Excel workbook or a zip archive; save the table as CSV",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an old Excel workbook; save the table as CSV",
    b"%PDF-": "a PDF document; save the table as CSV",
    b"PAR1": "a Parquet file; convert it to JSON lines or CSV",
    b"SQLite format 3\0": "a SQLite database; use rows: {sqlite: FILE, query: ...}",
    b"BZh": "compressed with bzip2; expected gzip, zstd or no compression",
    b"\xfd7zXZ\0": "compressed with xz; expected gzip, zstd or no compression",
}
_WEB_PAGE: Final = (b"<!doctype html", b"<html")


@dataclass(frozen=True, slots=True)
class TableFile:
    """A table in a file, and its name in messages."""

    path: Path
    label: str

    def fault(self, message: str, *, line: int = 0, key: str | None = None) -> RowsFault:
        """Return an error of this table."""
        return RowsFault(message, file=self.label, line=line, key=key)

    @contextmanager
    def open(self) -> Generator[IO[bytes], None, None]:
        """Open the decompressed bytes. Raises RowsFault, also for what fails while they are read.

        Decompressing stops at MAX_EXPANSION.
        """
        try:
            with self.path.open("rb") as file:
                head = file.read(64)
                file.seek(0)
                self._check(head)
                if head.startswith(_GZIP):
                    yield self._unpacked(_gzip_chunks(file))
                elif head.startswith((_ZSTD, *_ZSTD_SKIPPABLE)):
                    yield self._unpacked(_zstd_chunks(file))
                else:
                    yield file
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise self.fault(f"cannot be decompressed: {error}", key="file") from None
        except OSError as error:
            raise self.fault(f"cannot be read: {cause_of(error)}", key="file") from None

    @contextmanager
    def open_text(self, encoding: str) -> Generator[io.TextIOWrapper, None, None]:
        """Open the text with its line ends as they are. Raises RowsFault as `open`."""
        with self.open() as stream:
            text = io.TextIOWrapper(stream, encoding, newline="")
            try:
                yield text
            finally:
                text.detach()

    def _unpacked(self, chunks: Iterator[bytes]) -> IO[bytes]:
        limit = max(MIN_LIMIT_BYTES, self.path.stat().st_size * MAX_EXPANSION)
        stream = io.BufferedReader(_Limited(chunks, limit, self), _CHUNK_BYTES)
        head = stream.peek(64)
        self._check(head)
        if head.startswith((_GZIP, _ZSTD)):
            raise self.fault("is compressed twice; decompress it once", key="file")
        return stream

    def _check(self, head: bytes) -> None:
        for mark, kind in _NOT_TEXT.items():
            if head.startswith(mark):
                raise self.fault(f"is {kind}", key="file")
        if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_WEB_PAGE):
            raise self.fault("is a web page, such as a login form; expected a table", line=1)


class _Limited(io.RawIOBase):
    """A stream of chunks that refuses to grow beyond a size."""

    def __init__(self, chunks: Iterator[bytes], limit: int, table: TableFile) -> None:
        self._chunks = chunks
        self._rest = b""
        self._left = self._limit = limit
        self._table = table

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # it is a Buffer
        data = self._rest or next(self._chunks, b"")
        taken = min(len(data), len(buffer))
        buffer[:taken] = data[:taken]
        self._rest = data[taken:]
        self._left -= taken
        if self._left < 0:
            raise self._table.fault(
                f"expands to more than {self._limit >> 20:,} MiB, {MAX_EXPANSION} times its size;"
                " decompress it first if it is right",
                key="file",
            )
        return taken


def _gzip_chunks(file: IO[bytes]) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=file) as unpacked:
        while data := unpacked.read(_CHUNK_BYTES):
            yield data


def _zstd_chunks(file: IO[bytes]) -> Iterator[bytes]:
    """Decompress all frames. Raises EOFError if the last one is cut off."""
    # Imported here: few tables are compressed with zstd.
    import zstandard

    frames = zstandard.ZstdDecompressor(max_window_size=_MAX_ZSTD_WINDOW)
    frame, is_open = frames.decompressobj(), False
    try:
        while data := file.read(_ZSTD_INPUT_BYTES):
            while data:
                is_open = True
                if unpacked := frame.decompress(data):
                    yield unpacked
                if not frame.eof:
                    break
                data, is_open, frame = frame.unused_data, False, frames.decompressobj()
    except zstandard.ZstdError as error:
        raise EOFError(str(error)) from None
    if is_open:
        raise EOFError("the file is cut off")
