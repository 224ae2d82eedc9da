"""Hide an API key in what a server sends, in the forms in which servers repeat it."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Final, Self

MASK: Final = b"***"
_MIN_SECRET_CHARS: Final = 16
"""Shorter keys (``none``, ``test``) are not secrets and may occur in a response by chance."""
_BASE64: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")
_GROUP_BYTES, _GROUP_CHARS = 3, 4
_BITS: Final = 6
_SLASH: Final = rb"(?:\\{0,4}/|_|%2[Ff]|\\{1,4}u002[Ff])"
_PLUS: Final = rb"(?:\+|-|%2[Bb]|\\{1,4}u002[Bb])"
_LONGEST_CHAR: Final = 11
"""Length of the longest form of one character, such as ``&#x000073;``."""
_ESCAPES: Final = (b"%", b"\\", b"&#")


class Redactor:
    """Replaces one API key by asterisks.

    It finds the key itself in any case, in base64 at any offset (with either alphabet), in hex, and
    with any of its characters escaped for URLs, JSON or HTML.
    """

    def __init__(self, secret: str) -> None:
        self.plain: Final = secret.encode()
        self._lower = self.plain.lower()
        self._any_case = re.compile(re.escape(self.plain), re.IGNORECASE)
        self._hex = (self.plain.hex().encode(), self.plain.hex().upper().encode())
        cores = set(_base64_cores(self.plain))
        self._cores = tuple((_anchor(core), _base64_pattern(core)) for core in sorted(cores))
        self._escaped = re.compile(b"".join(map(_any_escape, self.plain)))
        self.longest: Final = _LONGEST_CHAR * len(self.plain)
        """Length of the longest form of the key."""

    @classmethod
    def of(cls, secret: str | None) -> Self | None:
        """Return the redactor of a key; None for one that is too short to be a secret."""
        return cls(secret) if secret and len(secret) >= _MIN_SECRET_CHARS else None

    def __repr__(self) -> str:
        return "Redactor(***)"

    def text(self, text: str) -> str:
        """Return a text without the key."""
        data = text.encode("utf-8", "surrogatepass")
        found = self.data(data)
        return text if found == data else found.decode("utf-8", "surrogatepass")

    def data(self, data: bytes) -> bytes:
        """Return a text as bytes without the key."""
        for form in (self.plain, *self._hex):
            data = data.replace(form, MASK)
        for anchor, core in self._cores:
            if anchor in data:
                data = core.sub(MASK, data)
        if any(escape in data for escape in _ESCAPES):
            data = self._escaped.sub(MASK, data)
        return self._any_case.sub(MASK, data) if self._lower in data.lower() else data


def redacted(text: str, redactor: Redactor | None) -> str:
    """Return a text without the key, if there is one."""
    return text if redactor is None else redactor.text(text)


def _base64_cores(secret: bytes) -> Iterator[bytes]:
    """Yield the base64 of a secret at each offset, without characters that depend on others."""
    for offset in range(_GROUP_BYTES):
        encoded = base64.b64encode(bytes(offset) + secret)
        begin = -(-8 * offset // _BITS)
        yield encoded[begin : (offset + len(secret)) * 8 // _BITS]


def _anchor(core: bytes) -> bytes:
    """Return the longest part that is equal in all spellings of base64."""
    return max(re.split(rb"[+/]", core), key=len)


def _base64_pattern(core: bytes) -> re.Pattern[bytes]:
    special = {b"+": _PLUS, b"/": _SLASH}
    chars = (core[at : at + 1] for at in range(len(core)))
    return re.compile(b"".join(special.get(char, char) for char in chars))


def _any_escape(char: int) -> bytes:
    """Return a pattern of one character: itself, or escaped for URLs, JSON or HTML."""
    two = f"{char:02x}".encode()
    digits = b"".join(b"[%c%c]" % (one, one - 32) if one > 0x60 else b"%c" % one for one in two)
    forms = [
        re.escape(bytes([char])),
        rb"%(?:25)?" + digits,
        rb"\\{1,4}(?:u00|x)" + digits,
        b"&#0{0,4}%d;" % char,
        b"&#[xX]0{0,4}" + digits + b";",
    ]
    if char in b'/"\\':
        forms.append(rb"\\{1,4}" + re.escape(bytes([char])))
    return b"(?:" + b"|".join(forms) + b")"


class PlainRedaction:
    """A stream filter that replaces the plain key.

    Bytes that may start the key are held back until the next piece. Megabytes of base64 pass fast:
    most keys have a character outside the base64 alphabet, and one search for it rules the key out.
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
        data = (self._held + piece).replace(self._secret, MASK)
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


class TextRedaction:
    """A stream filter for texts that replaces the key in all of its forms.

    The end of a piece is held back, as a form of the key may begin there. It is not for images,
    which an unlikely match would damage.
    """

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._held = b""

    def filter(self, piece: bytes) -> bytes:
        """Filter the next piece; return what can be written now."""
        data = self._redactor.data(self._held + piece)
        kept = max(0, len(data) - self._redactor.longest)
        self._held = data[kept:]
        return data[:kept]

    def flush(self) -> bytes:
        """Return the bytes held back, at the end of a text."""
        held, self._held = self._held, b""
        return held
