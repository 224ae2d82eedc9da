"""Remove a secret from a byte stream, wherever the stream is split into pieces."""

from __future__ import annotations

from typing import Final

_MASK: Final = b"***"
_BASE64: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")


class Redaction:
    """A stream filter that replaces a secret by asterisks.

    Bytes that may start the secret are held back until the next piece. Megabytes of base64 pass
    fast: most secrets have a character outside the base64 alphabet, and one search for it rules
    the secret out.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._held = b""
        indexes = (index for index, byte in enumerate(secret) if byte not in _BASE64)
        self._rare_index = next(indexes, None)
        """Index of the first byte of the secret that base64 lacks."""

    def filter(self, piece: bytes) -> bytes:
        """Filter the next piece; return what can be written now."""
        rare = self._rare_index
        if rare is not None and not self._held and piece.find(self._secret[rare]) < 0:
            return self._hold_back_start(piece, rare)
        data = (self._held + piece).replace(self._secret, _MASK)
        self._held = b""
        return self._hold_back_start(data, len(self._secret) - 1)

    def flush(self) -> bytes:
        """Return the bytes held back, at the end of the stream."""
        held, self._held = self._held, b""
        return held

    def _hold_back_start(self, data: bytes, max_bytes: int) -> bytes:
        """Hold back a possible start of the secret, of up to ``max_bytes``, at the end."""
        for length in range(min(max_bytes, len(data)), 0, -1):
            if data.endswith(self._secret[:length]):
                self._held = data[-length:]
                return data[:-length]
        return data
