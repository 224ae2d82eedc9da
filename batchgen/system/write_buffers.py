"""How much of the files that are being written may be in memory."""

from __future__ import annotations


class BufferAllowance:
    """Bytes that several files share, beyond the small buffer that each has of its own.

    Use it and its buffers on one thread.
    """

    __slots__ = ("_left",)

    def __init__(self, total_bytes: int) -> None:
        self._left = total_bytes

    def take(self, count: int) -> bool:
        """Take bytes; return False if fewer are left."""
        if count > self._left:
            return False
        self._left -= count
        return True

    def give_back(self, count: int) -> None:
        """Return bytes that were taken."""
        self._left += count


class WriteBuffer:
    """The size of the buffer of one file.

    It is ``own_bytes``, and grows by as much at a time up to ``most_bytes`` while the allowance
    lasts. A write of more bytes at once costs fewer thread switches, and an image that is in memory
    as a whole need not be read back.
    """

    __slots__ = ("_allowance", "_most_bytes", "_own_bytes", "size_bytes")

    def __init__(
        self, own_bytes: int, allowance: BufferAllowance | None = None, most_bytes: int = 0
    ) -> None:
        self._own_bytes = own_bytes
        self._allowance = allowance
        self._most_bytes = most_bytes
        self.size_bytes = own_bytes
        """The size at present."""

    def has_room(self, held_bytes: int) -> bool:
        """Return whether a file may hold more than it holds now, growing if it can."""
        while held_bytes >= self.size_bytes:
            if self._allowance is None or self.size_bytes + self._own_bytes > self._most_bytes:
                return False
            if not self._allowance.take(self._own_bytes):
                return False
            self.size_bytes += self._own_bytes
        return True

    def shrink(self) -> None:
        """Return to the own size, after the bytes were written or dropped."""
        if self._allowance is not None and self.size_bytes > self._own_bytes:
            self._allowance.give_back(self.size_bytes - self._own_bytes)
            self.size_bytes = self._own_bytes
