"""An answer without the base64 of its pictures, so that megabytes are neither parsed nor copied."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import pybase64

_LONG: Final = 4096
_MAX_LEAN: Final = 256 * 1024
_PIECE: Final = 1024 * 1024
"""A multiple of four, so that pieces of base64 can be decoded one by one."""
_HEAD: Final = re.compile(rb"(?:data:[\w/+.;=-]{0,99},)?(?=[A-Za-z0-9+/_-]{99})")
_REST_OF_STRING: Final = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_SPACE: Final = re.compile(r"\s+")
_MARK: Final = uuid.uuid4().hex
"""Stands in for a picture; nobody outside this process can write it into an answer."""


@dataclass(frozen=True, slots=True)
class LeanAnswer:
    """``text`` is the body with a word in the place of each long base64, to be read as the body.

    ``spans`` says where in the body those lie.
    """

    text: bytes
    spans: tuple[tuple[int, int], ...] = ()

    @property
    def size(self) -> int:
        """Bytes of the body, but for what follows its last picture."""
        return self.spans[-1][1] if self.spans else len(self.text)

    def decoded(self, base64: str, read: Callable[[int, int], bytes]) -> Iterator[bytes]:
        """The bytes that a base64 text of ``text`` stands for, in pieces.

        ``read`` gives the body from one place to another. Raises ValueError where it is no base64,
        perhaps behind some pieces.
        """
        mark, _, number = base64.strip().partition(":")
        if mark != _MARK:
            yield unpack_base64(base64)
            return
        begin, end = self.spans[int(number)]
        for at in range(begin, end, _PIECE):
            piece = read(at, min(at + _PIECE, end))
            try:
                data = pybase64.b64decode(piece, validate=True)
            except ValueError:
                # What came before is whole groups of four, so the rest stands for itself.
                yield unpack_base64(str(read(at, end), "latin-1"))
                return
            yield data


def lean(body: bytes) -> LeanAnswer:
    """Take the long base64 texts out of JSON, or out of events that hold JSON."""
    scan = LeanScan()
    scan.feed(body)
    return scan.result() or LeanAnswer(body)


class LeanScan:
    """Takes the long base64 texts out of a body while it arrives.

    Looks from quote to quote, so what is no JSON may keep all it holds; it loses nothing.
    """

    def __init__(self) -> None:
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._spans: list[tuple[int, int]] = []
        self._offset = 0
        """Of the body: where what was not looked at yet begins."""
        self._carried = b""
        self._begin: int | None = None
        """Where the long text begins that we are in."""
        self._given_up = False

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes."""
        if self._given_up:
            return
        done = at = 0
        if self._begin is not None:
            done = self._end_of_text(chunk)
            if done < 0:
                return
            at = done + 1
        data = self._carried + chunk if self._carried else chunk
        done = self._scan(data, done, at)
        self._carried = data[done:]
        self._offset += done
        if self._kept_bytes + len(self._carried) > _MAX_LEAN:
            self._given_up = True

    def result(self) -> LeanAnswer | None:
        """What is left of the body; None where there is too much of it, or a text has no end."""
        if self._given_up or self._begin is not None:
            return None
        return LeanAnswer(b"".join([*self._kept, self._carried]), tuple(self._spans))

    def _end_of_text(self, chunk: bytes) -> int:
        """Where in the chunk the long text ends; -1 where it goes on."""
        end = chunk.find(b'"')
        stop = len(chunk) if end < 0 else end
        if chunk.find(b"\\", 0, stop) >= 0 or chunk.find(b"\n", 0, stop) >= 0:
            self._given_up = True
            return -1
        if end < 0:
            self._offset += stop
            return -1
        self._take(end)
        return end

    def _take(self, end: int) -> None:
        """The long text ends so many bytes behind what was looked at."""
        assert self._begin is not None
        self._keep(f"{_MARK}:{len(self._spans)}".encode())
        self._spans.append((self._begin, self._offset + end))
        self._begin = None

    def _keep(self, text: bytes) -> None:
        self._kept.append(text)
        self._kept_bytes += len(text)

    def _scan(self, data: bytes, done: int, at: int) -> int:
        """Look from ``at`` on at strings that are whole, and at a long one that has begun.

        Everything up to ``done`` is kept or left out; gives how far that is now.
        """
        while (quote := data.find(b'"', at)) >= 0:
            end = data.find(b'"', quote + 1)
            stop = len(data) if end < 0 else end
            if data.find(b"\\", quote + 1, stop) >= 0:
                string = _REST_OF_STRING.match(data, quote + 1)
                if string is None:
                    break
                at = string.end()
                continue
            head = _HEAD.match(data, quote + 1, stop) if stop - quote > _LONG else None
            if head is not None and data.find(b"\n", quote, stop) < 0:
                self._keep(data[done : head.end()])
                self._begin = self._offset + head.end()
                if end < 0:
                    return len(data)
                self._take(end)
                done = end
            elif end < 0:
                break
            at = end + 1
        return done


def unpack_base64(text: str) -> bytes:
    """Bytes of a base64 text. Raises ValueError when it is none.

    White space, the URL-safe alphabet and missing padding are understood; some servers write them.
    """
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError:
        tidy = _SPACE.sub("", text).rstrip("=").replace("-", "+").replace("_", "/")
        return pybase64.b64decode(tidy + "=" * (-len(tidy) % 4), validate=True)
