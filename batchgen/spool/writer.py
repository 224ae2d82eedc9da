"""Write a response to the spool while it arrives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from batchgen.images.base64_scanner import Base64Scanner, Kind, Piece, ScannedBody
from batchgen.spool.redaction import PlainRedaction, Redactor, TextRedaction
from batchgen.spool.response_file import ResponseFile, head_line
from batchgen.system.atomic_files import PartFile
from batchgen.system.threads import in_disk_thread

T = TypeVar("T")


class SpoolWriter:
    """Writer of one response. A small response costs a single write, at the end.

    ``hide`` removes the API key: a server may repeat it in an error, and it must not reach the
    disk. ``coding`` is that of a body which cannot be decompressed yet; see `write_as_received`.
    """

    def __init__(
        self,
        part: PartFile,
        status: int,
        headers: Mapping[str, str],
        *,
        route: str = "images",
        hide: Redactor | None = None,
        coding: str = "",
    ) -> None:
        self._redaction = PlainRedaction(hide.plain) if hide else None
        self._text_redaction = TextRedaction(hide) if hide else None
        self._is_verbatim = False
        self._scan = Base64Scanner()
        self._buffer: list[Piece] = []
        self._buffered_bytes = 0
        self._size = 0
        self._room = part.buffer
        self._file = ResponseFile(part, head_line(status, headers, route, coding))
        self.scanned: ScannedBody | None = None
        """The body with placeholders, after `commit`; None if it is in the file only."""

    @property
    def whole(self) -> bool:
        """Whether the response is complete: durable, or held by its part."""
        return self._file.is_durable or self._file.is_held

    @property
    def is_durable(self) -> bool:
        """Whether the complete response is on disk, even if `commit` was cancelled."""
        return self._file.is_durable

    @property
    def failed(self) -> OSError | None:
        """The disk error that ended the response, even if the waiting task was cancelled."""
        return self._file.failed

    def write_as_received(self) -> None:
        """Write the body as it is, as it is compressed: it has neither texts nor base64."""
        self._redaction = self._text_redaction = None
        self._is_verbatim = True

    async def write(self, chunk: bytes) -> None:
        """Append to the body. Raises OSError."""
        self._feed(self._redaction.filter(chunk) if self._redaction else chunk)
        if not self._room.has_room(self._buffered_bytes) or self._holds_whole_image:
            await self._write_buffer(self._file.write)

    async def flush(self) -> None:
        """Write what has arrived of a cut-off response. Raises OSError."""
        self._feed_rest()
        await self._write_buffer(self._file.leave_cut)

    async def commit(self) -> None:
        """Make the complete response durable, unless its part holds it. Raises OSError."""
        self._feed_rest()
        held = None if self._is_verbatim else self._file.hold(self._buffer)
        if held is not None:
            self._buffer = []
            self.scanned = ScannedBody(held, self._size)
            return
        text = await self._write_buffer(self._file.commit)
        if text is not None and not self._is_verbatim:
            self.scanned = ScannedBody(text, self._size)

    def close(self) -> None:
        """Close the files without finishing the response; `commit` and `flush` do so too."""
        self._room.shrink()
        self._file.close()

    @property
    def _holds_whole_image(self) -> bool:
        """Whether an image before the one that is arriving is in memory.

        It is written at once: a kill must not lose it with the rest of the response.
        """
        buffer = self._buffer
        is_next = bool(buffer) and buffer[-1][0] is Kind.BASE64
        return is_next and any(kind is Kind.END for kind, _ in buffer)

    def _feed(self, data: bytes) -> None:
        self._size += len(data)
        self._buffered_bytes += len(data)
        if self._is_verbatim:
            self._buffer.append((Kind.TEXT, data))
        elif self._text_redaction is None:
            self._buffer += self._scan.feed(data)
        else:
            for kind, piece in self._scan.feed(data):
                self._add(self._text_redaction, kind, piece)

    def _add(self, redaction: TextRedaction, kind: Kind, piece: bytes) -> None:
        """Add a piece without the key; the images between texts pass unchanged."""
        if kind is Kind.TEXT:
            self._buffer.append((kind, redaction.filter(piece)))
        else:
            self._buffer += [(Kind.TEXT, redaction.flush()), (kind, piece)]

    def _feed_rest(self) -> None:
        if self._redaction:
            self._feed(self._redaction.flush())
        rest = self._scan.rest()
        if self._text_redaction is not None:
            rest = self._text_redaction.filter(rest) + self._text_redaction.flush()
        self._buffer.append((Kind.TEXT, rest))

    async def _write_buffer(self, write: Callable[[list[Piece]], T]) -> T:
        pieces, self._buffer, self._buffered_bytes = self._buffer, [], 0
        try:
            return await in_disk_thread(write, pieces)
        finally:
            self._room.shrink()
