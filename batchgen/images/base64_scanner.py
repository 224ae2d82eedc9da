"""Find base64 images in a response as it arrives, so that megabytes are never parsed as JSON."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final
from urllib.parse import unquote

import pybase64

_LONG: Final = 4096
_MAX_CARRIED: Final = 256 * 1024
_HEAD: Final = re.compile(rb"(?:data:[\w/+.;=-]{0,99},)?(?=[A-Za-z0-9+/_-]{99})")
_REST_OF_STRING: Final = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_SPACE: Final = re.compile(r"\s+")
_AROUND: Final = re.compile(r"^\s*(?:base64,|b?[\"'])|[\"']\s*$")
"""What is written around base64: the quotes of a Python or JSON text, a cut ``data:`` URL."""
_LINE_END: Final = re.compile(r"[\r\n\t]")
_GROUP: Final = 4


@dataclass(frozen=True, slots=True)
class ScannedBody:
    """A response body with each image replaced by a word in ``text``.

    ``size`` is the size of the body in bytes.
    """

    text: bytes
    size: int


class Kind(Enum):
    """The kind of a piece of a body."""

    TEXT = "text"
    BASE64 = "base64"
    """Part of a long text that looks like base64, and most likely is an image."""
    END = "end"
    """The end of such a text; the piece is empty."""


Piece = tuple[Kind, bytes]


class Base64Scanner:
    """Separates images from text while a body arrives.

    It searches from quote to quote, so a body that is not JSON may be text as a whole. All pieces
    together are the body.
    """

    def __init__(self) -> None:
        self._carried = b""
        self._inside = False
        self._given_up = False

    def feed(self, chunk: bytes) -> list[Piece]:
        """Scan the next bytes, and return the pieces that are complete by now."""
        if self._given_up:
            return [(Kind.TEXT, chunk)]
        pieces: list[Piece] = []
        data, begin, at = self._carried + chunk if self._carried else chunk, 0, 0
        if self._inside:
            end = data.find(b'"')
            self._carried = b""
            if end < 0:
                return [(Kind.BASE64, data)]
            pieces += [(Kind.BASE64, data[:end]), (Kind.END, b"")]
            self._inside = False
            begin, at = end, end + 1
        begin = self._scan(data, begin, at, pieces)
        self._carried = data[begin:]
        if len(self._carried) > _MAX_CARRIED:
            self._given_up = True
            pieces.append((Kind.TEXT, self.rest()))
        return pieces

    def rest(self) -> bytes:
        """Return the remaining bytes as text, because the body has ended."""
        rest, self._carried = self._carried, b""
        return rest

    def _scan(self, data: bytes, begin: int, at: int, pieces: list[Piece]) -> int:
        """Scan from ``at`` for complete strings, and for a long one that has begun.

        Everything before ``begin`` has been returned; returns the new ``begin``.
        """
        whole = at
        while (quote := data.find(b'"', at)) >= 0:
            end = data.find(b'"', quote + 1)
            stop = len(data) if end < 0 else end
            if data.find(b"\\", quote + 1, stop) >= 0:
                string = _REST_OF_STRING.match(data, quote + 1)
                if string is None:
                    break
                at = whole = string.end()
                continue
            head = _HEAD.match(data, quote + 1, stop) if stop - quote > _LONG else None
            if head is not None and data.find(b"\n", quote, stop) < 0:
                pieces.append((Kind.TEXT, data[begin : head.end()]))
                pieces.append((Kind.BASE64, data[head.end() : stop]))
                begin = stop
                if end < 0:
                    self._inside = True
                    return begin
                pieces.append((Kind.END, b""))
            elif end < 0:
                break
            at = whole = end + 1
        else:
            whole = len(data)
        if whole > begin:
            pieces.append((Kind.TEXT, data[begin:whole]))
        return max(begin, whole)


class Base64Decoder:
    """Decodes canonical base64 that arrives in pieces.

    The text need not be kept: encoding the bytes again gives the same text. Raises ValueError if it
    would not; what is then still ``held`` was not decoded.
    """

    def __init__(self) -> None:
        self.held = b""

    def feed(self, text: bytes) -> bytes:
        """Return the bytes of all but the last group, which alone may have ``=`` padding."""
        text = self.held + text
        self.held = text
        whole = max(0, len(text) - 1) // _GROUP * _GROUP
        if text.find(b"=", 0, whole) >= 0:
            raise ValueError("more text after the end of base64")
        data = pybase64.b64decode(memoryview(text)[:whole], validate=True)
        self.held = text[whole:]
        return data

    def end(self) -> bytes:
        """Return the bytes of the last group."""
        data = pybase64.b64decode(self.held, validate=True)
        if pybase64.b64encode(data) != self.held:
            raise ValueError("base64 that differs from the standard encoding of its bytes")
        self.held = b""
        return data


def unpack_base64(text: str) -> bytes:
    """Return the bytes of a base64 text. Raises ValueError for other text.

    White space, the URL-safe alphabet, missing padding, quotes and the encodings of a form are
    accepted; some servers write them.
    """
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError:
        pass
    tidy = _AROUND.sub("", text)
    if "%" in tidy:
        tidy = unquote(tidy)
    if _has_lost_plus(tidy.strip()):
        tidy = tidy.strip().replace(" ", "+")
    tidy = _SPACE.sub("", tidy).rstrip("=").replace("-", "+").replace("_", "/")
    return pybase64.b64decode(tidy + "=" * (-len(tidy) % 4), validate=True)


def _has_lost_plus(text: str) -> bool:
    """Return whether a form turned each ``+`` of a text into a space.

    White space that only separates has line ends, or leaves lines of one length.
    """
    if "+" in text or " " not in text or _LINE_END.search(text):
        return False
    *lines, last = text.split(" ")
    width = len(lines[0])
    return len(last) > width or any(len(line) != width for line in lines)
