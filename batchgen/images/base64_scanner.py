"""Finds the base64 of images in a response that arrives, so that megabytes are never parsed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

import pybase64

_LONG: Final = 4096
_MAX_CARRIED: Final = 256 * 1024
_HEAD: Final = re.compile(rb"(?:data:[\w/+.;=-]{0,99},)?(?=[A-Za-z0-9+/_-]{99})")
_REST_OF_STRING: Final = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_SPACE: Final = re.compile(r"\s+")
_GROUP: Final = 4


@dataclass(frozen=True, slots=True)
class ScannedBody:
    """``text`` is the body with a word in the place of each image, to be read as the body.

    ``size`` is that of the body, in bytes.
    """

    text: bytes
    size: int


class Kind(Enum):
    """What a piece of a body is."""

    TEXT = "text"
    BASE64 = "base64"
    """Of a long text that looks like base64, and most likely is an image."""
    END = "end"
    """The end of such a text; the piece is empty."""


Piece = tuple[Kind, bytes]


class Base64Scanner:
    """Tells images from text while a body arrives.

    Looks from quote to quote, so what is no JSON may be text from its beginning to its end. All
    pieces together are the body.
    """

    def __init__(self) -> None:
        self._carried = b""
        self._inside = False
        self._given_up = False

    def feed(self, chunk: bytes) -> list[Piece]:
        """Look at the next bytes; gives what can be told by now."""
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
        """What was not told yet, as nothing more comes: text."""
        rest, self._carried = self._carried, b""
        return rest

    def _scan(self, data: bytes, begin: int, at: int, pieces: list[Piece]) -> int:
        """Look from ``at`` on at strings that are whole, and at a long one that has begun.

        What lies before ``begin`` is told; gives how far that is now.
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
    """Decodes a text that comes in pieces, if it is written as plainly as base64 can be.

    So it may be forgotten: encoded again, the bytes give the very same text. Raises ValueError
    where they would not; what is then still ``held`` was not decoded.
    """

    def __init__(self) -> None:
        self.held = b""

    def feed(self, text: bytes) -> bytes:
        """Bytes of all but the last group, which alone may be filled up with ``=``."""
        text = self.held + text
        self.held = text
        whole = max(0, len(text) - 1) // _GROUP * _GROUP
        if text.find(b"=", 0, whole) >= 0:
            raise ValueError("more text behind the end of base64")
        data = pybase64.b64decode(memoryview(text)[:whole], validate=True)
        self.held = text[whole:]
        return data

    def end(self) -> bytes:
        """Bytes of the last group."""
        data = pybase64.b64decode(self.held, validate=True)
        if pybase64.b64encode(data) != self.held:
            raise ValueError("base64 that is written in a way of its own")
        self.held = b""
        return data


def unpack_base64(text: str) -> bytes:
    """Bytes of a base64 text. Raises ValueError when it is none.

    White space, the URL-safe alphabet and missing padding are understood; some servers write them.
    """
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError:
        tidy = _SPACE.sub("", text).rstrip("=").replace("-", "+").replace("_", "/")
        return pybase64.b64decode(tidy + "=" * (-len(tidy) % 4), validate=True)
