"""The file of one response, which a small text response never needs."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from batchgen.system.atomic_files import PartFile

MAX_HELD_BYTES: Final = 64 * 1024
"""Largest response, with its head, that stays in memory until the ledger commits it. Above that, a
file of its own costs less than a row that is deleted soon."""


class ResponsePart(PartFile):
    """A part that may hold a complete response in memory.

    The ledger then stores the response in the transaction that records its outcome. Code that
    cannot hand it to the ledger calls `write_held`, which writes the file.
    """

    def __init__(
        self, final: Path, *, mode: int, directory_mode: int, may_hold: bool = False
    ) -> None:
        super().__init__(final, keep=True, mode=mode, directory_mode=directory_mode)
        self._may_hold = may_hold
        self.is_held = False
        """Whether the response is complete and in memory only."""

    def hold_complete(self, pieces: list[bytes]) -> bool:
        """Take the rest of a response without I/O; return False if it does not stay in memory."""
        size = self._held_bytes + sum(map(len, pieces))
        if self._made or not self._may_hold or size > MAX_HELD_BYTES:
            return False
        for piece in pieces:
            self.hold(piece)
        self.is_held = True
        return True

    def content(self) -> bytes | None:
        """Return the held response, its head line and its body; None if it is not held."""
        return b"".join(self._held) if self.is_held else None

    async def write_held(self) -> None:
        """Write a held response to its file, durably; do nothing otherwise. Raises OSError."""
        if self.is_held:
            await self.commit()
            self.is_held = False
