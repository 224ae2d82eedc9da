"""Answers on disk before anybody reads them: head line first, then the body.

``ID.answer.part`` is a response that is still arriving, or was cut off; ``ID.answer`` is whole and
durable. An image that comes as base64 stands decoded in ``ID.answer.0``, the next one in
``ID.answer.1``, with a mark in its place in the body, so that it is written once and never parsed.
The spool lies beside the ledger, readable for its owner only.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from itertools import count, takewhile
from pathlib import Path
from typing import Final

import orjson
import pybase64

from batchgen.images.base64_scanner import Base64Decoder, Base64Scanner, Kind, Piece, ScannedBody
from batchgen.job import AttemptId
from batchgen.spool.kept_images import PRIVATE_DIRECTORY, KeptImages
from batchgen.spool.redaction import Redaction
from batchgen.system.atomic_files import (
    PART_SUFFIX,
    PartFile,
    copy_open,
    has_name,
    make_way,
    put_in_place,
    sync_directory,
    sync_file,
    write_once,
)
from batchgen.system.threads import on_disk

RESPONSE_SUFFIX: Final = ".answer"
IDENTITY_SUFFIX: Final = "-id"
"""Of a file next to the spool, which is written again with a spool that is made again."""
_OLD: Final = "old-"
"""Begins the identity of a spool that an earlier batchgen made."""
_NAME: Final = re.compile(
    rf"(?P<attempt>.+){re.escape(RESPONSE_SUFFIX)}({PART_SUFFIX}|(\.image)?\.[0-9]+)?"
)
_BUFFER_BYTES: Final = 128 * 1024
_MAX_SCANNED_TEXT: Final = 256 * 1024
_ENCODED_AT_ONCE: Final = 3 * 256 * 1024
"""A multiple of three, so that the pieces' base64 is that of the whole."""
_PRIVATE: Final = 0o600
_REMOVED_AT_ONCE: Final = 16
_MARK: Final = uuid.uuid4().hex
"""Stands for an image in what this process spools; nobody else can have written it there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpooledResponse:
    """A whole or cut response as it lies in the spool."""

    path: Path
    status: int
    headers: Mapping[str, str]
    route: str
    """Which adapter reads it."""
    body_offset: int
    mark: str
    """Begins what stands in the place of an image."""

    def text(self) -> bytes:
        """The body, with a word in the place of each image that stands beside it."""
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.body_offset)
            return file.read()

    def body(self) -> bytes:
        """The body as it came."""
        return b"".join(_filled(self.text(), self.mark, self._response))

    def image(self, base64: str) -> Path | None:
        """The file that holds what a base64 text of ``text`` stands for; None for a real one."""
        mark, _, number = base64.strip().partition(":")
        ours = mark != "" and mark == self.mark and number.isdecimal()
        return _image(self._response, int(number)) if ours else None

    @property
    def _response(self) -> Path:
        return self.path.with_name(self.path.name.removesuffix(PART_SUFFIX))


class SpoolWriter:
    """Takes one response while it arrives. Small ones cost one write in the end.

    ``hide`` is the key: a server that repeats it in an error must not bring it onto the disk.
    """

    def __init__(
        self,
        part: PartFile,
        status: int,
        headers: Mapping[str, str],
        *,
        route: str = "images",
        hide: str | None = None,
    ) -> None:
        self._hidden = Redaction(hide.encode()) if hide else None
        self._scan = Base64Scanner()
        self._waiting: list[Piece] = []
        self._waiting_bytes = 0
        self._size = 0
        self._file = _ResponseFile(part, _head_line(status, headers, route))
        self.scanned: ScannedBody | None = None
        """What to read of the body, once it is whole; None where that is in the file only."""

    @property
    def whole(self) -> bool:
        """Whether all of the response is durable; so it may be though `commit` was cancelled."""
        return self._file.whole

    @property
    def failed(self) -> OSError | None:
        """Why the disk refused; so it may have though the one who waited was cancelled."""
        return self._file.failed

    async def write(self, chunk: bytes) -> None:
        """Append to the body."""
        self._take(self._hidden.shown(chunk) if self._hidden else chunk)
        if self._waiting_bytes >= _BUFFER_BYTES:
            await on_disk(self._file.write, self._handed_over())

    async def flush(self) -> None:
        """Bring what came of a cut response to the file."""
        self._take_rest()
        await on_disk(self._file.leave, self._handed_over())

    async def commit(self) -> None:
        """The response is whole: make it durable."""
        self._take_rest()
        text = await on_disk(self._file.commit, self._handed_over())
        self.scanned = None if text is None else ScannedBody(text, self._size)

    def close(self) -> None:
        """Let go of files, as a kill does; `commit` and `flush` end with it."""
        self._file.close()

    def _take(self, data: bytes) -> None:
        self._size += len(data)
        self._waiting_bytes += len(data)
        self._waiting += self._scan.feed(data)

    def _take_rest(self) -> None:
        if self._hidden:
            self._take(self._hidden.rest())
        self._waiting.append((Kind.TEXT, self._scan.rest()))

    def _handed_over(self) -> list[Piece]:
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        return waiting


class _ResponseFile:
    """One answer's files, written in threads, one call after the other."""

    def __init__(self, part: PartFile, head: bytes) -> None:
        self._part = part
        self._head = head
        part.hold(head)
        self._text: list[bytes] = []
        """What to read of the body."""
        self._text_bytes = 0
        self._decoder: Base64Decoder | None = None
        self._whole_images = 0
        """Those that have come to their end."""
        self._images: list[FileIO] = []
        """Files of the decoded images, open until all is durable: a name can vanish."""
        self._plain = False
        """Whether the body is written as it comes."""
        self.failed: OSError | None = None
        self.whole = False

    @contextmanager
    def _in_one_piece(self) -> Iterator[None]:
        """Remembers that the disk refused: behind a gap nothing is whole."""
        if self.failed is not None:
            raise self.failed
        try:
            yield
        except OSError as exc:
            self.failed = exc
            self.close()
            raise

    def write(self, pieces: list[Piece]) -> None:
        """Append to the response. Raises OSError, then ever after."""
        with self._in_one_piece():
            self._write(pieces)

    def commit(self, pieces: list[Piece]) -> bytes | None:
        """Make all durable with the end of the response; return what to read of it, if held.

        Raises OSError.
        """
        with self._in_one_piece():
            self._write(pieces)
            if self._decoder is not None:
                self._write_plainly()
            if self._whole_images:
                self._name_images()
                # A whole response must never be found without what belongs to it.
                sync_directory(self._part.final.parent)
            self._part.commit_here()
        self.whole = True
        self.close()
        held = not self._plain and self._text_bytes <= _MAX_SCANNED_TEXT
        return b"".join(self._text) if held else None

    def leave(self, pieces: list[Piece]) -> None:
        """Write what came of a response that is cut off, as it came. Raises OSError."""
        with self._in_one_piece():
            self._write(pieces)
            if self._whole_images or self._decoder is not None:
                self._write_plainly()
            self._part.name_here()
        self.close()

    def _write(self, pieces: list[Piece]) -> None:
        for kind, data in pieces:
            if self._plain or kind is Kind.TEXT:
                self._put_text(data)
            elif kind is Kind.BASE64:
                self._put_base64(data)
            else:
                self._end_image()
        self._part.flush_here()

    def _put_text(self, data: bytes) -> None:
        self._part.write_here(data)
        self._text_bytes += len(data)
        if self._text_bytes <= _MAX_SCANNED_TEXT:
            self._text.append(data)

    def _put_base64(self, text: bytes) -> None:
        self._decoder = self._decoder or Base64Decoder()
        try:
            data = self._decoder.feed(text)
        except ValueError:
            self._write_plainly()
        else:
            self._append(data, durable=False)

    def _end_image(self) -> None:
        assert self._decoder is not None
        try:
            data = self._decoder.end()
        except ValueError:
            self._write_plainly()
            return
        self._append(data, durable=True)
        self._decoder = None
        self._put_text(f"{_MARK}:{self._whole_images}".encode())
        self._whole_images += 1

    def _append(self, data: bytes, *, durable: bool) -> None:
        if self._whole_images == len(self._images):
            self._images.append(self._create_image(self._whole_images))
        file = self._images[self._whole_images]
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
        if durable:
            sync_file(file.fileno())

    def _create_image(self, number: int) -> FileIO:
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0)
        path = _image(self._part.final, number)
        # Not for the owner only, as the directory is: it becomes the image by another name.
        try:
            handle = os.open(path, flags, 0o666)
        except FileNotFoundError:
            make_way(path.parent, mode=PRIVATE_DIRECTORY)
            handle = os.open(path, flags, 0o666)
        return FileIO(handle, "r+b")

    def _name_images(self) -> None:
        """Write images again whose directory was removed while they arrived. Raises OSError."""
        for number, file in enumerate(self._images):
            path = _image(self._part.final, number)
            if not has_name(file.fileno(), path):
                with closing(self._create_image(number)) as again:
                    copy_open(file, again)

    def close(self) -> None:
        """Let go of the images' files."""
        for file in self._images:
            file.close()
        self._images.clear()

    def _write_plainly(self) -> None:
        """Put the base64 back where it stood, and have the rest follow as it comes."""
        self._part.name_here()
        self._name_images()
        with self._part.part.open("rb") as file:
            file.seek(len(self._head))
            text = file.read()
        held = self._decoder.held if self._decoder is not None else b""
        self._part.rewind(len(self._head))
        for piece in _filled(text, _MARK, self._part.final):
            self._part.write_here(piece)
        self._part.write_here(held)
        self._part.flush_here()
        _remove_images(self._part.final)
        self._decoder = None
        self._whole_images = 0
        self._plain = True


def _filled(text: bytes, mark: str, response: Path) -> Iterator[bytes]:
    """A body in pieces, with the base64 of its images in their places.

    One that has no place yet was still arriving, and comes last.
    """
    if not mark:
        yield text
        return
    pieces = re.split(rb"%s:([0-9]+)" % mark.encode(), text)
    for place, piece in enumerate(pieces):
        if place % 2 == 0:
            yield piece
        else:
            yield from _encoded(_image(response, int(piece)))
    unplaced = _image(response, len(pieces) // 2)
    if unplaced.exists():
        yield from _encoded(unplaced)


def _image(response: Path, number: int) -> Path:
    return response.with_name(f"{response.name}.{number}")


def _encoded(image: Path) -> Iterator[bytes]:
    with image.open("rb") as file:
        while data := file.read(_ENCODED_AT_ONCE):
            yield pybase64.b64encode(data)


def _remove_images(response: Path) -> None:
    """Remove a response's images, the last one first, so that no gap hides one from the next."""
    images = takewhile(Path.exists, (_image(response, number) for number in count()))
    for image in reversed(list(images)):
        image.unlink()


class Spool:
    """The directory of spooled answers of one ledger."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.identity = ""
        """Differs from that of a directory made again in its place; known once prepared."""
        self._done: list[AttemptId] = []
        self.images = KeptImages(directory)

    def prepare(self) -> None:
        """Make the directory, for its owner only, and learn its identity and what it keeps.

        Raises OSError.
        """
        file = self.directory.with_name(self.directory.name + IDENTITY_SUFFIX)
        existed = self.directory.is_dir()
        if not existed:
            file.unlink(missing_ok=True)
        self.identity = _read_identity(file)
        if not self.identity:
            write_once(file, f"{_OLD if existed else 'new-'}{uuid.uuid4().hex}\n".encode())
            self.identity = _read_identity(file)
        make_way(self.directory, mode=PRIVATE_DIRECTORY)
        self.images.look()

    def look(self) -> None:
        """Learn the identity without making anything. Raises OSError."""
        if self.directory.is_dir():
            file = self.directory.with_name(self.directory.name + IDENTITY_SUFFIX)
            self.identity = _read_identity(file) or _OLD

    def is_that_of(self, identity: str | None) -> bool:
        """Return whether this is the spool that a run recorded.

        None is a run of a batchgen that recorded none; it used a spool that existed before.
        """
        if identity is None:
            return self.identity.startswith(_OLD)
        return identity == self.identity

    def part(self, attempt: AttemptId) -> PartFile:
        """The file that takes the attempt's answer; a cut response stays as ``ID.answer.part``."""
        return PartFile(
            self.directory / self.name(attempt),
            keep=True,
            mode=_PRIVATE,
            directory_mode=PRIVATE_DIRECTORY,
        )

    @staticmethod
    def name(attempt: AttemptId) -> str:
        """The file name of a whole response."""
        return f"{attempt}{RESPONSE_SUFFIX}"

    def find(self, attempt: AttemptId) -> SpooledResponse | None:
        """The whole response of an attempt, if it was spooled to its end."""
        return _read_head(self.directory / self.name(attempt))

    def find_cut(self, attempt: AttemptId) -> SpooledResponse | None:
        """What came of a response that broke off, if its head was written."""
        return _read_head(self.directory / (self.name(attempt) + PART_SUFFIX))

    def complete_cut(self, attempt: AttemptId) -> None:
        """Count a cut response as whole, as it holds all that matters. Raises OSError."""
        part = self.directory / (self.name(attempt) + PART_SUFFIX)
        # Windows refuses to sync a file that is open for reading only.
        with part.open("r+b") as file:
            sync_file(file.fileno())
        put_in_place(part, self.directory / self.name(attempt))

    def remove(self, attempt: AttemptId) -> None:
        """Forget a response whose images are on disk."""
        response = self.directory / self.name(attempt)
        _remove_images(response)
        self.images.drop_all(attempt)
        response.unlink(missing_ok=True)
        response.with_name(response.name + PART_SUFFIX).unlink(missing_ok=True)

    async def no_longer(self, attempt: AttemptId) -> None:
        """As `remove`, some answers at a time; the last few of a run are left to its end."""
        self._done.append(attempt)
        if len(self._done) >= _REMOVED_AT_ONCE:
            done, self._done = self._done, []
            await on_disk(self._remove_all, done)

    def _remove_all(self, attempts: list[AttemptId]) -> None:
        for attempt in attempts:
            with suppress(OSError):  # their jobs are done; the end of the run tries again
                self.remove(attempt)

    def attempts(self) -> list[AttemptId]:
        """Attempts of which the spool holds anything."""
        if not self.directory.is_dir():
            return []
        names = (_NAME.fullmatch(path.name) for path in self.directory.iterdir())
        return [AttemptId(name) for name in sorted({name["attempt"] for name in names if name})]


def _read_identity(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return ""


def _head_line(status: int, headers: Mapping[str, str], route: str) -> bytes:
    head = {"status": status, "headers": dict(headers), "route": route, "mark": _MARK}
    return orjson.dumps(head) + b"\n"


def _read_head(path: Path) -> SpooledResponse | None:
    try:
        with path.open("rb") as file:
            line = file.readline(1024 * 1024)
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
            mark=str(head.get("mark", "")),
        )
    except (ValueError, KeyError, TypeError):
        return None
