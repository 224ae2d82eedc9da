"""Keeps a secret out of what is written piece by piece, wherever the pieces are cut."""

from __future__ import annotations

from typing import Final

_HIDDEN: Final = b"***"
_IN_BASE64: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")


class Redaction:
    """Takes bytes and gives them back without the secret.

    What may be its beginning is held back until more has come. Megabytes of base64 go by fast: most
    secrets have a letter that base64 lacks.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._held = b""
        places = (place for place, letter in enumerate(secret) if letter not in _IN_BASE64)
        self._telltale = next(places, None)

    def shown(self, piece: bytes) -> bytes:
        """What may be written now."""
        at = self._telltale
        if at is not None and not self._held and piece.find(self._secret[at]) < 0:
            return self._without_begun(piece, at)
        data = (self._held + piece).replace(self._secret, _HIDDEN)
        self._held = b""
        return self._without_begun(data, len(self._secret) - 1)

    def rest(self) -> bytes:
        """What was held back, as nothing more comes."""
        held, self._held = self._held, b""
        return held

    def _without_begun(self, data: bytes, most: int) -> bytes:
        """Hold back up to so many bytes at the end, with which the secret may begin."""
        for length in range(min(most, len(data)), 0, -1):
            if data.endswith(self._secret[:length]):
                self._held = data[-length:]
                return data[:-length]
        return data
