"""The file of one response, which a small text response never needs."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

from batchgen.system.atomic_files import PRIVATE_DIRECTORY, PRIVATE_FILE, PartFile
from batchgen.system.threads import in_disk_thread
from batchgen.system.write_buffers import WriteBuffer

MAX_HELD_BYTES: Final = 64 * 1024
"""Largest response, with its head, that stays in memory until the ledger commits it. Above that, a
file of its own costs less than a row that is deleted soon."""


class ResponsePart(PartFile):
    """A part that may hold a complete response in memory.

    The ledger then stores the response in the transaction that records its outcome. Code that
    cannot hand it to the ledger calls `write_held`, which writes the file.
    """

    def __init__(
        self, final: Path, *, buffer: WriteBuffer | None = None, may_hold: bool = False
    ) -> None:
        super().__init__(
            final,
            keep=True,
            mode=PRIVATE_FILE,
            directory_mode=PRIVATE_DIRECTORY,
            buffer=buffer,
        )
        self._may_hold = may_hold
        self.is_held = False
        """Whether the response is complete and in memory only."""
        self._whole = b""

    def hold_complete(self, pieces: list[bytes]) -> bool:
        """Take the rest of a response without I/O; return False if it does not stay in memory."""
        size = self._held_bytes + sum(map(len, pieces))
        if self._made or not self._may_hold or size > MAX_HELD_BYTES:
            return False
        for piece in pieces:
            self.hold(piece)
        self._whole = b"".join(self._held)
        self.is_held = True
        return True

    def content(self) -> bytes | None:
        """Return the held response, its head line and its body; None if it is not held."""
        return self._whole if self.is_held else None

    async def write_held(self) -> None:
        """Write a held response to its file, durably; do nothing otherwise.

        Raises OSError; then it can be called again.
        """
        if self.is_held:
            await in_disk_thread(self._write_whole_response)
            self.is_held = False

    def _write_whole_response(self) -> None:
        # A write that failed took a part of the buffers with it, and left a part of the file.
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        self._file, self._made = None, False
        self._held, self._held_bytes = [self._whole], len(self._whole)
        self.commit_blocking()
