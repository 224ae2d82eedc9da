"""An answer without the base64 of its pictures, so that megabytes are neither parsed nor copied."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pybase64

from batchgen.providers.answers import unpack_base64

_LONG: Final = 4096
_PIECE: Final = 1024 * 1024
"""A multiple of four, so that pieces of base64 can be decoded one by one."""
_HEAD: Final = re.compile(rb"(?:data:[\w/+.;=-]{0,99},)?(?=[A-Za-z0-9+/_-]{99})")
_REST_OF_STRING: Final = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_MARK: Final = uuid.uuid4().hex
"""Stands in for a picture; nobody outside this process can write it into an answer."""


@dataclass(frozen=True, slots=True)
class LeanAnswer:
    """``text`` is the body with a word in the place of each long base64, to be read as the body."""

    text: bytes
    _body: bytes
    _spans: tuple[tuple[int, int], ...] = ()

    def decoded(self, base64: str) -> Iterator[bytes]:
        """The bytes that a base64 text of ``text`` stands for, in pieces.

        Raises ValueError when it is no base64, before the first piece.
        """
        mark, _, number = base64.strip().partition(":")
        if mark != _MARK:
            yield unpack_base64(base64)
            return
        begin, end = self._spans[int(number)]
        pieces = [slice(at, min(at + _PIECE, end)) for at in range(begin, end, _PIECE)]
        with memoryview(self._body) as view:
            if not all(_is_plain(view[piece]) for piece in pieces):
                yield unpack_base64(str(view[begin:end], "latin-1"))
                return
            for piece in pieces:
                yield pybase64.b64decode(view[piece], validate=True)


def lean(body: bytes) -> LeanAnswer:
    """Take the long base64 texts out of JSON, or out of events that hold JSON.

    Looks from quote to quote, so what is no JSON may keep all it holds; it loses nothing.
    """
    kept: list[bytes] = []
    spans: list[tuple[int, int]] = []
    done = at = 0
    while (quote := body.find(b'"', at)) >= 0:
        end = body.find(b'"', quote + 1)
        if end < 0:
            break
        if body.find(b"\\", quote + 1, end) >= 0:
            string = _REST_OF_STRING.match(body, quote + 1)
            if string is None:
                break
            at = string.end()
            continue
        at = end + 1
        head = _HEAD.match(body, quote + 1, end) if end - quote > _LONG else None
        if head is not None and body.find(b"\n", quote, end) < 0:
            kept += [body[done : head.end()], f"{_MARK}:{len(spans)}".encode()]
            spans.append((head.end(), end))
            done = end
    if not spans:
        return LeanAnswer(body, body)
    return LeanAnswer(b"".join([*kept, body[done:]]), body, tuple(spans))


def _is_plain(base64: memoryview) -> bool:
    try:
        pybase64.b64decode(base64, validate=True)
    except ValueError:
        return False
    return True
