"""The files of one response: its head line, body and decoded inline images.

``ID.answer.part`` is a response that is still arriving or was cut off; ``ID.answer`` is complete
and durable. Its first line is the head (status, headers and route as JSON). The body follows.

An inline base64 image is stored decoded in ``ID.answer.0``, the next one in ``ID.answer.1``. A
placeholder takes its place in the body, so that an image is written once and never parsed as JSON.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from io import FileIO
from itertools import count, takewhile
from pathlib import Path
from typing import Final

import orjson
import pybase64

from batchgen.images.base64_scanner import Base64Decoder, Kind, Piece
from batchgen.spool.response_part import ResponsePart
from batchgen.system.atomic_files import (
    PART_SUFFIX,
    PRIVATE_DIRECTORY,
    PartFile,
    copy_open,
    has_name,
    make_directories,
    sync_directory,
)
from batchgen.system.file_sync import sync_file

_MAX_TEXT_BYTES: Final = 256 * 1024
"""How much body text is also kept in memory, so that it need not be read back."""
_MAX_HEAD_BYTES: Final = 1024 * 1024
_ENCODE_BYTES: Final = 3 * 256 * 1024
"""A multiple of three, so that the encoded pieces can be joined."""
_PLACEHOLDER: Final = uuid.uuid4().hex
"""Starts the placeholders of this process. It is random, so no response can contain it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpooledResponse:
    """A complete or cut-off response in the spool."""

    path: Path
    status: int
    headers: Mapping[str, str]
    route: str
    """Name of the adapter that reads the response."""
    body_offset: int
    placeholder: str
    """Start of each image placeholder; empty in a spool of a release without them."""
    coding: str = ""
    """The coding of a body that was stored as it arrived, for lack of a library to undo it."""

    def text(self) -> bytes:
        """Return the body with a placeholder for each image that has its own file."""
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.body_offset)
            return file.read()

    def body(self) -> bytes:
        """Return the body as it was received."""
        return b"".join(_restored(self.text(), self.placeholder, self._response))

    def image(self, base64: str) -> Path | None:
        """Return the file of the image that a placeholder in ``text`` names; None for base64."""
        placeholder, _, number = base64.strip().partition(":")
        if placeholder == "" or placeholder != self.placeholder or not number.isdecimal():
            return None
        return _image_path(self._response, int(number))

    @property
    def _response(self) -> Path:
        return self.path.with_name(self.path.name.removesuffix(PART_SUFFIX))


def head_line(status: int, headers: Mapping[str, str], route: str, coding: str = "") -> bytes:
    """Return the first line of a response file."""
    head = {"status": status, "headers": dict(headers), "route": route, "mark": _PLACEHOLDER}
    if coding:
        head["coding"] = coding
    return orjson.dumps(head) + b"\n"


def read_response(path: Path) -> SpooledResponse | None:
    """Read the head of a response file; None if the file is missing or has no valid head."""
    try:
        with path.open("rb") as file:
            line = file.readline(_MAX_HEAD_BYTES)
    except FileNotFoundError:
        return None
    if not line.endswith(b"\n"):
        return None
    try:
        head = json.loads(line)
        return SpooledResponse(
            path=path,
            status=head["status"],
            headers=head["headers"],
            route=head["route"],
            body_offset=len(line),
            placeholder=str(head.get("mark", "")),
            coding=str(head.get("coding", "")),
        )
    except (ValueError, KeyError, TypeError):
        return None


def remove_images(response: Path) -> None:
    """Remove the image files of a response, last first: a kill then leaves no gap in the numbers.

    Raises OSError.
    """
    images = takewhile(Path.exists, (_image_path(response, number) for number in count()))
    for image in reversed(list(images)):
        image.unlink()


class ResponseFile:
    """Writer of one response's files. Call it on worker threads, one call at a time."""

    def __init__(self, part: PartFile, head: bytes) -> None:
        self._part = part
        self._head = head
        part.hold(head)
        self._text: list[bytes] = []
        """Body text with placeholders, up to `_MAX_TEXT_BYTES`."""
        self._text_bytes = 0
        self._decoder: Base64Decoder | None = None
        """Decoder of the image that is arriving."""
        self._complete_images = 0
        self._images: list[FileIO] = []
        """Image files, open until the response is durable, because a directory can vanish."""
        self._verbatim = False
        """Whether the body is written as received, without placeholders."""
        self.failed: OSError | None = None
        self.is_durable = False
        self.is_held = False
        """Whether the complete response is in memory only, as its part says."""

    def write(self, pieces: list[Piece]) -> None:
        """Append to the response. Raises OSError, and again on every later call."""
        with self._recorded_failure():
            self._write(pieces)

    def hold(self, pieces: list[Piece]) -> bytes | None:
        """Keep a small complete response without images in memory, where its part allows that.

        Return the body, or None if `commit` has to write it.
        """
        is_text = all(kind is Kind.TEXT for kind, _ in pieces)
        if not (isinstance(self._part, ResponsePart) and is_text):
            return None
        body = [data for _, data in pieces]
        if not self._part.hold_complete(body):
            return None
        self.is_held = True
        return b"".join(body)

    def commit(self, pieces: list[Piece]) -> bytes | None:
        """Append the end of the response and make all of its files durable.

        Return the body text with placeholders, or None if it is in the file only. Raises OSError.
        """
        with self._recorded_failure():
            self._write(pieces)
            if self._decoder is not None:
                self._rewrite_verbatim()
            if self._complete_images:
                self._restore_image_names()
                # Image names must be durable before the response counts as complete.
                sync_directory(self._part.final.parent)
            self._part.commit_blocking()
        self.is_durable = True
        self.close()
        in_memory = not self._verbatim and self._text_bytes <= _MAX_TEXT_BYTES
        return b"".join(self._text) if in_memory else None

    def leave_cut(self, pieces: list[Piece]) -> None:
        """Write the last bytes of a cut-off response, without placeholders. Raises OSError."""
        with self._recorded_failure():
            self._write(pieces)
            if self._complete_images or self._decoder is not None:
                self._rewrite_verbatim()
            self._part.restore_name_blocking()
        self.close()

    def close(self) -> None:
        """Close the image files."""
        for file in self._images:
            file.close()
        self._images.clear()

    @contextmanager
    def _recorded_failure(self) -> Iterator[None]:
        """Repeat the first disk error on later calls: a response with a gap is not complete."""
        if self.failed is not None:
            raise self.failed
        try:
            yield
        except OSError as exc:
            self.failed = exc
            self.close()
            raise

    def _write(self, pieces: list[Piece]) -> None:
        for kind, data in pieces:
            if self._verbatim or kind is Kind.TEXT:
                self._write_text(data)
            elif kind is Kind.BASE64:
                self._write_base64(data)
            else:
                self._end_image()
        self._part.flush_blocking()

    def _write_text(self, data: bytes) -> None:
        self._part.write_blocking(data)
        self._text_bytes += len(data)
        if self._text_bytes <= _MAX_TEXT_BYTES:
            self._text.append(data)

    def _write_base64(self, text: bytes) -> None:
        self._decoder = self._decoder or Base64Decoder()
        try:
            data = self._decoder.feed(text)
        except ValueError:
            self._rewrite_verbatim()
        else:
            self._append_to_image(data, durable=False)

    def _end_image(self) -> None:
        assert self._decoder is not None
        try:
            data = self._decoder.end()
        except ValueError:
            self._rewrite_verbatim()
            return
        self._append_to_image(data, durable=True)
        self._decoder = None
        self._write_text(f"{_PLACEHOLDER}:{self._complete_images}".encode())
        self._complete_images += 1

    def _append_to_image(self, data: bytes, *, durable: bool) -> None:
        if self._complete_images == len(self._images):
            self._images.append(self._create_image(self._complete_images))
        file = self._images[self._complete_images]
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
        if durable:
            sync_file(file.fileno())

    def _create_image(self, number: int) -> FileIO:
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0)
        path = _image_path(self._part.final, number)
        # Default permissions, unlike the private directory: a link makes this file the output.
        try:
            handle = os.open(path, flags, 0o666)
        except FileNotFoundError:
            make_directories(path.parent, mode=PRIVATE_DIRECTORY)
            handle = os.open(path, flags, 0o666)
        return FileIO(handle, "r+b")

    def _restore_image_names(self) -> None:
        """Write image files again if the directory was removed meanwhile. Raises OSError."""
        for number, file in enumerate(self._images):
            path = _image_path(self._part.final, number)
            if not has_name(file.fileno(), path):
                with closing(self._create_image(number)) as again:
                    copy_open(file, again)

    def _rewrite_verbatim(self) -> None:
        """Replace placeholders by the original base64 and write the rest as received."""
        self._part.restore_name_blocking()
        self._restore_image_names()
        with self._part.part.open("rb") as file:
            file.seek(len(self._head))
            text = file.read()
        undecoded = self._decoder.held if self._decoder is not None else b""
        self._part.rewind(len(self._head))
        for piece in _restored(text, _PLACEHOLDER, self._part.final):
            self._part.write_blocking(piece)
        self._part.write_blocking(undecoded)
        self._part.flush_blocking()
        remove_images(self._part.final)
        self._decoder = None
        self._complete_images = 0
        self._verbatim = True


def _restored(text: bytes, placeholder: str, response: Path) -> Iterator[bytes]:
    """Yield a body with the base64 of its images in place of their placeholders.

    An image file without a placeholder was still arriving; its base64 comes last.
    """
    if not placeholder:
        yield text
        return
    pieces = re.split(rb"%s:([0-9]+)" % placeholder.encode(), text)
    for index, piece in enumerate(pieces):
        if index % 2 == 0:
            yield piece
        else:
            yield from _base64_of(_image_path(response, int(piece)))
    unfinished = _image_path(response, len(pieces) // 2)
    if unfinished.exists():
        yield from _base64_of(unfinished)


def _image_path(response: Path, number: int) -> Path:
    return response.with_name(f"{response.name}.{number}")


def _base64_of(image: Path) -> Iterator[bytes]:
    with image.open("rb") as file:
        while data := file.read(_ENCODE_BYTES):
            yield pybase64.b64encode(data)
